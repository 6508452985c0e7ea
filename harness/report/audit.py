"""Audits on the terminal: what was caught, by area; what was missed, and why; the score."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.audit.outcome import Audit, FaultResult, Naming, Verdict, score, unplanted, witness

_COLUMNS = (Verdict.CAUGHT, Verdict.MISSED, Verdict.EQUIVALENT)
_NAMINGS = (Naming.NAMED, Naming.ONE_OF, Naming.NOT_NAMED, Naming.WRONG)


def show_audit(audit: Audit, audits: Sequence[Audit], console: Console, every: bool) -> None:
    """One golden file's audit. audits: all of them, to tell which other one catches what this one misses.

    every: a line for each fault, those that are caught or cannot be planted, too
    """
    console.print(Text(f"{audit.golden}   {audit.dtype}   {audit.port}", style="bold"), soft_wrap=True)
    console.print(_by_area(audit))
    if every:
        for result in audit.results:
            if result.verdict is Verdict.CAUGHT:
                console.print(Text(_caught_line(result)), soft_wrap=True)
    shown = [(Verdict.MISSED, "yellow"), (Verdict.EQUIVALENT, "dim"), (Verdict.NOT_PLANTED, "dim")]
    for verdict, style in shown if every else shown[:2]:
        for result in audit.results:
            if result.verdict is verdict:
                console.print(Text(f"{verdict}  {result.fault}: {result.says}", style=style), soft_wrap=True)
                console.print(Text(f"  {_why(result, audits)}"), soft_wrap=True)
    for result in audit.results:
        if result.naming is Naming.WRONG:
            told = f"named wrongly  {result.fault}: {result.says}; said of {result.misnamed}"
            console.print(Text(told, style="red"), soft_wrap=True)
    console.print(Text(f"{audit.golden}: {_told(audit)}\n", style="bold"), soft_wrap=True)


def show_score(audits: Sequence[Audit], console: Console, required: float | None) -> None:
    """The score of all golden files together, and how it stands to the one that is required."""
    results = [result for audit in audits for result in audit.results]
    faults, absent = unplanted(results)
    line = f"{faults} fault{'' if faults == 1 else 's'}, {absent} not planted: score {score(results):.1%}"
    if required is not None:
        line += f", {required:g} % required"
    console.print(Text(line, style="bold"), soft_wrap=True)


def _by_area(audit: Audit) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("area", no_wrap=True)
    for heading in (*_COLUMNS, *_NAMINGS):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("caught in", no_wrap=True)
    for area in dict.fromkeys(result.area for result in audit.results):
        own = [r for r in audit.results if r.area == area and r.verdict is not Verdict.NOT_PLANTED]
        modes = [result.mode for result in own if result.mode]
        table.add_row(
            area,
            *(_count(sum(result.verdict is verdict for result in own)) for verdict in _COLUMNS),
            *(_count(sum(result.naming is naming for result in own)) for naming in _NAMINGS),
            ", ".join(f"{mode} {modes.count(mode)}" for mode in dict.fromkeys(modes)),
        )
    return table


def _count(number: int) -> Text:
    return Text(str(number), style="" if number else "dim")


def _caught_line(result: FaultResult) -> str:
    where = f"{result.mode} at {result.first}" if result.first else result.mode
    name = ", ".join(result.hypotheses) or "no name"
    return f"caught  {result.fault}: {where}; {name}: {result.text}"


def _why(result: FaultResult, audits: Sequence[Audit]) -> str:
    seen_with = witness(result, audits) if result.verdict is Verdict.MISSED else ""
    return result.reason + (f"; caught with {seen_with}" if seen_with else "")


def _told(audit: Audit) -> str:
    counts = ", ".join(f"{audit.counts[verdict]} {verdict}" for verdict in Verdict)
    ran = [result for result in audit.results if result.ran]
    right = sum(result.planted for result in ran)
    return f"{counts}; first wrong component right for {right} of {len(ran)}; score {audit.score:.1%}"
