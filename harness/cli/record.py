"""`goldens record`."""

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import Cases, Dtypes
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
