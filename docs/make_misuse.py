"""Writes docs/misuse.md: what can be done wrongly, and the sentence that answers it; tests/misuse holds each true.

python docs/make_misuse.py               # or: make docs
"""

import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.misuse.misuse import Misuse, Section
from tests.misuse.table import MISUSES, SECTIONS

PAGE = Path(__file__).with_name("misuse.md")
INTRODUCTION = f"""\
# What is said to a mistake

{len(MISUSES)} things that can be done wrongly, each with the one sentence that answers it; no two of them reach
the same check. `make test` does them all, and this page is written from the same table, `tests/misuse`.

A question that cannot be asked ends with status 2. A port that is wrong in itself is a verdict: it fails, with status
1. In pytest, the status is pytest's own. `...` stands for what another library or machine words otherwise.

There is no traceback. `goldens --debug COMMAND ...` shows it: of the error, and of everything that a port raised; with
`--timeout`, where the port was when its time was over. In pytest, `--log-level=DEBUG` shows what a port raised.
"""


def page() -> str:
    return "\n".join([INTRODUCTION, *(line for section in SECTIONS for line in _section(section))])


def _section(section: Section) -> Iterator[str]:
    yield f"## {section.title}\n"
    yield f"{section.introduction}\n"
    yield "| what is done | typed | what is said | status |"
    yield "|---|---|---|---|"
    yield from map(_row, section.misuses)
    yield ""


def _row(misuse: Misuse) -> str:
    cells = (misuse.what, f"`{misuse.typed}`", _code(misuse.says), str(misuse.status))
    return "| {} | {} | {} | {} |".format(*(cell.replace("|", r"\|") for cell in cells))


def _code(text: str) -> str:
    """As code, whatever backticks are in it."""
    return f"`` {text} ``" if "`" in text else f"`{text}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
