"""A run on the terminal: a table of verdicts, the first failure in full, and what was not measured."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.model import Mode, Verdict
from harness.report.arisen import without_followers
from harness.report.groups import grouped, nearest_to_limit
from harness.report.logits import show as show_logits
from harness.report.result import Result, Run, first_wrong
from harness.report.wording import (
    amount,
    counted,
    details,
    explained,
    explained_alike,
    failure_line,
    finding,
    from_port,
    headline,
    some_of,
    would_pass,
)

_COLOURS = {Verdict.PASS: "green", Verdict.FAIL: "red", Verdict.UNMEASURED: "yellow"}
_SHOWN = 12
_COARSE = 0.3
"""A limit, as a share of the whole tensor, beyond which a comparison sees only gross mistakes."""


def show_run(run: Run, order: Sequence[str], console: Console, by_kind: bool = False) -> None:
    """order: the golden file's components, in forward order. by_kind: a row for each kind of component."""
    console.print(summary_table(run.results, by_kind))
    _show_coarse(run.results, console)
    show_logits(run.logits, console)
    _show_notes(run.results, console)
    if run.first_wrong is not None:
        console.print()
        _show_failures(run, order, console)
    else:
        for note in run.notes:
            console.print(Text(f"\n{note}", style="yellow"), soft_wrap=True)
    _show_said(run.results, console)
    _show_unmeasured(run.results, console)
    told = Text(f"\n{run.golden}: {counted(run)}", style=f"bold {_COLOURS[run.verdict]}")
    if run.environment is not None and run.environment.mesh:
        told.append(f", on {run.environment.mesh}")
    if from_port(run.recorded):
        told.append(f", held against goldens {from_port(run.recorded)}, not the reference", style="yellow")
    console.print(told, soft_wrap=True)


def summary_table(results: Iterable[Result], by_kind: bool = False) -> Table:
    """Verdicts counted, and the error nearest to its limit, for each dtype and mode, and kind if asked."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("dtype", "mode", *(["kind"] if by_kind else [])):
        table.add_column(heading, no_wrap=True)
    for heading in (*Verdict, "limit up to", "worst error / limit"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("at", overflow="ellipsis")  # in a narrow terminal this one gives way, and no number does
    for key, members in grouped(results, by_kind).items():
        counts = [sum(result.verdict is verdict for result in members) for verdict in Verdict]
        worst = nearest_to_limit(members)
        table.add_row(
            *key,
            *(Text(str(n), style=_COLOURS[v] if n else "dim") for v, n in zip(Verdict, counts, strict=True)),
            "-" if worst is None else amount(_widest(members)),
            "-" if worst is None else amount(worst.over_limit),
            "" if worst is None else f"{worst.component} ({worst.case})",
        )
    return table


def _widest(results: Iterable[Result]) -> float:
    """The largest relative error of a whole tensor that would pass."""
    return max((result.limit.whole for result in results if result.limit is not None), default=0.0)


def _show_coarse(results: Iterable[Result], console: Console) -> None:
    """Where rounding alone explains large errors, a pass says little; say so beside the verdict."""
    by_floors = [result for result in results if not result.tolerance]
    for (dtype, mode), members in grouped(by_floors).items():
        widest = _widest(members)
        if widest > _COARSE:
            console.print(
                Text(
                    f"{dtype} {mode}: rounding explains errors of up to {widest:.0%} of a tensor, so most "
                    "mistakes cannot show here; judge by float32 isolated",
                    style="yellow",
                )
            )


def _show_notes(results: Iterable[Result], console: Console) -> None:
    """What is to be known of a pass: a near tie that rounding decided."""
    for result in results:
        if result.verdict is Verdict.PASS and result.reason:
            where = f"{result.component}   {result.case} {result.dtype} {result.mode}"
            console.print(Text(f"{where}   {result.reason}", style="yellow"), soft_wrap=True)


def _show_failures(run: Run, order: Sequence[str], console: Console) -> None:
    assert run.first_wrong is not None
    wrong = run.result(run.first_wrong)
    console.print(Text(failure_line(wrong), style="bold red"), soft_wrap=True)
    for line in [headline(wrong, run.results, order), *details(wrong), *explained(run, wrong.component)]:
        console.print(Text(f"  {line}"), soft_wrap=True)
    for note in run.notes:
        console.print(Text(f"  {note}", style="yellow"), soft_wrap=True)
    others = [
        result
        for result in without_followers(run.results, order)
        if result.is_wrong and result is not wrong and result.mode is wrong.mode
    ]
    for result in others[:_SHOWN]:
        console.print(Text(failure_line(result), style="red"), soft_wrap=True)
        for line in would_pass(result):
            console.print(Text(f"  {line}", style="red"), soft_wrap=True)
    if len(others) > _SHOWN:
        console.print(
            Text(f"and {len(others) - _SHOWN} more that fail: --json lists all", style="red"), soft_wrap=True
        )
    _show_other_explanations(run, console)
    if wrong.mode is Mode.ISOLATED:
        _show_consequences(run, order, console)


def _show_consequences(run: Run, order: Sequence[str], console: Console) -> None:
    """What fails end to end once a component is wrong by itself: a number, and where it begins."""
    whole = [result for result in run.results if result.mode is Mode.END_TO_END]
    first = first_wrong(whole, order)
    if first is not None:
        failed = sum(result.is_wrong for result in whole)
        console.print(
            Text(f"end to end {failed} of {len(whole)} fail, the first at {first.component}", style="red")
        )


def show_explanations(run: Run, console: Console) -> None:
    """What explains the failures of a run, components that the same mistake explains together; and the notes."""
    failed = {result.component for result in run.results if result.verdict is Verdict.FAIL}
    console.print(
        Text(f"{run.golden}: {len(failed)} of {len({r.component for r in run.results})} components fail")
    )
    for components, line in explained_alike(run):
        console.print(Text(some_of(components), style="bold red"), soft_wrap=True)
        console.print(Text(f"  {line}"), soft_wrap=True)
    for note in run.notes:
        console.print(Text(note, style="yellow"), soft_wrap=True)
    _show_said(run.results, console)


def _show_other_explanations(run: Run, console: Console) -> None:
    """What explains the failures behind the first one."""
    assert run.first_wrong is not None
    for components, line in explained_alike(run):
        others = [name for name in components if name != run.first_wrong.component]
        if others:
            console.print(Text(f"{some_of(others)}: {line}", style="red"), soft_wrap=True)


def _show_said(results: Iterable[Result], console: Console) -> None:
    """What was judged by more than noise floors: the reasons, and what they are about, by name."""
    names: dict[str, list[str]] = defaultdict(list)
    for result in results:
        if result.tolerance:
            names[f"allowed: {result.tolerance}"].append(result.component)
        if result.expected:
            why = f"expected to fail, {result.dtype} {result.mode}: {result.expected}"
            names[why].append(result.component)
        if result.unexpected:
            names[f"{result.dtype} {result.mode}: {result.reason}"].append(result.component)
    _show_names(names, console)


def _show_names(names: Mapping[str, Sequence[str]], console: Console) -> None:
    for what, components in names.items():
        console.print(Text(f"\n{what}", style="yellow"), soft_wrap=True)
        console.print(Text(f"  {', '.join(dict.fromkeys(components))}"), soft_wrap=True)


def _show_unmeasured(results: Iterable[Result], console: Console) -> None:
    """By name, never only by number; a listed one with the reason it was listed for."""
    names: dict[str, list[str]] = defaultdict(list)
    for result in results:
        if result.verdict is Verdict.UNMEASURED:
            why = f"{finding(result)}; listed: {result.listed}" if result.listed else finding(result)
            names[f"unmeasured, {result.dtype} {result.mode}: {why}"].append(result.component)
    _show_names(names, console)
