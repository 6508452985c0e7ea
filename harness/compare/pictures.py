"""Pictures of errors: where they lie, how large they are, and the worst elements. numpy only.

A replay keeps few of them, and makes no other: the worst case of the first components that fail, and what passes
nearest to its limit.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from harness.compare.metrics import Array, Places
from harness.model import Component, Mode, Verdict
from harness.report.result import Map, Picture, Place, Result, Worst

FAILURES = 32
"""Pictures that are kept of failures, for each dtype and mode: of the first components in forward order."""
NEAREST = 8
"""Pictures that are kept of what passes, for each dtype and mode: nearest to the limit."""
PIXELS = 64
"""Along each axis of a map."""

_WORST = 10
_FIRST, _STEP, _BINS = -3.0, 0.3, 40
_DEEPEST = 1e-3
"""Differences below this share of the largest one are all drawn alike: a fault stands out from rounding."""
_NAMES = {
    "T": "tokens",
    "S": "keys",
    "H": "heads",
    "K": "key-value heads",
    "D": "channels of a head",
    "V": "tokens of the vocabulary",
}
_SKIPPED, _EQUAL, _LEAST, _MOST, _STRANGE = 0, 1, 2, 254, 255


class Pictures:
    """The pictures of a replay. order: all components of the golden file, in forward order."""

    def __init__(self, order: Sequence[str]) -> None:
        self._position = {name: place for place, name in enumerate(order)}
        self._failures: dict[tuple[str, Mode], dict[str, _Kept]] = {}
        self._passes: dict[tuple[str, Mode], dict[str, _Kept]] = {}
        self._failed: set[tuple[str, Mode, str]] = set()

    def offer(
        self, component: Component, result: Result, port: Array, recorded: Array, places: Places
    ) -> None:
        """Keep the picture of what was compared, if it is among those that are kept so far."""
        if port.shape == recorded.shape:
            self.keep(result, lambda: picture(component, result, port, recorded, places))

    def keep(self, result: Result, make: Callable[[], Picture]) -> None:
        """Make and keep the picture of a result, if it is among those that are kept so far.

        Of a component that fails, what passes is not kept.
        """
        run, name = (result.dtype, result.mode), result.component
        if result.verdict is Verdict.UNMEASURED:
            return
        failures, passes = self._failures.setdefault(run, {}), self._passes.setdefault(run, {})
        over = math.inf if math.isnan(result.over_limit) else result.over_limit
        if result.verdict is Verdict.FAIL:
            self._failed.add((*run, name))
            passes.pop(name, None)
            wanted = self._among_the_first(name, failures)
        else:
            wanted = (*run, name) not in self._failed and _among_the_nearest(over, name, passes)
        kept = failures if result.verdict is Verdict.FAIL else passes
        if wanted and (name not in kept or over > kept[name].over):
            kept[name] = _Kept(over, make())
            self._drop(failures, passes)

    def _among_the_first(self, name: str, failures: Mapping[str, "_Kept"]) -> bool:
        last = max((self._position[other] for other in failures), default=-1)
        return name in failures or len(failures) < FAILURES or self._position[name] < last

    def _drop(self, failures: dict[str, "_Kept"], passes: dict[str, "_Kept"]) -> None:
        if len(failures) > FAILURES:
            del failures[max(failures, key=lambda name: self._position[name])]
        if len(passes) > NEAREST:
            del passes[min(passes, key=lambda name: passes[name].over)]

    def all(self) -> list[Picture]:
        """Failures, then what passes, each in forward order."""
        return [
            kept[name].picture
            for kept in (*self._failures.values(), *self._passes.values())
            for name in sorted(kept, key=lambda name: self._position[name])
        ]


class _Kept(NamedTuple):
    """A picture, and how far its result is over its limit."""

    over: float
    picture: Picture


def _among_the_nearest(over: float, name: str, passes: Mapping[str, _Kept]) -> bool:
    return name in passes or len(passes) < NEAREST or over > min(kept.over for kept in passes.values())


def picture(component: Component, result: Result, port: Array, recorded: Array, places: Places) -> Picture:
    """What the difference of two arrays of one shape looks like, in the component's axes."""
    valid = np.broadcast_to(places.valid(component.axes), recorded.shape)
    ours, theirs = port.astype(np.float32), recorded.astype(np.float32)
    same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
    with np.errstate(invalid="ignore", over="ignore"):
        error = np.where(same | ~valid, np.float32(0), np.abs(ours - theirs))
    error[~np.isfinite(error)] = np.inf  # NaN, too: of the largest the order must be known
    differing = error[np.isfinite(error) & (error > 0)]
    high = float(differing.max(initial=0.0))
    low = max(float(differing.min(initial=high)), high * _DEEPEST)
    unit = _unit(result, theirs[valid & np.isfinite(theirs)])
    return Picture(
        place=Place(result.component, result.case, result.dtype, result.mode),
        maps=list(_maps(component.axes.split(), np.where(valid, error, np.float32(np.nan)), low, high)),
        low=low,
        high=high,
        unit=unit,
        first=_FIRST,
        step=_STEP,
        histogram=_histogram(error[error > 0], unit),
        same=int(np.count_nonzero(valid)) - int(np.count_nonzero(error)),
        worst=_worst(error, ours, theirs),
    )


def _unit(result: Result, golden: Array) -> float:
    """The noise floor is relative to the golden's size: what it is for an element of typical size."""
    size = (
        math.sqrt(np.einsum("i,i->", golden, golden, dtype=np.float64) / golden.size) if golden.size else 0.0
    )
    floor = result.floor.whole if result.floor is not None else 0.0
    return (floor or 1.0) * (size or 1.0)


def _histogram(differing: Array, unit: float) -> list[int]:
    places = np.floor((np.log10(differing) - np.float32(math.log10(unit) + _FIRST)) / np.float32(_STEP))
    inside = np.clip(places, 0, _BINS - 1).astype(np.int64)
    return [int(count) for count in np.bincount(inside, minlength=_BINS)]


def _worst(error: Array, ours: Array, theirs: Array) -> list[Worst]:
    count = min(_WORST, int(np.count_nonzero(error)))
    flat = error.ravel()
    largest = np.argpartition(flat, -count)[-count:] if count else np.zeros(0, np.int64)
    ordered = largest[np.argsort(-flat[largest], kind="stable")]
    indices = [np.unravel_index(int(place), error.shape) for place in ordered]
    return [Worst([int(i) for i in index], float(ours[index]), float(theirs[index])) for index in indices]


def _maps(letters: Sequence[str], error: Array, low: float, high: float) -> Iterator[Map]:
    """Tokens against every other axis: (B T C) makes tokens by channels, (B H T D) heads by tokens and tokens by D.

    error: NaN where nothing is compared, infinite where only one of the two is finite. Batches lie end to end.
    """
    if "T" not in letters or "B" not in letters:
        return
    batch, token = letters.index("B"), letters.index("T")
    tokens = "T tokens" if error.shape[batch] == 1 else "B x T tokens"
    for axis, letter in enumerate(letters):
        if axis in (batch, token):
            continue
        others = tuple(i for i in range(len(letters)) if i not in (batch, token, axis))
        table = np.fmax.reduce(error, axis=others) if others else error
        left = [i for i in (batch, token, axis) if i not in others]
        place = {i: sum(other < i for other in left) for i in left}
        table = np.transpose(table, (place[batch], place[token], place[axis]))
        table = table.reshape(-1, error.shape[axis])
        names = (tokens, f"{letter} {_NAMES.get(letter, 'channels')}")
        yield _map(table, names, low, high) if axis > token else _map(table.T, names[::-1], low, high)


def _map(table: Array, names: tuple[str, str], low: float, high: float) -> Map:
    shape = (int(table.shape[0]), int(table.shape[1]))
    size = (min(shape[0], PIXELS), min(shape[1], PIXELS))
    for axis in (0, 1):
        starts = np.arange(size[axis]) * shape[axis] // size[axis]
        table = np.fmax.reduceat(table, starts, axis=axis)
    return Map(names[0], names[1], shape, size, _pixels(table, low, high).tobytes())


def _pixels(table: Array, low: float, high: float) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = 1 + np.log(table / (high or 1.0)) / (math.log(high / low) if high > low else 1.0)
        shade = _LEAST + np.rint(np.clip(depth, 0, 1) * (_MOST - _LEAST))
    codes = np.where(table > 0, shade, _EQUAL)
    codes = np.where(np.isinf(table), _STRANGE, np.where(np.isnan(table), _SKIPPED, codes))
    return codes.astype(np.uint8)
