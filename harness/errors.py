"""The errors a user can make, each told in one sentence."""

import difflib
from collections.abc import Iterable


class GoldensError(Exception):
    """The question could not be asked: one sentence names the thing, what was expected, what to do.

    The command line prints it without a traceback and exits with status 2; pytest shows it as the
    whole failure.
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """`; nearest: a, b` for the known names most like `name`, or nothing when none is near."""
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"; nearest: {', '.join(close)}" if close else ""
