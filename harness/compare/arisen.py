"""Where a port makes NaN and infinities: the first of those that stand where the golden has a number. numpy only."""

from typing import Any

import numpy as np

from harness.compare.metrics import Places
from harness.report.result import Arisen

Array = Any

_FIRST = "TB"
"""What comes first is in the earliest token, then in the first text: later tokens take in what earlier ones are."""


def arisen(
    port: Array, recorded: Array, axes: str, places: Places, tokens: Array | None = None
) -> Arisen | None:
    """The first NaN or infinity, and how many there are; None where there is none, or shapes or dtypes differ.

    tokens: where in the case the recorded ones stand (T), if it is not said that they are all
    """
    if (port.shape, port.dtype.name) != (recorded.shape, recorded.dtype.name):
        return None
    made = ~np.isfinite(port) & np.isfinite(recorded) & places.valid(axes)
    count = int(np.count_nonzero(made))
    if not count:
        return None
    index = _first(made, axes)
    at = dict(zip(axes.split(), index, strict=True))
    if tokens is not None and "T" in at:
        at["T"] = int(tokens[at["T"]])
    return Arisen(count, at, float(port[index]))


def _first(made: Array, axes: str) -> tuple[int, ...]:
    letters = axes.split()
    leading = [letters.index(letter) for letter in _FIRST if letter in letters]
    order = [*leading, *(axis for axis in range(len(letters)) if axis not in leading)]
    moved = made.transpose(order)
    found = dict(zip(order, np.unravel_index(int(moved.argmax()), moved.shape), strict=True))
    return tuple(int(found[axis]) for axis in range(len(letters)))
