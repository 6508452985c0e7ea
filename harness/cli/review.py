"""`goldens diff`, `goldens accept` and `goldens reject`: recordings that wait beside their golden files."""

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import Cases, Exclude, Include, Json, console, write_json

Waiting = Annotated[
    list[Path] | None,
    typer.Argument(metavar="FILE", help="Golden files with a recording FILE.h5.new.", show_default=False),
]
Every = Annotated[bool, typer.Option("--all", help="All that are pending in this folder and below.")]


def diff(
    files: Waiting = None,
    against: Annotated[
        Path | None, typer.Option(metavar="OTHER.h5", help="Compare FILE with this, not with FILE.h5.new.")
    ] = None,
    include: Include = None,
    exclude: Exclude = None,
    case: Cases = None,
    dtype: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DTYPE[:DTYPE]",
            help="Only these dtypes; float32:bfloat16: one of the old file, another of the new; may be repeated.",
        ),
    ] = None,
    worst: Annotated[
        int, typer.Option(metavar="N", min=1, help="Show this many changes of a kind, and components.")
    ] = 12,
    json: Json = False,
) -> None:
    """Show what changed between a golden file and the recording beside it, or between any two golden files."""
    from harness.report.diff import show_diff
    from harness.review import command
    from harness.review.changes import Scope

    scope = Scope(
        tuple(include or ()), tuple(exclude or ()), tuple(case or ()), command.parse_dtypes(dtype or ())
    )
    found = command.diffs(files or (), against, scope)
    told = console(stderr=json)
    if not found:
        console(stderr=True).print("nothing is pending here")
    for each in found:
        show_diff(each, told, worst)
        if json:
            write_json(each.to_json())
    raise typer.Exit(0 if all(each.agrees for each in found) else 1)


def accept(files: Waiting = None, every: Every = False) -> None:
    """Let recordings take the place of their golden files. At a terminal, with nothing named, ask for each."""
    from harness.review.command import review

    raise typer.Exit(0 if review("accept", files or (), every, console()) else 1)


def reject(files: Waiting = None, every: Every = False) -> None:
    """Drop recordings, and leave golden files as they are. At a terminal, with nothing named, ask for each."""
    from harness.review.command import review

    raise typer.Exit(0 if review("reject", files or (), every, console()) else 1)
