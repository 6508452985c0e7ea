"""Two golden files compared, in what was recorded and in every number: what `goldens diff --json` writes."""

import enum
from collections.abc import Iterable
from typing import Any

import msgspec

from harness.compare.files import compare_goldens, identical
from harness.errors import GoldensError
from harness.model import Verdict, Views
from harness.report.result import Result, writable
from harness.review.changes import (
    EVERYTHING,
    Change,
    Scope,
    changes,
    comparable,
    facts_in,
    goldens_in,
    refuse_unknown,
)
from harness.store.reader import GoldenFile

FORMAT = 1


class Agreement(enum.StrEnum):
    """How the same golden of two files compares."""

    IDENTICAL = "identical"
    WITHIN = "within"
    DIFFERS = "differs"


class Element(msgspec.Struct, frozen=True):
    """The element that differs most, by absolute difference."""

    index: list[int]
    old: float
    new: float


class Difference(msgspec.Struct, frozen=True):
    """A golden that both files have. within: not identical, and no further apart than passes end to end.

    dtype: of both, or `float32:bfloat16`
    error, floor, limit: as of a replay, of the new file against the old one; None where they are identical, or nothing
        could be compared number by number, and then `reason` says why
    over_floor, over_limit: the error over them, in the worst view; 0 where they are identical
    """

    component: str
    kind: str
    case: str
    dtype: str
    agreement: Agreement
    over_floor: float = 0.0
    over_limit: float = 0.0
    error: Views | None = None
    floor: Views | None = None
    limit: Views | None = None
    worst: Element | None = None
    reason: str = ""


class Diff(msgspec.Struct, frozen=True):
    """Two golden files, the new one held against the old one.

    agrees: nothing that counts has changed, and no golden differs; counts: of `differences`, by agreement
    changes: what differs beside numbers; versions, the machine and other provenance are told, and do not count
    differences: every golden that both have of the same tokens, the furthest apart first
    """

    format: int
    old: str
    new: str
    old_digest: str
    new_digest: str
    agrees: bool
    counts: dict[Agreement, int]
    changes: list[Change]
    differences: list[Difference]

    @property
    def worst(self) -> Difference | None:
        return self.differences[0] if self.differences else None

    def to_json(self) -> bytes:
        return msgspec.json.encode(writable(msgspec.to_builtins(self)))


def compare(old: GoldenFile, new: GoldenFile, scope: Scope = EVERYTHING) -> Diff:
    """Hold `new` against `old`. Raises GoldensError for a scope that holds nothing, and for a damaged file."""
    refuse_unknown(old, new, scope)
    told = list(changes(old, new, scope))
    differences = sorted(_differences(old, new, scope), key=_furthest_first)
    changed = any(change.counts for change in told)
    if not changed and not differences and not facts_in(old, scope, 0):
        raise GoldensError(f"nothing that was asked for can be compared in {old.path} and {new.path}")
    counts = {each: sum(d.agreement is each for d in differences) for each in Agreement}
    holds = not changed and not counts[Agreement.DIFFERS]
    return Diff(
        FORMAT, str(old.path), str(new.path), old.digest, new.digest, holds, counts, told, differences
    )


def _differences(old: GoldenFile, new: GoldenFile, scope: Scope) -> Iterable[Difference]:
    before, after = (goldens_in(file, scope, side) for side, file in enumerate((old, new)))
    shared = [key for key in before if key in after]
    same_tokens = {case for case in {key[1] for key in shared} if comparable(old, new, case)}
    for key in shared:
        golden, other = before[key], after[key]
        if golden.case not in same_tokens:
            continue
        if identical(old.output(golden), new.output(other)):
            kind = old.component(golden.component).kind
            yield Difference(golden.component, kind, golden.case, key[2], Agreement.IDENTICAL)
        else:
            yield _difference(compare_goldens(old, golden, new, other))


def _difference(result: Result) -> Difference:
    differs, worst = result.verdict is Verdict.FAIL, result.worst
    numbers: dict[str, Any] = {}
    if result.error is None and differs:
        numbers = {"over_floor": float("inf"), "over_limit": float("inf")}
    elif result.error is not None:
        numbers = {"over_floor": result.over_floor, "over_limit": result.over_limit}
    return Difference(
        result.component,
        result.kind,
        result.case,
        result.dtype,
        Agreement.DIFFERS if differs else Agreement.WITHIN,
        **numbers,
        error=result.error,
        floor=result.floor,
        limit=result.limit,
        worst=None if worst is None else Element(worst.index, worst.golden, worst.port),
        reason=result.reason,
    )


def _furthest_first(difference: Difference) -> tuple[bool, float, float]:
    return difference.agreement is not Agreement.DIFFERS, -difference.over_limit, -difference.over_floor
