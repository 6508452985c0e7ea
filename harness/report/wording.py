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
    """What the first failure means: a wrong component, or, when only the whole run fails, drift or wiring."""
    where = standing(wrong, results, order)
    if wrong.mode is Mode.ISOLATED:
        return f"first wrong component in forward order ({where})"
    isolated = [r for r in results if r.mode is Mode.ISOLATED and r.dtype == wrong.dtype]
    by_itself = {result.verdict for result in isolated if result.component == wrong.component}
    if not isolated:
        rest = "replay isolated as well, to tell a wrong component from drift"
    elif Verdict.UNMEASURED in by_itself:
        rest = "it was not measured by itself, so it may be wrong, or take in what is"
    elif Verdict.PASS in by_itself:
        rest = "it passes by itself: drift, or wiring"
    else:  # a composite, which nothing runs by itself
        rest = "no component fails by itself: drift, or wiring"
    return f"first to fail end to end ({where}): {rest}"


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
