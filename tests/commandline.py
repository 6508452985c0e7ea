"""Running `goldens` in this process."""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from harness.cli.app import main


@dataclass
class Told:
    status: int
    out: str
    err: str


def runner(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Told]:
    """`run("replay", "tiny.h5")` runs the command and gives what it told."""
    monkeypatch.setenv("COLUMNS", "140")

    def run(*arguments: str) -> Told:
        monkeypatch.setattr(sys, "argv", ["goldens", *arguments])
        try:
            main()
            status = 0
        except SystemExit as leaving:
            status = leaving.code if isinstance(leaving.code, int) else int(bool(leaving.code))
        captured = capsys.readouterr()
        return Told(status, captured.out, captured.err)

    return run
