"""Running `goldens` in this process, where JAX is imported already and what it compiled is there."""

import io
import sys
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

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
        status = _status(arguments)
        captured = capsys.readouterr()
        return Told(status, captured.out, captured.err)

    return run


def tell(folder: Path, *arguments: str, columns: int = 140) -> Told:
    """Run the command in a folder and give what it told: for fixtures of a whole module."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(folder)
        patch.setenv("COLUMNS", str(columns))
        status = _status(arguments)
    return Told(status, out.getvalue(), err.getvalue())


def _status(arguments: Iterable[str]) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["goldens", *arguments])
        try:
            main()
        except SystemExit as leaving:
            return leaving.code if isinstance(leaving.code, int) else int(bool(leaving.code))
    return 0
