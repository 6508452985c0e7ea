"""Contradictions as they are found, and put together into sentences."""

from collections.abc import Iterable
from dataclasses import dataclass

from harness.model import Component
from harness.portcheck.outcome import Contradiction
from harness.report.result import Result
from harness.report.wording import amount, some_of


@dataclass(frozen=True)
class Trouble:
    """what: the contradiction, in words that are the same for every component; detail: what is of this one
    way_out: what to do about it; by_kind: components of each kind are told by themselves, not all in one sentence
    """

    method: str
    what: str
    way_out: str
    component: Component | None = None
    detail: str = ""
    by_kind: bool = False


def contradictions(troubles: Iterable[Trouble], case: str, dtype: str) -> list[Contradiction]:
    """A sentence for all that are alike, with the detail of the first."""
    groups: dict[tuple[str, ...], list[Trouble]] = {}
    for trouble in troubles:
        kind = trouble.component.kind if trouble.component and trouble.by_kind else ""
        groups.setdefault((trouble.method, trouble.what, trouble.way_out, kind), []).append(trouble)
    return [_told(group, case, dtype) for group in groups.values()]


def _told(group: list[Trouble], case: str, dtype: str) -> Contradiction:
    first = group[0]
    names = [trouble.component.name for trouble in group if trouble.component is not None]
    about = f"{some_of(names)}: " if names else ""
    detail = f" ({first.detail})" if first.detail else ""
    says = f"{about}{first.what}{detail}; {first.way_out}"
    return Contradiction(first.method, names, case, dtype, says)


def difference(result: Result) -> str:
    """By how much two values of one component differ."""
    if result.error is None:
        return "NaN or infinite in other places"
    return result.reason or f"error {amount(result.over_floor)} x noise floor"
