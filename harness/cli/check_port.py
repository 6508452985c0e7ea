"""`goldens check-port`."""

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import Cases, Checkpoint, Dtypes, Json, Port, console, open_file, port_of, write_json


def check_port(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A golden file.", show_default=False)],
    port: Port = None,
    checkpoint: Checkpoint = None,
    case: Cases = None,
    dtype: Dtypes = None,
    json: Json = False,
) -> None:
    """Say what a port offers, what stays unmeasured, and where it contradicts itself.

    The port is held against itself, on inputs of the golden file: a port with wrong weights holds. `goldens replay`
    says whether it is right. Without --case, it is asked with the case that shows most: padding, several texts.
    """
    from harness.portcheck import command
    from harness.report.portcheck import show_portcheck

    question = command.Question(port_of(port), checkpoint, tuple(case or ()), tuple(dtype or ()))
    errors = console(stderr=True)
    found = command.check(open_file(file), question, errors)
    show_portcheck(found, errors if json else console())
    if json:
        write_json(found.to_json())
    raise typer.Exit(0 if found.holds else 1)
