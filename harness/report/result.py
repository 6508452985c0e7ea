"""The one result model behind every face: what `goldens replay --json` writes, and other tools read.

JSON knows no infinity: a number that is not finite is written as "Infinity", "-Infinity" or "NaN", which the
usual readers of numbers understand. Imports nothing heavy.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Self

import msgspec

from harness.compare.logits import LogitsSummary
from harness.errors import GoldensError
from harness.model import Mode, Verdict, Views

FORMAT = 1
SHAPE = "shape "
"""What the reason of a failure begins with where a size is another one."""


class Worst(msgspec.Struct, frozen=True):
    """The element that differs most, by absolute error."""

    index: list[int]
    port: float
    golden: float


class Arisen(msgspec.Struct, frozen=True):
    """NaN and infinities that a port has where the golden has numbers.

    count: how many; at: each axis of the first one -> its index, T as the case counts its tokens; port: what it is
    step: in decode, after how many earlier parts of the case it came up; 0 is what was read first, at once
    """

    count: int
    at: dict[str, int]
    port: float
    step: int | None = None


class Result(msgspec.Struct, frozen=True):
    """One component, in one case, dtype and mode.

    floor: the error that rounding explains, the greater of measured and modelled, view by view
    limit: the largest error that passes
    error, floor, limit and worst are None where nothing could be compared number by number
    reason: why it is unmeasured, or why it fails by more than its numbers (shape, NaN, exactness)
    listed: why it may stay unmeasured, if somebody said so beforehand
    tolerance: who says what passes, and why, if it is not the noise floor: a marker, or a row of the tolerance file
    expected: why it may fail, if somebody said so beforehand
    unexpected: why it was expected to fail, if it passes; its verdict is to fail, for that
    arisen: where NaN and infinities are that the golden does not have, if there are any
    """

    component: str
    kind: str
    case: str
    dtype: str
    mode: Mode
    verdict: Verdict
    error: Views | None = None
    floor: Views | None = None
    limit: Views | None = None
    worst: Worst | None = None
    reason: str = ""
    listed: str = ""
    tolerance: str = ""
    expected: str = ""
    unexpected: str = ""
    arisen: Arisen | None = None

    @property
    def is_wrong(self) -> bool:
        """Whether the component is wrong, and nobody said so beforehand."""
        return self.verdict is Verdict.FAIL and not self.expected and not self.unexpected

    @property
    def over_limit(self) -> float:
        """Error over what passes, in the worst view; above 1 it fails. NaN where nothing was compared."""
        return ratio(self.error, self.limit)

    @property
    def over_floor(self) -> float:
        """Error over what rounding explains, in the worst view. NaN where nothing was compared."""
        return ratio(self.error, self.floor)


def ratio(error: Views | None, allowed: Views | None) -> float:
    """The largest quotient of the three views; infinite where any error at all is too much."""
    if error is None or allowed is None:
        return math.nan
    return max(
        _quotient(error.whole, allowed.whole),
        _quotient(error.row, allowed.row),
        _quotient(error.channel, allowed.channel),
    )


def _quotient(error: float, allowed: float) -> float:
    if math.isnan(error):
        return math.inf
    return error / allowed if allowed else math.inf if error else 0.0


class Place(msgspec.Struct, frozen=True):
    """Which comparison: enough to run just it again."""

    component: str
    case: str
    dtype: str
    mode: Mode


class Explanation(msgspec.Struct, frozen=True):
    """What explains the failures of a component.

    hypotheses: one, or several that cannot be told apart; none if the text only describes what is wrong
    left: the error that is left under the hypothesis, in noise floors
    """

    component: str
    hypotheses: list[str]
    text: str
    left: float | None = None


class Environment(msgspec.Struct, frozen=True):
    """What a replay ran on.

    time: UTC, ISO 8601; versions: of Python and of the libraries that ports use
    device: as JAX names it, empty for a port without JAX; precision: JAX's default for products of matrices
    commit: of the project in the working folder, with `+` if it had changes; empty outside a repository
    mesh: the devices that the port was spread over, as `dp=2,tp=4`; empty for one; processes: that shared them
    """

    time: str
    versions: dict[str, str]
    device: str
    precision: str
    commit: str
    mesh: str = ""
    processes: int = 1


class Map(msgspec.Struct, frozen=True):
    """|port - golden| over two axes, the largest along all others, and of what falls on one pixel.

    rows, columns: the axes, "B x T" where two are laid end to end; shape: how many indices each has
    size: how many pixels; pixels: row by row, a byte each: 0 not compared (padding), 1 equal, 255 NaN or infinite in
        one of the two only, 2 to 254 the logarithm of the difference, evenly from `low` to `high`
    """

    rows: str
    columns: str
    shape: tuple[int, int]
    size: tuple[int, int]
    pixels: bytes


class Picture(msgspec.Struct, frozen=True):
    """What an error looks like: of failures, and of what comes nearest to failing.

    low, high: the differences that are drawn darkest and brightest: the largest there is, and the least, or a
        thousandth of the largest; 0 where there is none
    unit: the difference that the noise floor explains in a typical element; of the golden's own size where no
        difference is explained
    histogram: how many elements differ by 10^(first + i * step) to 10^(first + (i + 1) * step) units; its ends take in
        all beyond them; same: how many do not differ
    worst: the elements that differ most, the worst first
    """

    place: Place
    maps: list[Map]
    low: float
    high: float
    unit: float
    first: float
    step: float
    histogram: list[int]
    same: int
    worst: list[Worst]


class Run(msgspec.Struct, frozen=True):
    """One replay of one golden file.

    order: all components of the golden file, in forward order; digest: of its content
    recorded: the golden file's own provenance; environment: what the replay ran on
    results: by dtype, case and mode, then in forward order
    notes: what else is to be known of the failures, a sentence each: what they have in common, what they do not show
    logits: of whole runs, in people's terms; no verdict depends on it
    pictures: of the worst case of each failure, a bounded number, and of what comes nearest to failing
    """

    format: int
    golden: str
    port: str
    verdict: Verdict
    counts: dict[Verdict, int]
    first_wrong: Place | None
    results: list[Result]
    explanations: list[Explanation] = []
    notes: list[str] = []
    logits: list[LogitsSummary] = []
    order: list[str] = []
    digest: str = ""
    recorded: dict[str, Any] = {}
    environment: Environment | None = None
    pictures: list[Picture] = []

    @classmethod
    def from_results(cls, golden: str, port: str, results: Iterable[Result], order: Sequence[str]) -> Self:
        """Draw the conclusion. order: all components of the golden file, in forward order."""
        results = list(results)
        counts = {verdict: sum(r.verdict is verdict for r in results) for verdict in Verdict}
        wrong = first_wrong(results, order)
        place = None if wrong is None else Place(wrong.component, wrong.case, wrong.dtype, wrong.mode)
        return cls(FORMAT, golden, port, _verdict(results), counts, place, results, order=list(order))

    @property
    def holds(self) -> bool:
        return self.verdict is Verdict.PASS

    def result(self, place: Place) -> Result:
        return next(r for r in self.results if Place(r.component, r.case, r.dtype, r.mode) == place)

    def to_json(self) -> bytes:
        return msgspec.json.encode(writable(msgspec.to_builtins(self)))

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        return msgspec.json.decode(text, type=cls, strict=False)


def first_wrong(results: Iterable[Result], order: Sequence[str]) -> Result | None:
    """The first component in forward order that fails by itself, and was not expected to.

    Only if none does, the first that fails end to end: drift or wiring, since each by itself is right.
    Of several cases and dtypes in which a component fails, the one that was run first.
    """
    position = {name: place for place, name in enumerate(order)}
    wrong = [result for result in results if result.is_wrong]
    by_itself = [result for result in wrong if result.mode is Mode.ISOLATED]
    return min(by_itself or wrong, key=lambda result: position[result.component], default=None)


def with_listed(result: Result, listed: Mapping[str, str]) -> Result:
    """Mark an unmeasured result that `listed`, glob of component names -> reason, allows for."""
    if result.verdict is not Verdict.UNMEASURED:
        return result
    reasons = (reason for glob, reason in listed.items() if fnmatchcase(result.component, glob))
    return msgspec.structs.replace(result, listed=next(reasons, ""))


def parse_listed(specs: Collection[str]) -> dict[str, str]:
    """`GLOB=REASON` options -> glob to reason. Raises GoldensError for one without a reason."""
    listed = {}
    for spec in specs:
        glob, _, reason = spec.partition("=")
        if not glob.strip() or not reason.strip():
            raise GoldensError(
                f"{spec!r} does not say what may stay unmeasured and why: write it as GLOB=REASON"
            )
        listed[glob.strip()] = reason.strip()
    return listed


def _verdict(results: Collection[Result]) -> Verdict:
    """Nothing measured is no pass, nor is what fails as expected."""
    failed = any(r.verdict is Verdict.FAIL and not r.expected for r in results)
    if failed or any(r.verdict is Verdict.UNMEASURED and not r.listed for r in results):
        return Verdict.FAIL
    return Verdict.PASS if any(r.verdict is Verdict.PASS for r in results) else Verdict.UNMEASURED


def writable(value: Any) -> Any:
    """The same, with numbers that JSON does not know as text."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: writable(member) for key, member in value.items()}
    return [writable(member) for member in value] if isinstance(value, list) else value
