"""What several commands take, and how they are told. Imports nothing heavy."""

import enum
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.model import BY_DEFAULT, Mode

if TYPE_CHECKING:
    from rich.console import Console

    from harness.replay.command import Selection
    from harness.store.reader import GoldenFile

Files = Annotated[list[Path], typer.Argument(metavar="FILE", help="Golden files.", show_default=False)]
Include = Annotated[
    list[str] | None, typer.Option(metavar="GLOB", help="Only these components; may be repeated.")
]
Exclude = Annotated[
    list[str] | None, typer.Option(metavar="GLOB", help="All but these components; may be repeated.")
]
Cases = Annotated[
    list[str] | None, typer.Option("--case", metavar="NAME", help="Only these cases; may be repeated.")
]
Dtypes = Annotated[
    list[str] | None, typer.Option("--dtype", metavar="DTYPE", help="Only these dtypes; may be repeated.")
]
Port = Annotated[
    str | None,
    typer.Option(
        metavar="MODULE:FACTORY", help="The port; else port under [tool.goldens] in pyproject.toml."
    ),
]
Checkpoint = Annotated[
    str | None, typer.Option(metavar="DIR", help="Where the recorded checkpoint is on this machine.")
]
Json = Annotated[bool, typer.Option("--json", help="Write JSON to stdout.")]


class Modes(enum.StrEnum):
    ISOLATED = "isolated"
    END_TO_END = "end-to-end"
    DECODE = "decode"
    DEFAULT = "default"
    ALL = "all"

    @property
    def modes(self) -> tuple[Mode, ...]:
        return (
            {"default": BY_DEFAULT, "all": tuple(Mode)}[self] if self in ("default", "all") else (Mode(self),)
        )


def selected(
    include: list[str] | None, exclude: list[str] | None, case: list[str] | None, dtype: list[str] | None
) -> "Selection":
    """What to take of a golden file; what is not said leaves nothing out."""
    from harness.replay.command import Selection

    return Selection(tuple(include or ()), tuple(exclude or ()), tuple(case or ()), tuple(dtype or ()))


def port_of(named: str | None) -> str:
    """The port that is named, or that the project's settings name, made importable."""
    from harness.replay.command import port_or_setting
    from harness.settings import make_importable, project_folder

    make_importable(Path.cwd())
    if not named:
        make_importable(project_folder(Path.cwd()))
    return port_or_setting(named, Path.cwd())


def open_file(path: Path) -> "GoldenFile":
    from harness.store.reader import GoldenFile

    return GoldenFile.open(path)


def console(stderr: bool = False) -> "Console":
    """As wide as the terminal; where there is none, wide enough that no row is broken."""
    from rich.console import Console

    console = Console(stderr=stderr)
    wide_enough = console.is_terminal or "COLUMNS" in os.environ
    return console if wide_enough else Console(stderr=stderr, width=200)


def write_json(json: bytes) -> None:
    """One document a line, so that several golden files make JSON lines."""
    sys.stdout.write(json.decode() + "\n")
