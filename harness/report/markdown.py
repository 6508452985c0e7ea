"""Runs as Markdown: the summary of a job or of a pull request. Imports nothing heavy.

GitHub takes 1 MiB and no more, so that rows, cells and golden files beyond a limit are left out, and counted.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence, Sized

from harness.model import Verdict
from harness.report.commands import replay_of
from harness.report.groups import grouped, nearest_to_limit
from harness.report.logits import sentences
from harness.report.provenance import provenance
from harness.report.result import Result, Run
from harness.report.wording import (
    amount,
    counted,
    details,
    explained,
    explained_alike,
    finding,
    from_port,
    headline,
    some_of,
)

LIMIT = 400_000
"""Bytes of a summary; below half of what GitHub takes, so that two of them still fit."""
_ROWS = 30
_NAMES = 20
_CELL = 300
_ACTIVE = re.compile(r"[\\`*_\[\]<>|~#$!]")


def render(runs: Sequence[Run]) -> str:
    """What has a wrong component comes first, then whatever else does not hold."""
    ordered = sorted(runs, key=lambda run: (run.holds, run.first_wrong is None))
    parts = [f"## goldens: {_headline(runs)}\n"]
    room = LIMIT
    for shown, run in enumerate(ordered):
        section = "\n" + "\n".join(_section(run)) + "\n"
        room -= len(section.encode())
        if room < 0:
            parts.append(f"\nThere is no room here for {_headline(ordered[shown:])}\n")
            break
        parts.append(section)
    return "".join(parts)


def _headline(runs: Sequence[Run]) -> str:
    """`3 golden files, 1 of them does not hold`."""
    if not runs:
        return "nothing was compared"
    wrong = sum(not run.holds for run in runs)
    files = f"{len(runs)} golden file{'' if len(runs) == 1 else 's'}"
    if not wrong:
        return f"{files}, {'it holds' if len(runs) == 1 else 'all of them hold'}"
    return f"{files}, {wrong} of them {'does' if wrong == 1 else 'do'} not hold"


def _section(run: Run) -> Iterator[str]:
    """One golden file, a line after the other."""
    yield f"### {code(run.golden)}: {'holds' if run.holds else 'does not hold'}"
    yield ""
    yield f"{prose(counted(run))}, with the port {code(run.port)}"
    if from_port(run.recorded):
        yield f"\nThese goldens are {prose(from_port(run.recorded))}, not from the reference."
    yield from _first_wrong(run)
    yield from (f"\n- {prose(note)}" for note in run.notes[:_ROWS])
    yield from _modes(run.results)
    for summary in run.logits:
        told = "; ".join(sentences(summary))
        yield f"\nlogits, {prose(f'{summary.dtype} {summary.mode}')}: {prose(told)}"
    yield from _failures(run)
    yield from _unmeasured(run.results)
    rows = [(prose(name), prose(value)) for name, value in provenance(run)]
    yield from _folded("Where it comes from", [*_table(("", ""), rows)])
    yield f"\nThe whole file again: {code(replay_of(run))}"


def _first_wrong(run: Run) -> Iterator[str]:
    if run.first_wrong is None:
        return
    wrong = run.result(run.first_wrong)
    where = f"{wrong.case} {wrong.dtype} {wrong.mode}"
    yield f"\n**{code(wrong.component)}** {prose(where)}: **{prose(finding(wrong))}**"
    yield ""
    lines = [headline(wrong, run.results, run.order), *explained(run, wrong.component), *details(wrong)]
    yield from (f"- {prose(line)}" for line in lines)
    yield f"- again: {code(replay_of(run, run.first_wrong))}"
    for components, line in explained_alike(run)[:_ROWS]:
        others = [name for name in components if name != wrong.component]
        if others:
            yield f"- {prose(some_of(others))}: {prose(line)}"


def _modes(results: Iterable[Result]) -> Iterator[str]:
    """Verdicts counted by dtype and mode, expected failures apart; and what is nearest to its limit, or beyond."""
    rows = []
    for (dtype, mode), members in grouped(results).items():
        expected = sum(bool(result.expected) for result in members)
        count = {verdict: sum(r.verdict is verdict for r in members) for verdict in Verdict}
        worst = nearest_to_limit(members)
        numbers = (
            count[Verdict.PASS],
            count[Verdict.FAIL] - expected,
            expected,
            count[Verdict.UNMEASURED],
        )
        error = "-" if worst is None else amount(worst.over_limit)
        at = "" if worst is None else f"{code(worst.component)} ({prose(worst.case)})"
        rows.append((prose(dtype), prose(mode), *map(str, numbers), error, at))
    headings = (
        "dtype",
        "mode",
        "pass",
        "fail",
        "expected to fail",
        "unmeasured",
        "worst error / limit",
        "at",
    )
    yield from _table(headings, rows)


def _failures(run: Run) -> Iterator[str]:
    wrong = [r for r in run.results if r.verdict is Verdict.FAIL and not r.expected]
    expected = [r for r in run.results if r.expected]
    for what, results in (("that fail", wrong), ("that fail as expected", expected)):
        rows = [
            (
                code(result.component),
                prose(result.case),
                prose(result.dtype),
                prose(result.mode),
                prose(
                    f"{finding(result)}; expected: {result.expected}" if result.expected else finding(result)
                ),
            )
            for result in results[:_ROWS]
        ]
        table = [*_table(("component", "case", "dtype", "mode", "finding"), rows), *_more(results, _ROWS)]
        yield from _folded(f"{len(results)} {what}", table if results else [])


def _unmeasured(results: Iterable[Result]) -> Iterator[str]:
    """By reason, with names: never only a number."""
    names: dict[str, list[str]] = defaultdict(list)
    count = 0
    for result in results:
        if result.verdict is Verdict.UNMEASURED:
            why = f"{finding(result)}; listed: {result.listed}" if result.listed else finding(result)
            names[f"{result.dtype} {result.mode}: {why}"].append(result.component)
            count += 1
    lines = [
        f"\n- {prose(why)}: {', '.join(map(code, shown[:_NAMES]))}{''.join(_more(shown, _NAMES))}"
        for why, shown in [(why, [*dict.fromkeys(members)]) for why, members in names.items()][:_ROWS]
    ]
    yield from _folded(f"{count} unmeasured", [*lines, *_more(names, _ROWS)])


def _more(listed: Sized, shown: int) -> list[str]:
    return [f" and {len(listed) - shown} more"] if len(listed) > shown else []


def _folded(what: str, lines: Sequence[str]) -> Iterator[str]:
    """Under a heading that opens; nothing where there is nothing."""
    if lines:
        yield f"\n<details><summary>{what}</summary>"
        yield from lines
        yield "\n</details>"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Cells are Markdown already."""
    if not rows:
        return
    yield ""
    yield f"| {' | '.join(headings)} |"
    yield f"|{' --- |' * len(headings)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def prose(text: str) -> str:
    """Text that stands for itself, on one line, cut where it is long: nothing in it is Markdown or HTML."""
    line = " ".join(text.split())
    if len(line) > _CELL:
        line = f"{line[: _CELL - 3]}..."
    return _ACTIVE.sub(lambda found: f"\\{found[0]}", line).replace("&", "&amp;")


def code(text: str) -> str:
    """As code, on one line and whole; as prose where it has what code in a table cannot have."""
    line = " ".join(text.split())
    return f"`{line}`" if line and not set(line) & set("`|") else prose(text)
