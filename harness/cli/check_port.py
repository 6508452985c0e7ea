"""`goldens check-port`."""

import typer

from harness.cli.options import (
    Cases,
    Checkpoint,
    Dtypes,
    File,
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


def check_port(
    file: File,
    port: Port = None,
    checkpoint: Checkpoint = None,
    case: Cases = None,
    dtype: Dtypes = None,
    timeout: Timeout = None,
    mesh: Mesh = None,
    json: Json = False,
) -> None:
    """Say what a port offers, what stays unmeasured, and where it contradicts itself.

    The port is held against itself, on inputs of the golden file: a port with wrong weights holds. `goldens replay`
    says whether it is right. Without --case, it is asked with the case that shows most: padding, several texts.
    """
    from harness.portcheck import command
    from harness.report.portcheck import show_portcheck

    question = command.Question(
        port_of(port), checkpoint, tuple(case or ()), tuple(dtype or ()), mesh_of(mesh, timeout), timeout
    )
    errors = console(stderr=True)
    with stdout_kept():
        found = command.check(open_file(file), question, errors)
    show_portcheck(found, errors if json else console())
    if json:
        write_json(found.to_json())
    raise typer.Exit(0 if found.holds else 1)
