"""A fuzz on the terminal: the smallest input that fails and what is wrong on it, or how far was looked."""

from collections import defaultdict

from rich.console import Console
from rich.text import Text

from harness.fuzz.outcome import Failure, Fuzz, Input
from harness.model import Verdict
from harness.report.result import Run
from harness.report.wording import (
    counted,
    details,
    explained,
    explained_alike,
    failure_line,
    headline,
    some_of,
)

_COLOURS = {Verdict.PASS: "green", Verdict.FAIL: "red", Verdict.UNMEASURED: "yellow"}
_SHOWN = 32
"""Tokens of a row that are shown; --json and --save have all."""


def show_fuzz(fuzz: Fuzz, console: Console) -> None:
    if fuzz.failure is not None:
        _show_failure(fuzz.failure, console)
    _show_unmeasured(fuzz, console)
    if fuzz.saved:
        console.print(Text(f"added to {fuzz.saved}: a suite with these prompts records it"), soft_wrap=True)
    if fuzz.failure is not None:
        console.print(Text(f"again: {fuzz.command}"), soft_wrap=True)
    console.print(Text(_told(fuzz), style=f"bold {_COLOURS[fuzz.verdict]}"), soft_wrap=True)


def _show_failure(failure: Failure, console: Console) -> None:
    _show_input("first found", failure.found, console)
    _show_input("smallest", failure.smallest, console)
    if failure.configuration:
        told = f"it fails with a simpler checkpoint, too: {', '.join(failure.configuration)}"
        console.print(Text(told), soft_wrap=True)
    for row in failure.smallest.rows:
        more = f", and {len(row) - _SHOWN} more" if len(row) > _SHOWN else ""
        console.print(Text(f"  {', '.join(map(str, row[:_SHOWN]))}{more}"), soft_wrap=True)
    _show_run(failure.run, console)
    if failure.both is not None and explained_alike(failure.both) == explained_alike(failure.run):
        console.print(Text("the first one found says no more of what explains it"), soft_wrap=True)
    elif failure.both is not None:
        console.print(Text("together with the first one found:"), soft_wrap=True)
        _show_run(failure.both, console)
    console.print()


def _show_run(run: Run, console: Console) -> None:
    """The first wrong component in full; of the others, what explains them and how many they are."""
    assert run.first_wrong is not None
    wrong = run.result(run.first_wrong)
    console.print(Text(failure_line(wrong), style="bold red"), soft_wrap=True)
    told = [headline(wrong, run.results, run.order), *details(wrong), *explained(run, wrong.component)]
    for line in told:
        console.print(Text(f"  {line}"), soft_wrap=True)
    for note in run.notes:
        console.print(Text(f"  {note}", style="yellow"), soft_wrap=True)
    for components, line in explained_alike(run):
        others = [name for name in components if name != wrong.component]
        if others:
            console.print(Text(f"{some_of(others)}: {line}", style="red"), soft_wrap=True)
    console.print(Text(f"{run.golden}: {counted(run)}"), soft_wrap=True)


def _show_input(what: str, shown: Input, console: Console) -> None:
    console.print(Text(f"{what}: {shown.says}", style="bold"), soft_wrap=True)


def _show_unmeasured(fuzz: Fuzz, console: Console) -> None:
    """By name, alike reasons together."""
    names: dict[str, list[str]] = defaultdict(list)
    for each in fuzz.unmeasured:
        why = f"{each.reason}; listed: {each.listed}" if each.listed else each.reason
        names[why].append(each.component)
    for why, components in names.items():
        console.print(Text(f"compared in no input: {why}", style="yellow"), soft_wrap=True)
        console.print(Text(f"  {', '.join(components)}"), soft_wrap=True)


def _told(fuzz: Fuzz) -> str:
    inputs = "1 input" if fuzz.inputs == 1 else f"{fuzz.inputs} inputs"
    reach = (
        f"rows of up to {fuzz.longest} tokens, at most {fuzz.rows} a batch, positions up to {fuzz.position:,}"
    )
    took = f"{fuzz.seconds:.0f} s{', when time was over' if fuzz.cut else ''}"
    if fuzz.failure is not None:
        return f"{inputs} until one failed, {fuzz.shrinking} more to shrink it; seed {fuzz.seed}, {took}"
    if fuzz.verdict is Verdict.UNMEASURED:
        return f"{inputs}, and nothing of them was compared; seed {fuzz.seed}, {took}"
    unmeasured = [each.component for each in fuzz.unmeasured if not each.listed]
    but = f", but {some_of(unmeasured)} unmeasured" if unmeasured else ""
    return f"{inputs}, none fails{but}: {reach}; seed {fuzz.seed}, {took}"
