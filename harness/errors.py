"""The errors a user can make, each told in one sentence."""

import difflib
import re
from collections.abc import Iterable

_URL = re.compile(
    r"""\b(?P<scheme>[a-z][a-z0-9+.-]+:/{1,2})(?:[^\s/'"<>]*@)?(?P<place>[^\s?'"<>]*)"""
    r"""(?:\?[^\s#'"<>]*?(?=[:;,.)]*(?:[\s'"<>#]|$)))?""",
    re.IGNORECASE,
)
"""Also one that became a path, with one slash."""


def without_secrets(text: str) -> str:
    """With what may be a password or a token left out of URLs: what stands before `@`, and the query."""
    return _URL.sub(r"\g<scheme>\g<place>", text)


class GoldensError(Exception):
    """The question could not be asked: one sentence names the thing, what was expected, what to do.

    The command line prints it and exits with status 2, without a traceback unless --debug asks for it;
    pytest shows it as the whole failure. A URL in it is shown without what may be a password.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(without_secrets(sentence))


def nearest(name: str, known: Iterable[str]) -> str:
    """`; nearest: a, b` for the known names most like `name`, or nothing when none is near."""
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"; nearest: {', '.join(close)}" if close else ""


def first_line(error: BaseException) -> str:
    """What another library's exception says, in one line and without passwords; its type where it says nothing."""
    lines = without_secrets(str(error)).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def told(error: BaseException) -> str:
    """Another's exception in one line, with its type."""
    return f"{type(error).__name__}: {first_line(error)}"
