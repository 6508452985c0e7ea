"""`goldens audit`."""

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import (
    Cases,
    Checkpoint,
    Files,
    Json,
    Mesh,
    Port,
    Timeout,
    console,
    mesh_of,
    open_file,
    port_of,
    stdout_kept,
    write_json,
)


def audit(
    files: Files,
    port: Port = None,
    checkpoint: Checkpoint = None,
    case: Cases = None,
    dtype: Annotated[
        str | None, typer.Option(metavar="DTYPE", help="In this dtype; else the most exact one recorded.")
    ] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="Only these faults, by name or area; may be repeated."),
    ] = None,
    faults: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE.toml",
            help="Faults in the port's source; else faults under [tool.goldens]; may be repeated.",
        ),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="K/N", help="Only every N-th of these faults, from the K-th: 1/7 to 7/7 are all."
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
    mesh: Mesh = None,
    timeout: Timeout = None,
    json: Json = False,
) -> None:
    """Put faults into the port, one at a time, and see which of them golden files catch, and whether they are named.

    The score says how much a replay that passes is worth. The port has to pass without a fault.
    """
    from harness.audit import command
    from harness.audit.outcome import score
    from harness.report.audit import show_audit, show_score

    question = command.Question(
        port=port_of(port),
        checkpoint=checkpoint,
        cases=tuple(case or ()),
        dtype=dtype,
        faults=tuple(fault or ()),
        sources=tuple(faults) if faults else command.source_setting(Path.cwd(), named=port),
        shard=command.Shard.parse(shard) if shard else None,
        mesh=mesh_of(mesh, timeout),
        timeout=timeout,
    )
    errors = console(stderr=True)
    with stdout_kept():
        chosen = command.chosen_faults(question)
        asked = [command.select(open_file(path), question) for path in files]
        audits = [command.audit(one, question, chosen, errors) for one in asked]
    told = errors if json else console()
    for one in audits:
        show_audit(one, audits, told, every)
        if json:
            write_json(one.to_json())
    show_score(audits, told, require)
    together = score(result for one in audits for result in one.results)
    raise typer.Exit(0 if require is None or together >= require / 100 else 1)
