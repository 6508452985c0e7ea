"""Runs as workflow commands of GitHub Actions, which it shows beside the job. Imports nothing heavy."""

from collections.abc import Iterator, Sequence

from harness.model import Verdict
from harness.report.arisen import where_arisen, without_followers
from harness.report.result import Result, Run
from harness.report.wording import counted, explained, failure_line, headline

SHOWN = 10
"""So many errors of a step GitHub shows; further ones it drops without a word."""


def annotations(runs: Sequence[Run]) -> Iterator[str]:
    """A command a line: of each run its first wrong component, then others that fail, and how many are left out.

    A run that does not hold for another reason has a line, too.
    """
    wrong = [(run, _first(run)) for run in runs if not run.holds]
    errors = [_headline(run, first) for run, first in wrong]
    errors += [_error(run, result) for run, first in wrong for result in _others(run, first)]
    yield from errors[:SHOWN]
    if len(errors) > SHOWN:
        left = len(errors) - SHOWN
        yield _command("notice", "goldens", f"{left} more that do not pass are not annotated: see the report")


def _headline(run: Run, first: Result | None) -> str:
    """What a person is to read first of a run."""
    if first is None:
        return _command("error", f"{run.golden} does not hold", "\n".join([counted(run), *run.notes]))
    if run.first_wrong is None:
        return _error(run, first)
    told = [headline(first, run.results, run.order), *explained(run, first.component)]
    return _error(run, first, [*told, *where_arisen(run.results, run.order)])


def _error(run: Run, result: Result, further: Sequence[str] = ()) -> str:
    what = "fails" if result.verdict is Verdict.FAIL else "is unmeasured"
    lines = [failure_line(result), *further]
    return _command("error", f"{run.golden}: {result.component} {what}", "\n".join(lines))


def _others(run: Run, first: Result | None) -> list[Result]:
    """What else keeps a run from holding, without what only follows from the first wrong component."""
    return [
        result
        for result in without_followers(run.results, run.order)
        if _unexcused(result)
        and result is not first
        and (first is None or result.mode is first.mode or result.verdict is Verdict.UNMEASURED)
    ]


def _first(run: Run) -> Result | None:
    """The first wrong component; where none is wrong, the first comparison that keeps the run from holding."""
    if run.first_wrong is not None:
        return run.result(run.first_wrong)
    return next((result for result in run.results if _unexcused(result)), None)


def _unexcused(result: Result) -> bool:
    return result.verdict is not Verdict.PASS and not result.expected and not result.listed


def _command(kind: str, title: str, message: str) -> str:
    """Escaped as GitHub's own toolkit does, so that nothing in it can end the command or begin another."""
    name = _escaped(title).replace(":", "%3A").replace(",", "%2C")
    return f"::{kind} title={name}::{_escaped(message)}"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
