"""A run as the history keeps it: how near every comparison came to its limit, and on what. Imports nothing heavy."""

import math
from collections.abc import Iterable, Sequence
from typing import Self

import msgspec

from harness.model import Mode, Verdict
from harness.report.result import Environment, Result, Run

FORMAT = 1
Margin = float | str
"""Error over limit, to three digits; above 1 it failed. "pass" or "fail" where there are no numbers; "unmeasured"."""


class Group(msgspec.Struct, frozen=True):
    """What one dtype, mode and case came to, component by component as `Entry.components` has them from `start` on.

    margins: None where a component was not compared; what is left out at the end was not, either
    limits: the largest relative error that passed, to three digits; None where there are no numbers
    """

    dtype: str
    mode: Mode
    case: str
    start: int
    margins: list[Margin | None]
    limits: list[float | None]


class Entry(msgspec.Struct, frozen=True):
    """A run of one golden file. digest: of the golden file's content"""

    format: int
    golden: str
    digest: str
    port: str
    verdict: Verdict
    environment: Environment | None
    components: list[str]
    groups: list[Group]

    @classmethod
    def of(cls, run: Run) -> Self:
        """The components that most groups have come first, so that little has to be said of what is not there."""
        found: dict[tuple[str, Mode, str], dict[str, Result]] = {}
        for result in run.results:
            found.setdefault((result.dtype, result.mode, result.case), {})[result.component] = result
        counts = {name: sum(name in members for members in found.values()) for name in run.order}
        components = sorted((name for name in counts if counts[name]), key=lambda name: -counts[name])
        groups = [_group(*key, members, components) for key, members in found.items()]
        return cls(FORMAT, run.golden, run.digest, run.port, run.verdict, run.environment, components, groups)

    @property
    def series(self) -> tuple[str, str]:
        """Runs of one golden file and port follow one another."""
        return self.golden, self.port

    @property
    def when(self) -> str:
        """`2026-11-26 18:02, commit 3841170d1c0b`, in UTC."""
        if self.environment is None:
            return "at an unknown time"
        time = self.environment.time[:16].replace("T", " ")
        return f"{time}, commit {self.environment.commit}" if self.environment.commit else time

    def comparisons(self) -> "dict[tuple[str, Mode, str], dict[str, Compared]]":
        """(dtype, mode, case) -> component -> margin and limit; only what was compared."""
        return {
            (group.dtype, group.mode, group.case): {
                name: (margin, limit)
                for name, margin, limit in zip(
                    self.components[group.start :], group.margins, group.limits, strict=False
                )
                if margin is not None
            }
            for group in self.groups
        }


Compared = tuple[Margin, float | None]


def _group(dtype: str, mode: Mode, case: str, members: dict[str, Result], components: Sequence[str]) -> Group:
    places = [place for place, name in enumerate(components) if name in members]
    here = [members.get(name) for name in components[places[0] : places[-1] + 1]]
    return Group(dtype, mode, case, places[0], [*map(_margin, here)], [*map(_limit, here)])


def _margin(result: Result | None) -> Margin | None:
    if result is None:
        return None
    margin = result.over_limit
    if not math.isfinite(margin) or (result.verdict is Verdict.FAIL) != (margin > 1):
        return str(result.verdict)
    return _digits(margin)


def _limit(result: Result | None) -> float | None:
    if result is None or result.limit is None:
        return None
    return _digits(max(result.limit.whole, result.limit.row, result.limit.channel))


def _digits(number: float) -> float:
    return float(f"{number:.3g}")


def failed(margin: Margin) -> bool:
    return margin == "fail" or (not isinstance(margin, str) and margin > 1)


def numbers(margins: Iterable[Margin]) -> list[float]:
    return [margin for margin in margins if not isinstance(margin, str)]
