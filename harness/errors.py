"""The errors a user can make, each told in one sentence."""

import difflib
from collections.abc import Iterable


class GoldensError(Exception):
    """The question could not be asked: one sentence names the thing, what was expected, what to do.

    The command line prints it and exits with status 2, without a traceback unless --debug asks for it;
    pytest shows it as the whole failure.
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """`; nearest: a, b` for the known names most like `name`, or nothing when none is near."""
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"; nearest: {', '.join(close)}" if close else ""


def first_line(error: BaseException) -> str:
    """What another library's exception says, in one line; its type where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def told(error: BaseException) -> str:
    """Another's exception in one line, with its type."""
    return f"{type(error).__name__}: {first_line(error)}"
