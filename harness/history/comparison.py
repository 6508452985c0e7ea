"""Two runs held against each other: only what both compared alike, and a list of what one alone has."""

from collections.abc import Iterator, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from harness.history.entry import Compared, Entry, Margin, failed
from harness.model import Mode

GREW, NOTICED = 2.0, 0.6
"""A margin got worse when it grew by more than this factor, to at least this share of what passes.

Right ports come to 0.59 of it (docs/numerics.md). Another order of sums alone takes components from 0 to 0.39.
"""

_Key = tuple[str, Mode, str]
_Table = Mapping[str, Compared]


class Change(msgspec.Struct, frozen=True):
    """One comparison, before and after. since: of what got worse, the first run since when it has been so"""

    component: str
    case: str
    dtype: str
    mode: Mode
    before: Margin
    after: Margin
    since: str = ""

    @property
    def factor(self) -> float:
        """After over before, where both have numbers; else 1."""
        if isinstance(self.before, str) or isinstance(self.after, str) or not self.before:
            return 1.0
        return self.after / self.before


class Difference(msgspec.Struct, frozen=True):
    """What became of the later of two runs.

    changes: every comparison that both runs made with the same limit
    only_before, only_after: what one run alone compared, a line for each dtype, mode and case; other_limits: what both
        compared with different limits, likewise
    """

    before: str
    after: str
    changes: list[Change]
    only_before: list[str]
    only_after: list[str]
    other_limits: list[str]

    @property
    def worse(self) -> list[Change]:
        return [change for change in self.changes if got_worse(change.before, change.after)]

    @property
    def better(self) -> list[Change]:
        return [change for change in self.changes if got_worse(change.after, change.before)]


def got_worse(before: Margin, after: Margin) -> bool:
    """It fails and did not, is no longer measured, or came much nearer to its limit."""
    if failed(before) or failed(after):
        return failed(after) and not failed(before)
    if isinstance(before, str) or isinstance(after, str):
        return after == "unmeasured" != before
    return after >= NOTICED and after > GREW * before


def compare(before: Entry, after: Entry) -> Difference:
    """Hold a run against an earlier one."""
    old, new = before.comparisons(), after.comparisons()
    changes: list[Change] = []
    other_limits: dict[_Key, list[str]] = {}
    for key, table in new.items():
        dtype, mode, case = key
        for name, (margin, limit) in table.items():
            then = old.get(key, {}).get(name)
            if then is not None and then[1] == limit:
                changes.append(Change(name, case, dtype, mode, then[0], margin))
            elif then is not None:
                other_limits.setdefault(key, []).append(name)
    return Difference(
        before.when,
        after.when,
        changes,
        only_before=[*_told(_alone(old, new), old)],
        only_after=[*_told(_alone(new, old), new)],
        other_limits=[*_told(other_limits, new)],
    )


def _alone(tables: Mapping[_Key, _Table], others: Mapping[_Key, _Table]) -> dict[_Key, list[str]]:
    return {key: [name for name in table if name not in others.get(key, {})] for key, table in tables.items()}


def _told(found: Mapping[_Key, Sequence[str]], tables: Mapping[_Key, _Table]) -> Iterator[str]:
    """`3 of 157 components in hello, float32 isolated: norm, lm_head, ...`; all of them need no names."""
    for key, names in found.items():
        dtype, mode, case = key
        where, count = f"{case}, {dtype} {mode}", len(tables[key])
        if len(names) == count:
            yield f"all {count} components in {where}"
        elif names:
            more = ", ..." if len(names) > 3 else ""
            yield f"{len(names)} of {count} components in {where}: {', '.join(names[:3])}{more}"


def since(entries: Sequence[Entry], difference: Difference) -> Difference:
    """The same, and of what got worse, the first of `entries` (the oldest first) since when it has been so."""
    past = [(entry.when, entry.comparisons()) for entry in entries]
    changes = [
        replace(change, since=_first_as_bad(past, change))
        if got_worse(change.before, change.after)
        else change
        for change in difference.changes
    ]
    return replace(difference, changes=changes)


def _first_as_bad(past: Sequence[tuple[str, Mapping[_Key, _Table]]], change: Change) -> str:
    """Back from the last run, as long as each was as bad as it."""
    found = past[-1][0]
    for when, tables in reversed(past):
        then = tables.get((change.dtype, change.mode, change.case), {}).get(change.component)
        if then is None or got_worse(then[0], change.after):
            break
        found = when
    return found
