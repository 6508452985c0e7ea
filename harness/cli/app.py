"""`goldens`: a thin face over the rooms. Results go to stdout, everything else to stderr.

Exit status: 0 it holds, 1 it does not hold, 2 it could not be asked. What a command needs is imported by it.
"""

import sys
import traceback
from collections.abc import Callable

import typer

from harness.cli import audit, check, check_port, files, fuzz, history, init, record, replay, report, review
from harness.cli.examples import epilog
from harness.errors import GoldensError

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
    app.command(short_help=short_help, epilog=epilog(command.__name__))(command)


# In the order in which a newcomer meets them.
_add(check.check, "Record, replay and explain in one.")
_add(record.record, "Record what every component of a reference does.")
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


def main() -> None:
    """The entry point. A crash is no verdict: it too exits with 2."""
    try:
        app()
    except GoldensError as error:
        print(f"goldens: {error}", file=sys.stderr)
        sys.exit(2)
    except Exception:
        traceback.print_exc()
        sys.exit(2)
