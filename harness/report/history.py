"""The history on the terminal: its runs, and the last one beside an earlier one."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.history.comparison import Change, Difference
from harness.history.entry import Entry, Margin, failed, numbers
from harness.model import Verdict

_SHOWN = 12
_COLOURS = {Verdict.PASS: "green", Verdict.FAIL: "red", Verdict.UNMEASURED: "yellow"}


def show_runs(entries: Sequence[Entry], console: Console) -> None:
    """A line for each run of one golden file and port, the oldest first."""
    console.print(Text(f"{entries[0].golden}   {entries[0].port}", style="bold"), soft_wrap=True)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("run", "jax", "device"):
        table.add_column(heading, no_wrap=True)
    for heading in ("comparisons", "fail", "nearest to its limit"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for entry in entries:
        margins = [margin for table in entry.comparisons().values() for margin, _ in table.values()]
        versions = entry.environment.versions if entry.environment else {}
        table.add_row(
            entry.when,
            versions.get("jax", ""),
            entry.environment.device if entry.environment else "",
            str(len(margins)),
            str(sum(failed(margin) for margin in margins)),
            f"{max(numbers(margins), default=0):.3g} of limit",
            Text(str(entry.verdict), style=_COLOURS[entry.verdict]),
        )
    console.print(table)


def show_difference(difference: Difference, console: Console) -> None:
    """What got worse and what got better between two runs, and what could not be difference."""
    numbered = [change for change in difference.changes if change.factor != 1.0]
    told = f"before: {difference.before}\nafter:  {difference.after}\n"
    told += f"{len(difference.changes)} comparisons made by both with the same limit, {len(numbered)} with other errors"
    console.print(Text(told), soft_wrap=True)
    _show_changes("worse", "red", difference.worse, console)
    _show_changes("better", "green", difference.better, console)
    for what, lines in (
        ("compared before and not now", difference.only_before),
        ("compared now and not before", difference.only_after),
        ("compared with another limit", difference.other_limits),
    ):
        _show_alone(what, lines, console)


def _show_changes(what: str, colour: str, changes: Sequence[Change], console: Console) -> None:
    if not changes:
        console.print(Text(f"nothing got {what}", style="dim"))
        return
    table = Table(title=f"{len(changes)} got {what}", title_justify="left", title_style=f"bold {colour}")
    table.box, table.pad_edge, table.header_style = None, False, "dim"
    for heading in ("component", "case", "dtype", "mode"):
        table.add_column(heading, no_wrap=True)
    for heading in ("before", "after", "change"):
        table.add_column(heading, justify="right", no_wrap=True)
    dated = any(change.since for change in changes)
    if dated:
        table.add_column("since", no_wrap=True)
    for change in changes[:_SHOWN]:
        row = [
            change.component,
            change.case,
            change.dtype,
            change.mode,
            _told(change.before),
            _told(change.after),
            _factor(change),
        ]
        table.add_row(*row, *([change.since] if dated else []))
    console.print(table)
    if len(changes) > _SHOWN:
        console.print(f"and {len(changes) - _SHOWN} more")


def _told(margin: Margin) -> str:
    return margin if isinstance(margin, str) else f"{margin:.3g} of limit"


def _factor(change: Change) -> str:
    return "" if change.factor == 1.0 else f"x {change.factor:.3g}"


def _show_alone(what: str, lines: Iterable[str], console: Console) -> None:
    lines = list(lines)
    if lines:
        console.print(Text(f"{what}, so not held against each other:", style="yellow"))
    for line in lines[:_SHOWN]:
        console.print(Text(f"  {line}"), soft_wrap=True)
    if len(lines) > _SHOWN:
        console.print(f"  and {len(lines) - _SHOWN} more")
