"""The plugin's settings: each a flag and an ini name of its own; the flag goes first. Imports nothing but pytest."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

MISSING = ("fail", "skip")
UNUSED = ("auto", "fail", "warn", "ignore")


@dataclass(frozen=True)
class Settings:
    """What flags and ini say together.

    folder: golden files that markers name are relative to it; own_folder: whether a setting says so
    port: `MODULE:FACTORY`, or empty; port_folder: where a module that is not installed is looked for
    mesh: the devices that the port is spread over, as `dp=2,tp=4`, or empty
    missing, unused: one of the words above; `auto` is gone: it is what `unused_on` makes of it
    asked_unused: whether somebody asked for unused goldens to be judged
    reports: files to write; margins: how many of the comparisons nearest to their limit to show
    flags: those of the command line that decide what is compared; whoever runs a test again needs them
    """

    folder: Path
    own_folder: bool
    port: str
    port_folder: Path
    mesh: str
    missing: str
    unused: str
    asked_unused: bool
    reports: tuple[Path, ...]
    margins: int
    flags: tuple[str, ...]


SETTINGS = pytest.StashKey[Settings]()


def add_options(parser: pytest.Parser) -> None:
    group = parser.getgroup("goldens", "parity tests against golden files")
    option, ini = group.addoption, parser.addini
    option("--goldens-dir", metavar="DIR", help="Where golden files named by markers lie.")
    ini("goldens_dir", "Where golden files named by markers lie, relative to rootdir.", default="")
    option("--goldens-port", metavar="MODULE:FACTORY", help="The port that the fixture `port` gives.")
    ini("goldens_port", "The port, as MODULE:FACTORY; else [tool.goldens] port.", default="")
    option("--goldens-mesh", metavar="AXIS=N,...", help="The devices to spread that port over: dp=2,tp=4.")
    ini("goldens_mesh", "The devices to spread the port over, as dp=2,tp=4; else one.", default="")
    ini("goldens_tolerances", "The tolerance file; else that of [tool.goldens].", default="")
    option("--goldens-missing", choices=MISSING, help="What becomes of a golden file that is not there.")
    ini("goldens_missing", "A golden file that is not there: fail or skip.", default="fail")
    option("--goldens-unused", choices=UNUSED, help="What becomes of goldens that no test compares.")
    ini("goldens_unused", "Goldens that no test compares: auto, fail, warn or ignore.", default="auto")
    option(
        "--goldens-report",
        metavar="FILE",
        action="append",
        help="Write a report; its suffix says which: .json, .md, .html or .xml. May be given several times.",
    )
    ini("goldens_report", "Reports to write, a file each line, relative to rootdir.", type="linelist")
    option("--goldens-margins", metavar="N", help="Show the N comparisons nearest to their limit.")
    ini("goldens_margins", "How many of the comparisons nearest to their limit to show.", default="0")


def read_settings(config: pytest.Config) -> Settings:
    """Raises UsageError for a value that is not known."""
    here, root = config.invocation_params.dir, config.rootpath
    folder, port = config.getoption("goldens_dir"), config.getoption("goldens_port")
    unused = _word(config, "goldens_unused", UNUSED)
    return Settings(
        folder=here / folder if folder else root / config.getini("goldens_dir"),
        own_folder=bool(folder or config.getini("goldens_dir")),
        port=port or config.getini("goldens_port"),
        port_folder=here if port else root,
        mesh=_mesh(config),
        missing=_word(config, "goldens_missing", MISSING),
        unused=unused_on(unused, os.environ),
        asked_unused=unused in ("fail", "warn"),
        reports=_reports(config, here, root),
        margins=_margins(config),
        flags=tuple(
            f"{flag}={value}"
            for flag, value in (
                ("--goldens-dir", folder),
                ("--goldens-port", port),
                ("--goldens-mesh", config.getoption("goldens_mesh")),
            )
            if value
        ),
    )


def unused_on(word: str, environment: Mapping[str, str]) -> str:
    """`auto` fails where nobody reads along, under CI, and warns elsewhere."""
    return word if word != "auto" else "fail" if environment.get("CI") else "warn"


def _said(config: pytest.Config, name: str) -> str:
    return config.getoption(name) or config.getini(name)


def _word(config: pytest.Config, name: str, known: tuple[str, ...]) -> str:
    word = _said(config, name)
    if word not in known:
        raise pytest.UsageError(f"{name} = {word}: expected one of {', '.join(known)}")
    return word


def _mesh(config: pytest.Config) -> str:
    text = _said(config, "goldens_mesh")
    if text:
        from harness.errors import GoldensError
        from harness.replay.mesh import parse_mesh

        try:
            parse_mesh(text)
        except GoldensError as error:
            raise pytest.UsageError(f"goldens_mesh: {error}") from None
    return text


def _margins(config: pytest.Config) -> int:
    number = _said(config, "goldens_margins")
    if not number.isdecimal():
        raise pytest.UsageError(f"goldens_margins is {number!r}: expected a number of comparisons to show")
    return int(number)


def _reports(config: pytest.Config, here: Path, root: Path) -> tuple[Path, ...]:
    """Absolute, and refused before anything runs if they could not be written."""
    flags = config.getoption("goldens_report")
    paths = (
        [here / file for file in flags]
        if flags
        else [root / file for file in config.getini("goldens_report")]
    )
    if paths and not is_worker(config):
        from harness.errors import GoldensError
        from harness.report.files import refuse_unwritable

        try:
            refuse_unwritable(paths)
        except GoldensError as error:
            raise pytest.UsageError(str(error)) from None
    return tuple(paths)


def is_worker(config: pytest.Config) -> bool:
    """One of several processes, which tells another one what it found."""
    return hasattr(config, "workerinput")
