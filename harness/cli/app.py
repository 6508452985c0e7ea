"""`goldens`: a thin face over the rooms. Results go to stdout, everything else to stderr.

Exit status: 0 it holds, 1 it does not hold, 2 it could not be asked. What a command needs is imported by it.
"""

import sys
import traceback

import typer

from harness.cli import audit, files, record, replay
from harness.errors import GoldensError

app = typer.Typer(
    name="goldens",
    help="Hold a model port against recorded reference tensors, component by component.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # as markup, the name of a table in square brackets would be swallowed
)
app.command(short_help="Record what every component of a reference does.")(record.record)
app.command(short_help="Find the first wrong component of a port.")(replay.replay)
app.command(short_help="Say which mistake explains a failure.")(replay.explain)
app.command(short_help="Say which mistakes golden files would catch.")(audit.audit)
app.command(short_help="Say what is in a golden file.")(files.show)
app.command(short_help="Check every byte of golden files.")(files.verify)


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
