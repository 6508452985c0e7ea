"""A comparison of two golden files on the terminal: what changed, and the numbers that are furthest apart."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.report.wording import amount
from harness.review.changes import ABSENT, Change
from harness.review.diff import Agreement, Diff, Difference

SHOWN = 12
_LEAVES = 3
_WIDTH = 48


def show_diff(diff: Diff, console: Console, shown: int = SHOWN) -> None:
    """shown: how many changes of a kind, and how many components; the rest is counted."""
    console.print(Text(f"{diff.old} -> {diff.new}", style="bold"), soft_wrap=True)
    show_changes(diff, console, shown)
    show_values(diff, console, shown)
    style = "bold green" if diff.agrees else "bold red"
    console.print(Text(f"{diff.new}: {concluded(diff)}", style=style), soft_wrap=True)


def concluded(diff: Diff) -> str:
    counts = diff.counts
    goldens = (
        f"{counts[Agreement.DIFFERS]} goldens differ, {counts[Agreement.WITHIN]} agree within the noise floor, "
        f"{counts[Agreement.IDENTICAL]} bit by bit"
    )
    changed = sum(change.counts for change in diff.changes)
    return f"{'agrees' if diff.agrees else 'differs'}: {_count(changed, 'change')} in what was recorded, {goldens}"


def show_changes(diff: Diff, console: Console, shown: int) -> None:
    groups: dict[tuple[str, str], list[Change]] = defaultdict(list)
    for change in diff.changes:
        groups[change.what, change.change].append(change)
    for (what, how), alike in groups.items():
        style = "" if any(change.counts for change in alike) else "dim"
        for line in _lines(what, how, alike, shown):
            console.print(Text(f"  {line}", style=style), soft_wrap=True)


def _lines(what: str, how: str, alike: list[Change], shown: int) -> Iterator[str]:
    if how != "changed":
        names = ", ".join(change.name for change in alike[:shown])
        yield f"{what} {how}: {names}{_more(len(alike) - shown)}"
        return
    for change in alike[:shown]:
        yield f"{what} changed: {change.name}{_told(change)}"
    if len(alike) > shown:
        yield f"{what} changed: {len(alike) - shown} more"


def _told(change: Change) -> str:
    """The first of the places where it differs."""
    found = list(leaves(change.before, change.after))
    told = "; ".join(f"{path} {_arrow(before, after)}".strip() for path, before, after in found[:_LEAVES])
    return f"   {told}{_more(len(found) - _LEAVES)}"


def leaves(before: Any, after: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Where two values as JSON has them are not the same: a path, and what is there."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in dict.fromkeys([*before, *after]):
            inside = f"{path}.{name}" if path else str(name)
            yield from leaves(before.get(name, ABSENT), after.get(name, ABSENT), inside)
    elif isinstance(before, list | tuple) and isinstance(after, list | tuple) and len(before) == len(after):
        for place, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from leaves(one, other, f"{path}[{place}]")
    elif before != after:
        yield path, before, after


def _arrow(before: Any, after: Any) -> str:
    one, other = _text(before), _text(after)
    same = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), 0)
    start = max(0, same - _WIDTH // 2) if max(len(one), len(other)) > _WIDTH else 0
    return f"{_cut(one, start)} -> {_cut(other, start)}"


def _text(value: Any) -> str:
    """A list by its length, a digest by its beginning."""
    if isinstance(value, list | tuple | dict):
        return f"{len(value)} entries"
    text = " ".join(str(value).split())
    digest = len(text) == 64 and all(letter in "0123456789abcdef" for letter in text)
    return text[:12] if digest else text


def _cut(text: str, start: int) -> str:
    part = text[start : start + _WIDTH]
    return f"{'…' if start else ''}{part}{'…' if start + _WIDTH < len(text) else ''}"


def show_values(diff: Diff, console: Console, shown: int) -> None:
    """The worst golden of each component, the furthest apart first."""
    groups: dict[str, list[Difference]] = defaultdict(list)
    for difference in diff.differences:
        if difference.agreement is not Agreement.IDENTICAL:
            groups[difference.component].append(difference)
    if not groups:
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("component", no_wrap=True)
    for heading in ("x noise floor", "of what passes", "goldens that differ"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("worst in", "at", "old", "new"):
        table.add_column(heading, no_wrap=True)
    for found in list(groups.values())[:shown]:
        table.add_row(*_row(found), style="red" if found[0].agreement is Agreement.DIFFERS else "")
    console.print(table)
    rest = list(groups.values())[shown:]
    if rest:
        differ = sum(found[0].agreement is Agreement.DIFFERS for found in rest)
        told = (
            f"and {_count(len(rest), 'component')} more that changed, {differ} of them beyond the noise floor"
        )
        console.print(Text(f"  {told}: --worst N shows more, --json all"), soft_wrap=True)


def _row(found: list[Difference]) -> Iterator[str]:
    worst = found[0]
    yield worst.component
    yield amount(worst.over_floor)
    yield amount(worst.over_limit)
    yield f"{sum(each.agreement is Agreement.DIFFERS for each in found)} of {len(found)}"
    yield f"{worst.case} {worst.dtype}"
    if worst.worst is None:
        yield from (worst.reason, "", "")
        return
    yield str(worst.worst.index)
    yield f"{worst.worst.old:.7g}"
    yield f"{worst.worst.new:.7g}"


def versions_told(diff: Diff) -> str:
    """Which libraries are of another version, `transformers 5.22.0 -> 5.23.0`; empty where none is."""
    return ", ".join(
        f"{change.name} {ABSENT if change.before is None else change.before} -> "
        f"{ABSENT if change.after is None else change.after}"
        for change in diff.changes
        if change.what == "version"
    )


def _more(count: int) -> str:
    return f" and {count} more" if count > 0 else ""


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
