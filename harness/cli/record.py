"""`goldens record`."""

from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer

from harness.cli.options import Cases, Dtypes, Port, console, port_of, stdout_kept
from harness.errors import GoldensError


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
            metavar="SPEC",
            help="What to write: components=GLOB, layers=0,3-5,-1, tokens=0-15,-1 or tokens=sample:8; may be repeated.",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only say how large the golden file would be, and what is dearest."),
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Record case by case, each into a part that is kept; go on with those that are there.",
        ),
    ] = False,
    case: Cases = None,
    from_port: Annotated[
        bool, typer.Option("--from-port", help="Record a port instead of the reference: its own past.")
    ] = False,
    like: Annotated[
        Path | None,
        typer.Option(metavar="GOLDEN.h5", help="With --from-port: the golden file whose cases it runs."),
    ] = None,
    port: Port = None,
) -> None:
    """Run the reference once, and write what every component took in and gave out.

    Needs the extra [record]. A golden file that is there stays: what differs from it waits beside it, as FILE.h5.new.
    """
    if from_port:
        if suite is not None or keep or dry_run or resume:
            raise GoldensError(
                "--from-port records what the golden file --like names has: leave out SUITE.toml, --keep, --dry-run "
                "and --resume"
            )
        holds = _from_port(like, port, output, checkpoint, dtype, case)
        raise typer.Exit(0 if holds else 1)
    if like is not None or port is not None:
        raise GoldensError("--like and --port are for a recording of a port: give --from-port as well")
    if suite is None and checkpoint is None:
        raise GoldensError(
            "nothing to record: name a SUITE.toml, or a checkpoint with --checkpoint DIR_OR_HUB_ID"
        )
    if resume and dry_run:
        raise GoldensError("--dry-run records nothing that --resume could go on with: give one of them")
    command = recording()
    asked = command.Asked(
        suite=suite,
        checkpoint=checkpoint,
        output=output,
        dtypes=tuple(dtype or ()),
        keep=tuple(keep or ()),
        cases=tuple(case or ()),
        resume=resume,
    )
    if dry_run:
        command.plan_only(asked)
        return
    holds = command.record(asked)
    raise typer.Exit(0 if holds else 1)


def _from_port(
    like: Path | None,
    port: str | None,
    output: Path | None,
    checkpoint: str | None,
    dtype: list[str] | None,
    case: list[str] | None,
) -> bool:
    """Record a port. Neither torch nor transformers is needed."""
    from harness.record import from_port

    if like is None or output is None:
        raise GoldensError(
            "a recording of a port needs --like GOLDEN.h5, a golden file of the reference, and -o FILE.h5 for its own"
        )
    asked = from_port.Asked(
        like=like,
        port=port_of(port),
        output=output,
        checkpoint=checkpoint,
        dtypes=tuple(dtype or ()),
        cases=tuple(case or ()),
    )
    told, errors = console(), console(stderr=True)
    with stdout_kept():
        return from_port.record(asked, told, errors)


def recording() -> ModuleType:
    """`harness.record.command`; what it needs is an extra."""
    try:
        from harness.record import command
    except ModuleNotFoundError as error:
        raise GoldensError(
            f"recording needs {error.name}: install this package with its extra [record]"
        ) from error
    return command
