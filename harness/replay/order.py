"""In which order goldens are run, and in which their results are told. Imports nothing heavy."""

from collections.abc import Iterable, Sequence
from typing import Any

from harness.facts.table import BEFORE, FAMILIES
from harness.model import FactIn, Golden, Mode
from harness.report.result import Place, Result

Run = tuple[Golden | FactIn, Mode]


def as_run(asked: Iterable[Run], order: Sequence[str]) -> list[Run]:
    """In the order that asks the least of a port, one dtype after another. order: all components, in forward order.

    Isolated, a component runs in all cases before the next one does, so that its parameters are needed once, and those
    of other components need not be in memory. Whole runs come after that, case by case; facts stay before and after.
    """
    asked, position = list(asked), {name: place for place, name in enumerate(order)}
    dtypes = _ranks(each.dtype for each, _ in asked)
    cases = _ranks(each.case for each, _ in asked)

    def place(run: Run) -> tuple[int, ...]:
        each, mode = run
        dtype = dtypes[each.dtype]
        if isinstance(each, FactIn):
            return dtype, 0 if FAMILIES[each.fact.family] in BEFORE else 3
        if mode is Mode.ISOLATED:
            return dtype, 1, position[each.component]
        return dtype, 2, cases[each.case], _MODES[mode]

    return sorted(asked, key=place)


def as_told(results: Iterable[Result], places: Sequence[Place]) -> list[Result]:
    """By dtype, case and mode, and then in forward order, as `places` has them, whatever was run first."""
    runs = _ranks((place.dtype, place.case) for place in places)
    ranks = _ranks(places)

    def rank(result: Result) -> tuple[int, ...]:
        place = Place(result.component, result.case, result.dtype, result.mode)
        return runs[place.dtype, place.case], _MODES[place.mode], ranks[place]

    return sorted(results, key=rank)


_MODES = {mode: rank for rank, mode in enumerate(Mode)}


def _ranks(names: Iterable[Any]) -> dict[Any, int]:
    return {name: rank for rank, name in enumerate(dict.fromkeys(names))}
