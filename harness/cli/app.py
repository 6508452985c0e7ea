"""`goldens`: a thin face over the rooms. Results go to stdout, everything else to stderr.

Exit status: 0 it holds, 1 it does not hold, 2 it could not be asked. What a command needs is imported by it.
"""

import sys
import traceback

import typer

from harness.cli import audit, check, files, fuzz, history, record, replay, report, review
from harness.errors import GoldensError

app = typer.Typer(
    name="goldens",
    help="Hold a model port against recorded reference tensors, component by component.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # as markup, the name of a table in square brackets would be swallowed
)
app.command(short_help="Record, replay and explain in one.")(check.check)
app.command(short_help="Record what every component of a reference does.")(record.record)
app.command(short_help="Show what changed between golden files.")(review.diff)
app.command(short_help="Let recordings replace their golden files.")(review.accept)
app.command(short_help="Drop recordings, and keep the golden files.")(review.reject)
app.command(short_help="Find the first wrong component of a port.")(replay.replay)
app.command(short_help="Say which mistake explains a failure.")(replay.explain)
app.command(short_help="Show what got worse from run to run, and since when.")(history.history)
app.command(short_help="Write kept runs as a report.")(report.report)
app.command(short_help="Say which mistakes golden files would catch.")(audit.audit)
app.command(short_help="Look for the smallest input on which a port is wrong.")(fuzz.fuzz)
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
