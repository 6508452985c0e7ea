"""`goldens report`."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN.json", help="What `goldens replay --json` wrote.", show_default=False),
    ],
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="The report, by suffix: .html, .json, .md, .xml; may be repeated.",
        ),
    ] = None,
    history: Annotated[
        Path | None,
        typer.Option(metavar="HISTORY.jsonl", help="Show how the runs in this history fared, too (.html)."),
    ] = None,
    annotations: Annotated[
        bool, typer.Option("--annotations", help="Print what fails as annotations of GitHub Actions.")
    ] = False,
) -> None:
    """Write runs that were kept as JSON as a report, without port and golden file."""
    from harness.errors import GoldensError
    from harness.history import log
    from harness.report.annotations import annotations as commands
    from harness.report.files import read_runs, refuse_unwritable, write_report

    if not output and not annotations:
        raise GoldensError("nothing to write: name a report with -o PATH, or ask for --annotations")
    refuse_unwritable(output or ())
    read = [run for path in runs for run in read_runs(path)]
    earlier = log.read(history) if history is not None else []
    for path in output or ():
        write_report(read, path, earlier)
    if annotations:
        for command in commands(read):
            print(command)
