"""Sums of squares of an error and of what it is relative to: one pass over both tensors. numpy and numba only.

Every number is worked on in float64 while it is in a register, by `harness.compare.kernel`; no large tensor is copied
as a whole. Where all are small, as those of a tiny model, `harness.compare.plain` does it, and numba is not imported.
Large ones are read by several threads. How they are cut does not depend on how many, and parts are added in the order
in which they lie, so that neither do the sums.
"""

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import product
from threading import Lock
from typing import Any

import numpy as np

from harness.compare import plain

Array = Any

FEW = 32 * 1024
"""Elements up to which numpy does it, in 0.3 ms; numba takes a second of each process, to be there."""
_ALONE = 1024 * 1024
"""Elements up to which a thread does not share: handing half a millisecond's work to another takes as long."""
_PART = 128 * 1024
"""Elements of more that a thread takes at once, about."""
_WIDEST = 8 * 1024
"""Columns that it takes at once: their sums, too, are to stay in cache."""

Span = tuple[slice, slice, slice]
"""A part of a pair: of `outer`, `middle` and `inner`."""
Add = Callable[..., Any]
"""The kernel's, for tensors of a dtype, or `plain.add`."""


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
    size, shape = pair.reference.size, pair.reference.shape
    if size == 0:
        return Sums.none(shape)
    if size <= FEW:
        return _measure(pair, _whole(shape), plain.add)
    add = compiled(pair.first.dtype, pair.reference.dtype)
    if size <= _ALONE:
        return _measure(pair, _whole(shape), add)
    total, parts = Sums.none(shape), _cut(shape)
    for span, part in zip(parts, _side_by_side(pair, parts, add, helpers), strict=True):
        total.add(span, part)
    return total


def compiled(*dtypes: np.dtype) -> Add:
    """What adds up pairs of these dtypes, if they are larger than `FEW`. The first time, it takes seconds."""
    from harness.compare import kernel

    return kernel.add_for(_common(*dtypes))


def _side_by_side(pair: Pair, spans: list[Span], add: Add, helpers: int | None) -> list[Sums]:
    """The parts, in order. Whichever thread is free takes the next, so that none waits for one that is not running."""
    parts: dict[int, Sums] = {}
    waiting, lock = iter(enumerate(spans)), Lock()

    def work() -> None:
        while True:
            with lock:
                number, span = next(waiting, (0, None))
            if span is None:
                return
            parts[number] = _measure(pair, span, add)

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


def _whole(shape: tuple[int, int, int]) -> Span:
    outer, middle, inner = (slice(0, length) for length in shape)
    return outer, middle, inner


def _cut(shape: tuple[int, int, int]) -> list[Span]:
    """Parts of about `_PART` elements, in the order in which they lie: several of `outer`, or of `middle` in one."""
    outer, middle, inner = shape
    width = max(1, min(inner, _WIDEST))
    height = max(1, min(middle, _PART // width))
    depth = max(1, _PART // (height * width)) if (height, width) == (middle, inner) else 1
    return list(product(_spans(outer, depth), _spans(middle, height), _spans(inner, width)))


def _spans(length: int, most: int) -> list[slice]:
    """Parts of a length, all about as long, none longer than `most`."""
    step = math.ceil(length / math.ceil(length / most)) if length else 1
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]


def _measure(pair: Pair, span: Span, add: Add) -> Sums:
    outer, middle, inner = span
    numbers = [pair.first[outer, middle], pair.reference[outer, middle]]
    keys = np.broadcast_to(True if pair.keys is None else pair.keys[outer], numbers[0].shape[::2])
    columns, dtype = (inner.start, inner.stop), _common(*(array.dtype for array in numbers))
    if not all(_can_be_used(array, dtype) for array in numbers):  # they are copied, so these columns alone
        numbers, keys = [array[:, :, inner] for array in numbers], keys[:, inner]
        columns = (0, inner.stop - inner.start)
    sums = Sums.none((*numbers[0].shape[:2], inner.stop - inner.start))
    arrays = [
        _fixed(array) for array in (*(_as(dtype, each) for each in numbers), pair.rows[outer, middle], keys)
    ]
    share = 1.0 if pair.subtract else 0.0
    found = add(*arrays, share, pair.atol, columns, sums.over_inner, sums.over_middle)
    sums.largest, at, sums.strange, first, sums.lost = found
    begin = outer.start, middle.start, inner.start - columns[0]
    sums.at, sums.first = (_index(begin, place, pair.reference.shape) for place in (at, first))
    return sums


def _index(begin: Sequence[int], place: Sequence[int], shape: tuple[int, ...]) -> int:
    """Of an element of the whole pair, by where it is in a part that begins there."""
    return int(np.ravel_multi_index([b + p for b, p in zip(begin, place, strict=True)], shape))


def _can_be_used(array: Array, dtype: np.dtype) -> bool:
    return array.flags.c_contiguous and (array.dtype == dtype or dtype == np.uint16)


def _as(dtype: np.dtype, array: Array) -> Array:
    return array.view(dtype) if dtype == np.uint16 else array.astype(dtype, copy=False)


def _common(*dtypes: np.dtype) -> np.dtype:
    """As what tensors are compared: as they are, bfloat16 by its bits; any others, or two, as float64."""
    if len({*dtypes}) > 1:
        return np.dtype(np.float64)
    if dtypes[0].kind == "V":  # as NumPy has bfloat16, which is not its own
        return np.dtype(np.uint16)
    return dtypes[0] if dtypes[0] in (np.float32, np.float64) else np.dtype(np.float64)


def _fixed(array: Array) -> Array:
    """In one piece, and not to be written to: else numba compiles for each of the two."""
    array = np.ascontiguousarray(array).view()
    array.flags.writeable = False
    return array
