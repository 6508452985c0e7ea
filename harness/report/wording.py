"""How results are put into words, alike on the terminal and in pytest. Plain text; imports nothing heavy."""

import math
from collections.abc import Iterable, Sequence

from harness.model import Mode, Verdict, Views
from harness.report.result import Explanation, Result, Run


def failure_line(result: Result) -> str:
    """The line that stands alone: where, and by how much more than rounding explains."""
    where = f"{result.component}   {result.case} {result.dtype} {result.mode}"
    return f"{where}   {result.verdict.upper()}   {finding(result)}"


def finding(result: Result) -> str:
    """What was found, without where."""
    if result.reason or result.error is None:
        return result.reason
    if math.isinf(result.over_floor):
        return "error where the golden is zero throughout, so no rounding explains it"
    return f"error {amount(result.over_floor)} x noise floor"


def details(result: Result) -> list[str]:
    """The numbers behind a failure; none where nothing could be compared number by number."""
    lines = []
    if result.error is not None and result.limit is not None:
        lines.append(f"error {_views(result.error)}; allowed {_views(result.limit)}")
    if result.worst is not None:
        worst = result.worst
        lines.append(f"largest difference at {worst.index}: port {worst.port:.9g}, golden {worst.golden:.9g}")
    return lines


def standing(wrong: Result, results: Iterable[Result], order: Sequence[str]) -> str:
    """Where the first wrong component stands, among all that were compared as it was."""
    alike = [
        result
        for result in results
        if (result.case, result.dtype, result.mode) == (wrong.case, wrong.dtype, wrong.mode)
    ]
    before = set(order[: order.index(wrong.component)])
    earlier = [result.verdict for result in alike if result.component in before]
    passed, unmeasured = earlier.count(Verdict.PASS), earlier.count(Verdict.UNMEASURED)
    rest = f", {unmeasured} unmeasured" if unmeasured else ""
    return f"{passed} of {len(alike)} before it pass{rest}"


def headline(wrong: Result, results: Sequence[Result], order: Sequence[str]) -> str:
    """What the first failure means: a wrong component, or, when only a whole run fails, drift, wiring or the cache."""
    where = standing(wrong, results, order)
    if wrong.mode is Mode.ISOLATED:
        return f"first wrong component in forward order ({where})"
    return f"first to fail {_RUNS[wrong.mode]} ({where}): {_unlike_other_modes(wrong, results)}"


_RUNS = {Mode.END_TO_END: "end to end", Mode.DECODE: "in decode"}


def _unlike_other_modes(wrong: Result, results: Sequence[Result]) -> str:
    """What follows from how the component fares where less is run."""
    alike = [result for result in results if result.dtype == wrong.dtype]
    whole = {r.verdict for r in alike if r.mode is Mode.END_TO_END and r.component == wrong.component}
    if wrong.mode is Mode.DECODE and whole == {Verdict.PASS}:
        return "it passes in a whole pass: the cache, its mask, or positions"
    isolated = [result for result in alike if result.mode is Mode.ISOLATED]
    by_itself = {result.verdict for result in isolated if result.component == wrong.component}
    if not isolated:
        return "replay isolated as well, to tell a wrong component from drift"
    if Verdict.UNMEASURED in by_itself:
        return "it was not measured by itself, so it may be wrong, or take in what is"
    if wrong.mode is Mode.DECODE and by_itself == {Verdict.PASS}:
        return "it passes by itself: the cache, its mask, positions, or drift"
    if Verdict.PASS in by_itself:
        return "it passes by itself: drift, or wiring"
    return "no component fails by itself: drift, or wiring"  # a composite, which nothing runs by itself


def explained(run: Run, component: str) -> list[str]:
    """What explains a component's failure, a line for each explanation there is."""
    return [explanation_line(e) for e in run.explanations if e.component == component]


def explanation_line(explanation: Explanation) -> str:
    """A mistake by its name in words; what is only described, as such."""
    if not explanation.hypotheses:
        return explanation.text
    left = "" if explanation.left is None else f": error falls to {amount(explanation.left)} x noise floor"
    return f"explained by: {explanation.text}{left}"


def amount(value: float) -> str:
    """Two digits: 0.21, 3.5, 41, 3.1e+06."""
    if not math.isfinite(value):
        return "infinite" if value > 0 else "-"
    return f"{value:.0f}" if 10 <= value < 1000 else f"{value:.2g}"


def _views(views: Views) -> str:
    return f"{views.whole:.2g} whole, {views.row:.2g} worst row, {views.channel:.2g} worst channel"
