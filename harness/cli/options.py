"""What several commands take, and how they are told. Imports nothing heavy."""

import enum
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.model import BY_DEFAULT, Mode

if TYPE_CHECKING:
    from rich.console import Console

    from harness.replay.command import Selection
    from harness.store.reader import GoldenFile


def golden_path(named: str) -> Path:
    """Where a golden file is on this machine; one that is given by URL is fetched."""
    if "://" not in named:
        return Path(named)
    from harness.remote.fetch import located

    return located(named)


Files = Annotated[
    list[Path],
    typer.Argument(
        metavar="FILE", help="Golden files; URL#sha256=DIGEST, too.", show_default=False, parser=golden_path
    ),
]
File = Annotated[
    Path,
    typer.Argument(
        metavar="FILE", help="A golden file; URL#sha256=DIGEST, too.", show_default=False, parser=golden_path
    ),
]
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
Timeout = Annotated[
    float | None,
    typer.Option(metavar="SECONDS", min=0.001, help="Leave when the port takes longer for one answer."),
]
Mesh = Annotated[
    str | None,
    typer.Option(metavar="AXIS=N,...", help="Spread the port over devices, so many along each axis: dp=2."),
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


def mesh_of(named: str | None, timeout: float | None = None) -> Any:
    """The mesh of devices that is named, if there is one: before JAX is asked for anything else.

    timeout: the seconds in which processes that share it have to come together
    """
    if named is None:
        return None
    from harness.replay import mesh

    made = mesh.mesh_of(named, timeout)
    if mesh.processes(made) > 1:
        _keep_stdout()
    return made


def tells(mesh: Any) -> bool:
    """Whether this process tells what is found: of several that share a mesh, the first. All exit alike."""
    from harness.replay.mesh import is_first

    return is_first(mesh)


@contextmanager
def stdout_kept() -> Iterator[None]:
    """Inside, what a port prints goes to stderr. What was told before is told, even if the port ends the process."""
    sys.stdout.flush()
    with redirect_stdout(sys.stderr):
        yield


def _keep_stdout() -> None:
    """For results: what connects processes writes of each connection to the file that is stdout, beside Python."""
    sys.stdout.flush()
    own = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    sys.stdout = open(own, "w")  # noqa: SIM115, for the whole run


def open_file(path: Path) -> "GoldenFile":
    from harness.store.reader import GoldenFile

    return GoldenFile.open(path)


def console(stderr: bool = False, quiet: bool = False) -> "Console":
    """As wide as the terminal; where there is none, wide enough that no row is broken."""
    from rich.console import Console

    file = sys.stderr if stderr else sys.stdout  # as it is now: see `stdout_kept`
    console = Console(file=file, stderr=stderr, quiet=quiet)
    wide_enough = console.is_terminal or "COLUMNS" in os.environ
    return console if wide_enough else Console(file=file, stderr=stderr, width=200, quiet=quiet)


def write_json(json: bytes) -> None:
    """One document a line, so that several golden files make JSON lines."""
    sys.stdout.write(json.decode() + "\n")
