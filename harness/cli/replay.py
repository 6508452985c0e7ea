"""`goldens replay` and `goldens explain`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import (
    Cases,
    Checkpoint,
    Dtypes,
    Exclude,
    Files,
    Include,
    Json,
    Mesh,
    Modes,
    Port,
    Timeout,
    console,
    mesh_of,
    open_file,
    port_of,
    selected,
    stdout_kept,
    tells,
    write_json,
)
from harness.model import BY_DEFAULT

if TYPE_CHECKING:
    from harness.store.reader import GoldenFile
    from harness.tolerances import Tolerances

TolerancesFile = Annotated[
    Path | None,
    typer.Option(
        "--tolerances",
        metavar="FILE",
        help="The tolerance file; else tolerances under [tool.goldens], or goldens/tolerances.toml.",
    ),
]


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
        list[str] | None,
        typer.Option(metavar="GLOB=REASON", help="May stay unmeasured, for this reason; may be repeated."),
    ] = None,
    tolerances: TolerancesFile = None,
    timeout: Timeout = None,
    mesh: Mesh = None,
    report: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH", help="Write a report, too, by suffix: .html, .json, .md, .xml; may be repeated."
        ),
    ] = None,
    history: Annotated[
        Path | None,
        typer.Option(metavar="HISTORY.jsonl", help="Add the run to this history; see `goldens history`."),
    ] = None,
    json: Json = False,
    by_kind: Annotated[bool, typer.Option("--by-kind", help="A row for each kind of component.")] = False,
) -> None:
    """Run the port against golden files, and say which component is wrong first.

    Isolated, each component is fed what the reference fed it; end to end, the port runs by itself. Needs no PyTorch.
    """
    from harness.history.entry import Entry
    from harness.history.log import append, read
    from harness.replay import command
    from harness.report.files import refuse_unwritable, write_report
    from harness.report.result import parse_listed
    from harness.report.terminal import show_run

    refuse_unwritable(report or ())
    earlier = read(history) if history is not None and history.exists() else []
    question = command.Question(
        port=port_of(port),
        checkpoint=checkpoint,
        modes=mode.modes,
        selection=selected(include, exclude, case, dtype),
        listed=parse_listed(unmeasured or ()),
        tolerances=tolerances_of(tolerances),
        timeout=timeout,
        mesh=mesh_of(mesh, timeout),
    )
    golden_files = [open_file(path) for path in files]
    _warn_of_unmatched(question.tolerances, golden_files)
    first = tells(question.mesh)
    errors = console(stderr=True, quiet=not first)
    told = errors if json else console(quiet=not first)
    runs = []
    for golden_file in golden_files:
        with stdout_kept():
            run = command.replay(golden_file, question, errors)
        show_run(run, golden_file.order, told, by_kind)
        if json and first:
            write_json(run.to_json())
        runs.append(run)
    for path in (report or ()) if first else ():
        write_report(runs, path, earlier)
    if history is not None and first:
        for run in runs:
            append(history, Entry.of(run))
    raise typer.Exit(0 if all(run.holds for run in runs) else 1)


def explain(
    files: Files,
    port: Port = None,
    checkpoint: Checkpoint = None,
    include: Include = None,
    exclude: Exclude = None,
    case: Cases = None,
    dtype: Dtypes = None,
    tolerances: TolerancesFile = None,
    timeout: Timeout = None,
    mesh: Mesh = None,
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
        tolerances=tolerances_of(tolerances),
        timeout=timeout,
        mesh=mesh_of(mesh, timeout),
    )
    first = tells(question.mesh)
    errors = console(stderr=True, quiet=not first)
    holds = True
    for golden_file in [open_file(path) for path in files]:
        with stdout_kept():
            run = command.replay(golden_file, question, errors)
        show_explanations(run, errors if json else console(quiet=not first))
        if json and first:
            write_json(run.to_json())
        holds = holds and run.holds
    raise typer.Exit(0 if holds else 1)


def tolerances_of(named: Path | None) -> "Tolerances":
    """The tolerance file that is named, or that the project has."""
    from harness.settings import tolerance_setting
    from harness.tolerances import read

    return read(named or tolerance_setting(Path.cwd()))


def _warn_of_unmatched(tolerances: "Tolerances", golden_files: "Sequence[GoldenFile]") -> None:
    for sentence in tolerances.unmatched(golden_files):
        print(f"goldens: {sentence}", file=sys.stderr)
