"""`goldens`: a thin face over the rooms. Results go to stdout, everything else to stderr.

Exit status: 0 it holds, 1 it does not hold, 2 it could not be asked. What a command needs is imported by it.
"""

import enum
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.errors import GoldensError
from harness.model import BY_DEFAULT, Mode

if TYPE_CHECKING:
    from rich.console import Console

    from harness.replay.command import Selection
    from harness.store.reader import GoldenFile

app = typer.Typer(
    name="goldens",
    help="Hold a model port against recorded reference tensors, component by component.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # as markup, the name of a table in square brackets would be swallowed
)

Files = Annotated[list[Path], typer.Argument(metavar="FILE", help="Golden files.", show_default=False)]
Include = Annotated[list[str] | None, typer.Option(metavar="GLOB", help="Only these components.")]
Exclude = Annotated[list[str] | None, typer.Option(metavar="GLOB", help="All but these components.")]
Cases = Annotated[list[str] | None, typer.Option("--case", metavar="NAME", help="Only these cases.")]
Dtypes = Annotated[list[str] | None, typer.Option("--dtype", metavar="DTYPE", help="Only these dtypes.")]
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


@app.command(short_help="Record what every component of a reference does.")
def record(
    suite: Annotated[
        Path | None, typer.Argument(metavar="SUITE.toml", help="What to record.", show_default=False)
    ] = None,
    checkpoint: Annotated[
        str | None, typer.Option(metavar="DIR_OR_HUB_ID", help="Record this, instead of the suite's.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE.h5", help="The golden file to write.")
    ] = None,
    dtype: Dtypes = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SPEC", help="What to write: components=GLOB, layers=0,3-5,-1 or tokens=0-15,-1."
        ),
    ] = None,
    case: Cases = None,
) -> None:
    """Run the reference once, and write what every component took in and gave out."""
    if suite is None and checkpoint is None:
        raise GoldensError(
            "nothing to record: name a SUITE.toml, or a checkpoint with --checkpoint DIR_OR_HUB_ID"
        )
    try:
        from harness.record import command
    except ModuleNotFoundError as error:
        raise GoldensError(
            f"recording needs {error.name}: install this package with its extra [record]"
        ) from error
    asked = command.Asked(
        suite=suite,
        checkpoint=checkpoint,
        output=output,
        dtypes=tuple(dtype or ()),
        keep=tuple(keep or ()),
        cases=tuple(case or ()),
    )
    holds = command.record(asked)
    raise typer.Exit(0 if holds else 1)


@app.command(short_help="Find the first wrong component of a port.")
def replay(
    files: Files,
    port: Port = None,
    checkpoint: Checkpoint = None,
    mode: Annotated[
        Modes,
        typer.Option(
            help="Feed each component goldens, run the whole port, or run it token by token; else as it was recorded."
        ),
    ] = Modes.DEFAULT,
    include: Include = None,
    exclude: Exclude = None,
    case: Cases = None,
    dtype: Dtypes = None,
    unmeasured: Annotated[
        list[str] | None, typer.Option(metavar="GLOB=REASON", help="May stay unmeasured, for this reason.")
    ] = None,
    json: Json = False,
    by_kind: Annotated[bool, typer.Option("--by-kind", help="A row for each kind of component.")] = False,
) -> None:
    """Run the port against golden files, and say which component is wrong first."""
    from harness.replay import command
    from harness.report.result import parse_listed
    from harness.report.terminal import show_run

    question = command.Question(
        port=_port(port),
        checkpoint=checkpoint,
        modes=mode.modes,
        selection=_selected(include, exclude, case, dtype),
        listed=parse_listed(unmeasured or ()),
    )
    errors = _console(stderr=True)
    told = errors if json else _console()
    holds = True
    for golden_file in [_open(path) for path in files]:
        run = command.replay(golden_file, question, errors)
        show_run(run, golden_file.order, told, by_kind)
        if json:
            _write(run.to_json())
        holds = holds and run.holds
    raise typer.Exit(0 if holds else 1)


@app.command(short_help="Say which mistake explains a failure.")
def explain(
    files: Files,
    port: Port = None,
    checkpoint: Checkpoint = None,
    include: Include = None,
    exclude: Exclude = None,
    case: Cases = None,
    dtype: Dtypes = None,
    json: Json = False,
) -> None:
    """Replay, and say of every component that fails which mistake explains it, and of the rest how it rounds."""
    from harness.replay import command
    from harness.report.terminal import show_explanations

    question = command.Question(
        port=_port(port),
        checkpoint=checkpoint,
        modes=BY_DEFAULT,
        selection=_selected(include, exclude, case, dtype),
        listed={},
        always_diagnose=True,
    )
    errors = _console(stderr=True)
    holds = True
    for golden_file in [_open(path) for path in files]:
        run = command.replay(golden_file, question, errors)
        show_explanations(run, errors if json else _console())
        if json:
            _write(run.to_json())
        holds = holds and run.holds
    raise typer.Exit(0 if holds else 1)


@app.command(short_help="Say which mistakes golden files would catch.")
def audit(
    files: Files,
    port: Port = None,
    checkpoint: Checkpoint = None,
    case: Cases = None,
    dtype: Annotated[
        str | None, typer.Option(metavar="DTYPE", help="In this dtype; else the most exact one recorded.")
    ] = None,
    fault: Annotated[
        list[str] | None, typer.Option(metavar="GLOB", help="Only these faults, by name or area.")
    ] = None,
    faults: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE.toml", help="Faults in the port's source; else faults under [tool.goldens]."
        ),
    ] = None,
    require: Annotated[
        float | None,
        typer.Option(
            metavar="PERCENT", min=0, max=100, help="The least score that holds, of all files together."
        ),
    ] = None,
    every: Annotated[
        bool, typer.Option("--every", help="A line for each fault, the caught ones too.")
    ] = False,
    json: Json = False,
) -> None:
    """Put faults into the port, one at a time, and see which of them golden files catch, and whether they are named."""
    from harness.audit import command
    from harness.audit.outcome import score
    from harness.report.audit import show_audit, show_score

    question = command.Question(
        port=_port(port),
        checkpoint=checkpoint,
        cases=tuple(case or ()),
        dtype=dtype,
        faults=tuple(fault or ()),
        sources=tuple(faults) if faults else command.source_setting(Path.cwd(), named=port),
    )
    chosen = command.chosen_faults(question)
    errors = _console(stderr=True)
    asked = [command.select(_open(path), question) for path in files]
    audits = [command.audit(one, question, chosen, errors) for one in asked]
    told = errors if json else _console()
    for one in audits:
        show_audit(one, audits, told, every)
        if json:
            _write(one.to_json())
    show_score(audits, told, require)
    together = score(result for one in audits for result in one.results)
    raise typer.Exit(0 if require is None or together >= require / 100 else 1)


@app.command(short_help="Say what is in a golden file.")
def show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A golden file.", show_default=False)],
    json: Json = False,
) -> None:
    """Say what is in a golden file: where it came from, cases, components, shapes, noise floors."""
    import msgspec

    from harness.report.contents import show_contents, summarise

    summary = summarise(_open(file))
    if json:
        _write(msgspec.json.encode(summary))
    else:
        show_contents(summary, _console())


@app.command(short_help="Check every byte of golden files.")
def verify(files: Files) -> None:
    """Hold every byte of golden files against its digest, and their index against HDF5."""
    from harness.store.verify import verify as problems_of

    holds = True
    for path in files:
        problems = problems_of(path)
        print(f"{path}: {'does not hold' if problems else 'holds'}")
        for problem in problems:
            print(f"  {problem}")
        holds = holds and not problems
    raise typer.Exit(0 if holds else 1)


def _selected(
    include: list[str] | None, exclude: list[str] | None, case: list[str] | None, dtype: list[str] | None
) -> "Selection":
    """What to take of a golden file; what is not said leaves nothing out."""
    from harness.replay.command import Selection

    return Selection(tuple(include or ()), tuple(exclude or ()), tuple(case or ()), tuple(dtype or ()))


def _port(named: str | None) -> str:
    """The port that is named, or that the project's settings name, made importable."""
    from harness.replay.command import port_or_setting
    from harness.settings import make_importable, project_folder

    make_importable(Path.cwd())
    if not named:
        make_importable(project_folder(Path.cwd()))
    return port_or_setting(named, Path.cwd())


def _open(path: Path) -> "GoldenFile":
    from harness.store.reader import GoldenFile

    return GoldenFile.open(path)


def _console(stderr: bool = False) -> "Console":
    """As wide as the terminal; where there is none, wide enough that no row is broken."""
    from rich.console import Console

    console = Console(stderr=stderr)
    wide_enough = console.is_terminal or "COLUMNS" in os.environ
    return console if wide_enough else Console(stderr=stderr, width=200)


def _write(json: bytes) -> None:
    """One document a line, so that several golden files make JSON lines."""
    sys.stdout.write(json.decode() + "\n")


def main() -> None:
    """The entry point. A crash is no verdict: it too exits with 2."""
    try:
        app()
    except GoldensError as error:
        print(f"goldens: {error}", file=sys.stderr)
        sys.exit(2)
    except Exception:
        traceback.print_exc()
        sys.exit(2)


if __name__ == "__main__":
    main()
