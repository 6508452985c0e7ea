"""How near each component came to its limit in the runs before this one."""

from collections.abc import Sequence
from typing import Any

from harness.history.entry import Entry, Margin, numbers
from harness.model import Mode
from harness.report.html.encode import code
from harness.report.result import Run


def trends(run: Run, history: Sequence[Entry]) -> dict[str, Any]:
    """Of the runs in `history` of the same golden file and port, the oldest first, what page.js takes.

    margins: for each component, dtype and mode the worst case in each of them; null where it was not measured
    """
    earlier = [entry for entry in history if _is_before(entry, run)]
    margins: dict[tuple[str, str, Mode], list[int | None]] = {}
    for place, entry in enumerate(earlier):
        for key, found in _worst(entry).items():
            margins.setdefault(key, [None] * len(earlier))[place] = found
    return {
        "runs": [entry.when for entry in earlier],
        "margins": [[*key, codes] for key, codes in margins.items()],
    }


def _is_before(entry: Entry, run: Run) -> bool:
    """The run itself may be in its history."""
    now = run.environment.time if run.environment is not None else ""
    then = entry.environment.time if entry.environment is not None else ""
    return entry.series == (run.golden, run.port) and not (now and then >= now)


def _worst(entry: Entry) -> dict[tuple[str, str, Mode], int | None]:
    found: dict[tuple[str, str, Mode], list[Margin]] = {}
    for (dtype, mode, _), members in entry.comparisons().items():
        for name, (margin, _) in members.items():
            found.setdefault((name, dtype, mode), []).append(margin)
    return {key: _code(margins) for key, margins in found.items()}


def _code(margins: Sequence[Margin]) -> int | None:
    """A failure that has no number is farther off than any number."""
    if any(margin == "fail" for margin in margins):
        return code(float("inf"))
    known = numbers(margins)
    return code(max(known)) if known else None
