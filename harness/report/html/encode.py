"""A run as data for its page: numbers packed in columns, each text once. All figures that are shown come from it.

Results are laid out in blocks, one for each dtype, case and mode, with a place for each component. A number is two
bytes: the logarithm of it, to three digits. page.js reads what is written here.
"""

import math
import sys
from array import array
from base64 import b64encode
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Any

import msgspec

from harness.facts.table import FAMILIES
from harness.model import Mode, Verdict, Views
from harness.report.commands import replay_of
from harness.report.html.layout import layout
from harness.report.result import Picture, Result, Run, first_wrong
from harness.report.wording import explained, finding

_NONE, _INFINITE, _ZERO = 65535, 65534, 0
_DECADE, _LOWEST = 1600, -20
"""Steps to a power of ten, 0.15 % each, and the least power that is told from zero."""


class State(IntEnum):
    """What a cell shows: a verdict, and for what was said beforehand, that."""

    NOTHING = 0
    PASS = 1
    FAIL = 2
    UNMEASURED = 3
    LISTED = 4
    EXPECTED = 5


def state(result: Result) -> State:
    if result.verdict is Verdict.UNMEASURED:
        return State.LISTED if result.listed else State.UNMEASURED
    if result.verdict is Verdict.FAIL:
        return State.EXPECTED if result.expected else State.FAIL
    return State.PASS


def is_fact(result: Result) -> bool:
    """Whether it is no step of the forward pass."""
    return result.kind in FAMILIES


class Texts:
    """Each text once; elsewhere its number."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, text: str) -> int:
        return self._numbers.setdefault(text, len(self._numbers))

    def all(self) -> list[str]:
        return list(self._numbers)


def encoded(run: Run) -> dict[str, Any]:
    """What page.js takes, as JSON has it."""
    steps = [result for result in run.results if not is_fact(result)]
    kinds = {result.component: result.kind for result in steps}
    components = [name for name in run.order if name in kinds]
    wrong = first_wrong(steps, run.order)
    texts = Texts()
    blocks = [_block(results, components, texts) for results in _blocks(steps)]
    return {
        "replay": replay_of(run),
        "components": components,
        "kinds": [kinds[name] for name in components],
        "layout": msgspec.to_builtins(layout(components, kinds)),
        "dtypes": _in_order(result.dtype for result in run.results),
        "modes": [mode for mode in Mode if any(result.mode is mode for result in steps)],
        "cases": _in_order(result.case for result in steps),
        "first": wrong.component if wrong is not None else None,
        "firstFamily": _first_family(run),
        "blocks": blocks,
        "worst": _worst(steps),
        "facts": [_fact(result, texts) for result in run.results if is_fact(result)],
        "explained": {
            name: [texts.number(line) for line in explained(run, name)]
            for name in _in_order(explanation.component for explanation in run.explanations)
        },
        "pictures": [_picture(picture) for picture in run.pictures],
        "texts": texts.all(),
    }


def _first_family(run: Run) -> str:
    """The family of the first wrong component, if it is a fact."""
    wrong = run.result(run.first_wrong) if run.first_wrong is not None else None
    return wrong.kind if wrong is not None and is_fact(wrong) else ""


def _in_order(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _blocks(results: Iterable[Result]) -> list[list[Result]]:
    blocks: dict[tuple[str, str, Mode], list[Result]] = {}
    for result in results:
        blocks.setdefault((result.dtype, result.case, result.mode), []).append(result)
    return list(blocks.values())


def _block(results: Sequence[Result], components: Sequence[str], texts: Texts) -> dict[str, Any]:
    """states: a byte each; numbers: error, floor and limit, three views of each, one component after another."""
    found = {result.component: result for result in results}
    states = bytes(state(found[name]) if name in found else State.NOTHING for name in components)
    numbers = array("H")
    said = []
    for place, name in enumerate(components):
        result = found.get(name)
        measures = (None, None, None) if result is None else (result.error, result.floor, result.limit)
        for views in measures:
            numbers.extend(_codes(views))
        if result is not None and (told := _said(result, texts)):
            said.append([place, told])
    if sys.byteorder == "big":
        numbers.byteswap()
    return {
        "dtype": results[0].dtype,
        "case": results[0].case,
        "mode": results[0].mode,
        "states": b64encode(states).decode(),
        "numbers": b64encode(numbers.tobytes()).decode(),
        "said": said,
    }


def _said(result: Result, texts: Texts) -> dict[str, int]:
    words = ("reason", "listed", "tolerance", "expected")
    return {word: texts.number(getattr(result, word)) for word in words if getattr(result, word)}


def _codes(views: Views | None) -> list[int]:
    return [_NONE] * 3 if views is None else [code(views.whole), code(views.row), code(views.channel)]


def code(value: float) -> int:
    """A number that is not negative, as two bytes."""
    if not math.isfinite(value):
        return _INFINITE
    if value <= 0:
        return _ZERO
    return min(max(round((math.log10(value) - _LOWEST) * _DECADE) + 1, 1), _INFINITE - 1)


def _worst(results: Iterable[Result]) -> list[list[Any]]:
    """The element that differs most, of the worst case for each component, dtype and mode."""
    worst: dict[tuple[str, str, Mode], Result] = {}
    for result in results:
        key = (result.component, result.dtype, result.mode)
        if result.worst is not None and (key not in worst or result.over_limit > worst[key].over_limit):
            worst[key] = result
    return [
        [r.component, r.case, r.dtype, r.mode, r.worst.index, number(r.worst.port), number(r.worst.golden)]
        for r in worst.values()
        if r.worst is not None
    ]


def _fact(result: Result, texts: Texts) -> dict[str, Any]:
    return {
        "component": result.component,
        "family": result.kind,
        "case": result.case,
        "dtype": result.dtype,
        "mode": result.mode,
        "state": state(result),
        "finding": texts.number(finding(result)),
        **_said(result, texts),
    }


def _picture(picture: Picture) -> dict[str, Any]:
    shown = msgspec.to_builtins(picture)
    for worst in shown["worst"]:
        worst["port"], worst["golden"] = number(worst["port"]), number(worst["golden"])
    return shown


def number(value: float) -> float | str:
    """Nine digits tell any two numbers of float32 apart; JSON knows no infinity."""
    return float(f"{value:.9g}") if math.isfinite(value) else str(value)
