"""How results are put into words, alike on the terminal and in pytest. Plain text; imports nothing heavy."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from decimal import ROUND_CEILING, Context
from typing import Any

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
    if result.tolerance:
        lines.append(f"allowed: {result.tolerance}")
    lines += would_pass(result)
    if result.worst is not None:
        worst = result.worst
        lines.append(f"largest difference at {worst.index}: port {worst.port:.9g}, golden {worst.golden:.9g}")
    return lines


def would_pass(result: Result) -> list[str]:
    """With which tolerance a failure would pass, and how far that is from rounding; nothing of what is exact."""
    error, limit = result.error, result.limit
    if error is None or limit is None or not result.over_limit > 1 or not limit.whole:
        return []
    largest = max(error.whole, error.row, error.channel)
    if not largest < 1:
        return []  # an error as large as the golden: no rtol is so large
    rtol = float(_UPWARDS.create_decimal_from_float(largest))
    return [f"would pass with rtol = {rtol:.2g}, {amount(result.over_floor)} times its noise floor"]


_UPWARDS = Context(prec=2, rounding=ROUND_CEILING)


def counted(run: Run) -> str:
    """`4 pass, 5 fail (2 expected), 3 unmeasured (1 listed)`."""
    excused = {
        Verdict.FAIL: (sum(bool(result.expected) for result in run.results), "expected"),
        Verdict.UNMEASURED: (sum(bool(result.listed) for result in run.results), "listed"),
    }
    told = []
    for verdict, count in run.counts.items():
        some, how = excused.get(verdict, (0, ""))
        told.append(f"{count} {verdict}" + (f" ({some} {how})" if some else ""))
    return ", ".join(told)


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


def explained_alike(run: Run) -> list[tuple[list[str], str]]:
    """Components of a kind that one mistake explains, and what explains the first of them."""
    kinds = {result.component: result.kind for result in run.results}
    groups: dict[tuple[str, str], list[Explanation]] = defaultdict(list)
    for explanation in run.explanations:
        what = " / ".join(explanation.hypotheses) or explanation.text
        groups[kinds[explanation.component], what].append(explanation)
    return [([e.component for e in alike], explanation_line(alike[0])) for alike in groups.values()]


def some_of(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def from_port(provenance: Mapping[str, Any]) -> str:
    """`recorded from the port M:F`, for goldens that nobody may take for the reference's; else empty."""
    port = provenance.get("port")
    return f"recorded from the port {port}" if port else ""


def recorded_with(provenance: Mapping[str, Any]) -> str:
    """Who recorded a golden file, and with what; empty where it does not say."""
    port, versions = from_port(provenance), provenance.get("versions", {})
    libraries = ("jax", "flax") if port else ("transformers", "torch")
    told = ", ".join(f"{name} {versions[name]}" for name in libraries if name in versions)
    return f"{port or 'recorded'} with {told}" if told else port


def amount(value: float) -> str:
    """Two digits: 0.21, 3.5, 41, 3.1e+06."""
    if not math.isfinite(value):
        return "infinite" if value > 0 else "-"
    return f"{value:.0f}" if 10 <= value < 1000 else f"{value:.2g}"


def _views(views: Views) -> str:
    return f"{views.whole:.2g} whole, {views.row:.2g} worst row, {views.channel:.2g} worst channel"
