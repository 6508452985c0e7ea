"""`goldens`: a thin face over the rooms. Results go to stdout, everything else to stderr.

Exit status: 0 it holds, 1 it does not hold, 2 it could not be asked. What a command needs is imported by it.
"""

import functools
import logging
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import typer

from harness.cli import (
    audit,
    check,
    check_port,
    fetch,
    files,
    fuzz,
    history,
    init,
    record,
    replay,
    report,
    review,
)
from harness.cli.examples import epilog
from harness.errors import GoldensError, told

app = typer.Typer(
    name="goldens",
    help="Hold a model port against recorded reference tensors, component by component.",
    epilog="Exit status: 0 it holds, 1 it does not hold, 2 it could not be asked. `goldens COMMAND --help`: examples.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # as markup, the name of a table in square brackets would be swallowed
)


def _add(command: Callable[..., None], short_help: str) -> None:
    @functools.wraps(command)
    def asked(*arguments: object, **options: object) -> None:
        try:
            command(*arguments, **options)
        except SystemExit as leaving:
            # no command does it, and a status that a port chose would be taken for a verdict
            raise GoldensError(
                f"code that is not this program's, the port's perhaps, called sys.exit({leaving.code!r}): "
                "take the call out; `goldens --debug ...` shows where it is"
            ) from leaving

    app.command(short_help=short_help, epilog=epilog(command.__name__))(asked)


# In the order in which a newcomer meets them.
_add(check.check, "Record, replay and explain in one.")
_add(record.record, "Record what every component of a reference does.")
_add(fetch.fetch, "Fetch golden files that lie elsewhere.")
_add(files.show, "Say what is in a golden file.")
_add(init.init, "Draft an adapter for a model, to be reviewed.")
_add(check_port.check_port, "Say what a port offers, and where it contradicts itself.")
_add(replay.replay, "Find the first wrong component of a port.")
_add(replay.explain, "Say which mistake explains a failure.")
_add(report.report, "Write kept runs as a report.")
_add(history.history, "Show what got worse from run to run, and since when.")
_add(audit.audit, "Say which mistakes golden files would catch.")
_add(fuzz.fuzz, "Look for the smallest input on which a port is wrong.")
_add(review.diff, "Show what changed between golden files.")
_add(review.accept, "Let recordings replace their golden files.")
_add(review.reject, "Drop recordings, and keep the golden files.")
_add(files.verify, "Check every byte of golden files.")


@dataclass
class Asked:
    """What is said before the command's name."""

    debug: bool = False


@app.callback()
def goldens(
    context: typer.Context,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks, too: of an error, of what a port raised.")
    ] = False,
) -> None:
    context.ensure_object(Asked).debug = debug
    if debug:
        logging.basicConfig(format="%(name)s: %(message)s")
        logging.getLogger("harness").setLevel(logging.DEBUG)


def main() -> None:
    """The entry point. What is no verdict, a crash too, is one sentence and status 2."""
    asked = Asked()
    try:
        app(obj=asked)
    except Exception as error:
        if asked.debug:
            traceback.print_exc()
        print(f"goldens: {_sentence(error)}", file=sys.stderr)
        sys.exit(2)


def _sentence(error: Exception) -> str:
    if isinstance(error, GoldensError):
        return str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return f"a defect of this program, and no verdict: {told(error)}; `goldens --debug ...` shows where"
