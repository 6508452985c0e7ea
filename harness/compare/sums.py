"""Sums of squares of an error and of what it is relative to: one pass over both tensors. numpy and numba only.

Every number is worked on in float64 while it is in a register, by `harness.compare.kernel`; no tensor is copied as a
whole. Where all are small, as those of a tiny model, `harness.compare.plain` does it, and numba is not imported. Large
ones are read by several threads. How they are cut does not depend on how many, and parts are added in the order in
which they lie, so that neither do the sums.
"""

import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import product
from threading import Lock
from typing import Any

import numpy as np

from harness.compare import plain

Array = Any

_FEW = 32 * 1024
"""Elements up to which numpy does it, in 0.3 ms; numba takes a second of each process, to be there."""
_ALONE = 1024 * 1024
"""Elements up to which a thread does not share: handing half a millisecond's work to another takes as long."""
_PART = 128 * 1024
"""Elements of more that a thread takes at once, about."""
_WIDEST = 8 * 1024
"""Columns that it takes at once: their sums, too, are to stay in cache."""

Span = tuple[slice, slice, slice]
"""A part of a pair: of `outer`, `middle` and `inner`."""


@dataclass(frozen=True)
class Pair:
    """Two tensors (outer middle inner), and which of their numbers are those of real tokens.

    first: the error itself; or, where the reference is to be subtracted from it, what was measured
    rows (outer middle), keys (outer inner): true for real ones; None where all are
    atol: errors that are no larger count as none
    """

    first: Array
    reference: Array
    rows: Array
    keys: Array | None
    subtract: bool
    atol: float = 0.0


@dataclass
class Sums:
    """What a pair, or a part of it, comes to. Indices are of its elements as they lie in the whole pair.

    over_inner (2 outer middle), over_middle (2 outer inner): sums of squares of the error, and of the reference.
        Elements that are NaN or infinite in either are left out
    largest: the largest absolute error, whatever counts as none; at: where it is first
    strange: how many are NaN or infinite in one and not the same in the other; first: where
    lost: how many are NaN or infinite in the reference
    """

    over_inner: Array
    over_middle: Array
    largest: float = 0.0
    at: int = 0
    strange: int = 0
    first: int = 0
    lost: int = 0

    @classmethod
    def none(cls, shape: tuple[int, int, int]) -> "Sums":
        outer, middle, inner = shape
        return cls(np.zeros((2, outer, middle)), np.zeros((2, outer, inner)))

    def found(self, begin: int, largest: float, at: int, strange: int, first: int, lost: int) -> "Sums":
        """With what else there is, of a part that begins at an index."""
        self.largest, self.at = largest, begin + at
        self.strange, self.first = strange, begin + first
        self.lost = lost
        return self

    def add(self, span: Span, part: "Sums") -> None:
        """Add those of a part, which lies there."""
        outer, middle, inner = span
        self.over_inner[:, outer, middle] += part.over_inner
        self.over_middle[:, outer, inner] += part.over_middle
        self.differs(part.largest, part.at)
        self.is_strange(part.strange, part.first)
        self.lost += part.lost

    def differs(self, largest: float, at: int) -> None:
        if largest > self.largest or (largest == self.largest > 0 and at < self.at):
            self.largest, self.at = largest, at

    def is_strange(self, count: int, first: int) -> None:
        if count:
            self.first = min(first, self.first) if self.strange else first
            self.strange += count


def measure(pair: Pair, helpers: int | None = None) -> Sums:
    """All of a pair. helpers: threads beside this one; if it is not said, so many that every processor has one."""
    if pair.reference.size <= _FEW:
        return _plainly(pair)
    parts = _cut(pair.reference.shape)
    if len(parts) == 1:
        return _measure(pair, *parts)
    total = Sums.none(pair.reference.shape)
    for span, part in zip(parts, _side_by_side(pair, parts, helpers), strict=True):
        total.add(span, part)
    return total


def _plainly(pair: Pair) -> Sums:
    sums = Sums.none(pair.reference.shape)
    keys = _keys(pair, slice(None))
    found = plain.add(
        pair.first, pair.reference, pair.rows, keys, *_how(pair), sums.over_inner, sums.over_middle
    )
    return sums.found(0, *found)


def _side_by_side(pair: Pair, spans: list[Span], helpers: int | None) -> list[Sums]:
    """The parts, in order. Whichever thread is free takes the next, so that none waits for one that is not running."""
    parts: dict[int, Sums] = {}
    waiting, lock = iter(enumerate(spans)), Lock()

    def work() -> None:
        while True:
            with lock:
                number, span = next(waiting, (0, None))
            if span is None:
                return
            parts[number] = _measure(pair, span)

    if helpers is None:
        helpers = (os.cpu_count() or 1) - 1
    helping = [_helpers().submit(work) for _ in range(min(helpers, len(spans) - 1))]
    work()
    for each in helping:
        if not each.cancel():
            each.result()
    return [parts[number] for number in range(len(spans))]


@cache
def _helpers() -> ThreadPoolExecutor:
    """Threads that stay: on a busy machine, starting one takes longer than comparing a tensor."""
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="compare")


def _cut(shape: tuple[int, int, int]) -> list[Span]:
    """Parts in the order in which they lie: all of `outer`, several, or some of `middle` in one of them."""
    outer, middle, inner = shape
    most = _ALONE if outer * middle * inner <= _ALONE else _PART
    width = max(1, min(inner, _WIDEST))
    height = max(1, min(middle, most // width))
    depth = max(1, most // (height * width)) if (height, width) == (middle, inner) else 1
    return list(product(_spans(outer, depth), _spans(middle, height), _spans(inner, width)))


def _spans(length: int, most: int) -> list[slice]:
    """Parts of a length, all about as long, none longer than `most`."""
    step = math.ceil(length / math.ceil(length / most)) if length else 1
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]


def _measure(pair: Pair, span: Span) -> Sums:
    from harness.compare import kernel

    outer, middle, inner = span
    arrays = _numbers(pair.first[outer, middle], pair.reference[outer, middle])
    real = _fixed(pair.rows[outer, middle]), _fixed(_keys(pair, outer))
    depth, height, width = arrays[0].shape
    sums = Sums.none((depth, height, inner.stop - inner.start))
    columns = (inner.start, inner.stop)
    found = kernel.add(*arrays, *real, *_how(pair), columns, sums.over_inner, sums.over_middle)
    begin = (outer.start * pair.reference.shape[1] + middle.start) * width
    return sums.found(begin, *found)


def _how(pair: Pair) -> tuple[float, float]:
    """The share of the reference that is subtracted, and which errors count as none."""
    return (1.0 if pair.subtract else 0.0), pair.atol


def _keys(pair: Pair, outer: slice) -> Array:
    """(outer inner), true for real ones."""
    some = pair.reference[outer]
    return np.broadcast_to(True if pair.keys is None else pair.keys[outer], (some.shape[0], some.shape[2]))


def _numbers(*arrays: Array) -> list[Array]:
    """As the kernel takes them, of one dtype and each in one piece. Those that it does not know are copied."""
    (dtype, *others) = {array.dtype for array in arrays}
    if not others and dtype.kind == "V":  # as NumPy has bfloat16, which is not its own
        return [_fixed(array.view(np.uint16)) for array in arrays]
    if others or dtype not in (np.float32, np.float64):
        arrays = tuple(array.astype(np.float64) for array in arrays)
    return [_fixed(array) for array in arrays]


def _fixed(array: Array) -> Array:
    """In one piece, and not to be written to: else numba compiles for each of the two."""
    array = np.ascontiguousarray(array).view()
    array.flags.writeable = False
    return array
