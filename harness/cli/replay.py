"""`goldens replay` and `goldens explain`."""

from typing import Annotated

import typer

from harness.cli.options import (
    Cases,
    Checkpoint,
    Dtypes,
    Exclude,
    Files,
    Include,
    Json,
    Modes,
    Port,
    console,
    open_file,
    port_of,
    selected,
    write_json,
)
from harness.model import BY_DEFAULT


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
        port=port_of(port),
        checkpoint=checkpoint,
        modes=mode.modes,
        selection=selected(include, exclude, case, dtype),
        listed=parse_listed(unmeasured or ()),
    )
    errors = console(stderr=True)
    told = errors if json else console()
    holds = True
    for golden_file in [open_file(path) for path in files]:
        run = command.replay(golden_file, question, errors)
        show_run(run, golden_file.order, told, by_kind)
        if json:
            write_json(run.to_json())
        holds = holds and run.holds
    raise typer.Exit(0 if holds else 1)


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
        port=port_of(port),
        checkpoint=checkpoint,
        modes=BY_DEFAULT,
        selection=selected(include, exclude, case, dtype),
        listed={},
        always_diagnose=True,
    )
    errors = console(stderr=True)
    holds = True
    for golden_file in [open_file(path) for path in files]:
        run = command.replay(golden_file, question, errors)
        show_explanations(run, errors if json else console())
        if json:
            write_json(run.to_json())
        holds = holds and run.holds
    raise typer.Exit(0 if holds else 1)
