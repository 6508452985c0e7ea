"""Sums of squares of an error and of what it is relative to: one pass over both tensors. numpy only.

The tensors are read in tiles that stay in cache while all is done that is to be done with their numbers, in float64;
no tensor is copied as a whole. Large ones are read by several threads. How they are cut does not depend on how many,
and parts are added in the order in which they lie, so that neither do the sums.
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

Array = Any

_TILE = 64 * 1024
"""Elements that are worked on at once: as float64, error and reference fill a megabyte."""
_SLAB = 4 * _TILE
"""Elements that a thread takes at once."""
_WIDEST = 8 * 1024
"""Elements of a row that are summed at once: OpenBLAS starts threads of its own for vectors beyond 10,000."""

Span = tuple[slice, slice, slice]
"""A part of a pair: of `outer`, `middle` and `inner`."""


@dataclass(frozen=True)
class Pair:
    """Two tensors (outer middle inner), and which of their numbers are those of real tokens.

    first: the error itself; or, where the reference is to be subtracted from it, what was measured
    rows (outer middle), keys (outer inner): true for real ones; None where all are
    channels: whether sums over `middle` are wanted, too
    atol: errors that are no larger count as none
    """

    first: Array
    reference: Array
    rows: Array
    keys: Array | None
    channels: bool
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
    over_middle: Array | None
    largest: float = 0.0
    at: int = 0
    strange: int = 0
    first: int = 0
    lost: int = 0

    @classmethod
    def none(cls, shape: tuple[int, int, int], channels: bool) -> "Sums":
        outer, middle, inner = shape
        return cls(np.zeros((2, outer, middle)), np.zeros((2, outer, inner)) if channels else None)

    def add(self, span: Span, part: "Sums") -> None:
        """Add those of a part, which lies there."""
        outer, middle, inner = span
        self.over_inner[:, outer, middle] += part.over_inner
        if self.over_middle is not None:
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
    slabs = _cut(pair.reference.shape, _SLAB)
    if len(slabs) == 1:
        return _measure(pair, *slabs)
    total = Sums.none(pair.reference.shape, pair.channels)
    for slab, part in zip(slabs, _side_by_side(pair, slabs, helpers), strict=True):
        total.add(slab, part)
    return total


def _side_by_side(pair: Pair, slabs: list[Span], helpers: int | None) -> list[Sums]:
    """The parts, in order. Whichever thread is free takes the next, so that none waits for one that is not running."""
    parts: dict[int, Sums] = {}
    waiting, lock = iter(enumerate(slabs)), Lock()

    def work() -> None:
        while True:
            with lock:
                number, slab = next(waiting, (0, None))
            if slab is None:
                return
            parts[number] = _measure(pair, slab)

    if helpers is None:
        helpers = (os.cpu_count() or 1) - 1
    helping = [_helpers().submit(work) for _ in range(min(helpers, len(slabs) - 1))]
    work()
    for each in helping:
        if not each.cancel():
            each.result()
    return [parts[number] for number in range(len(slabs))]


@cache
def _helpers() -> ThreadPoolExecutor:
    """Threads that stay: on a busy machine, starting one takes longer than comparing a tensor."""
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="compare")


def _cut(shape: tuple[int, int, int], most: int) -> list[Span]:
    """Parts of about `most` elements, in the order in which they lie: several of `outer`, or of `middle` in one."""
    outer, middle, inner = shape
    width = max(1, min(inner, _WIDEST))
    height = max(1, min(middle, most // width))
    depth = max(1, most // (height * width)) if (height, width) == (middle, inner) else 1
    return list(product(_spans(outer, depth), _spans(middle, height), _spans(inner, width)))


def _spans(length: int, most: int) -> list[slice]:
    """Parts of a length, all about as long, none longer than `most`."""
    step = math.ceil(length / math.ceil(length / most)) if length else 1
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]


def _measure(pair: Pair, slab: Span) -> Sums:
    outer, middle, inner = slab
    first, reference, rows = pair.first[slab], pair.reference[slab], pair.rows[outer, middle]
    keys = None if pair.keys is None else pair.keys[outer, inner]
    sums = Sums.none(reference.shape, pair.channels)
    room = np.empty(2 * min(_TILE, reference.size))
    with np.errstate(invalid="ignore", over="ignore"):
        for span in _cut(reference.shape, _TILE):
            o, m, n = span
            real = _real(rows[o, m], None if keys is None else keys[o, n])
            origin = tuple(whole.start + part.start for whole, part in zip(slab, span, strict=True))
            _Tile(pair, first[span], reference[span], real, room, origin).add_to(sums, span)
    return sums


def _real(rows: Array, keys: Array | None) -> Array | None:
    """True for elements of real tokens, broadcastable; None if all are."""
    if keys is None or keys.all():
        return None if rows.all() else rows[:, :, None]
    return rows[:, :, None] & keys[:, None, :]


class _Tile:
    """As much of a pair as stays in cache; `both` is its error and reference in float64."""

    def __init__(
        self,
        pair: Pair,
        first: Array,
        reference: Array,
        real: Array | None,
        room: Array,
        origin: tuple[int, ...],
    ) -> None:
        """origin: where it begins in the pair."""
        self._pair, self._first, self._reference, self._real = pair, first, reference, real
        self._both = room[: 2 * reference.size].reshape(2, *reference.shape)
        self._origin = origin

    def add_to(self, sums: Sums, span: Span) -> None:
        """Add what it comes to, at a place of the slab."""
        both, atol = self._both, self._pair.atol
        self._read(self._pair.subtract)
        squares = np.vecdot(both, both)
        if strange := not np.isfinite(squares).all():
            self._leave_out_strange(sums)
        if self._pair.subtract:
            self._find_largest(sums)
        if atol:
            both[0][np.abs(both[0]) <= atol] = 0
        if strange or atol:
            squares = np.vecdot(both, both)
        outer, middle, inner = span
        sums.over_inner[:, outer, middle] += squares
        if sums.over_middle is not None:
            sums.over_middle[:, outer, inner] += np.einsum("zomn,zomn->zon", both, both)

    def _read(self, subtract: bool) -> None:
        error, reference = self._both
        _widen(self._first, error)
        _widen(self._reference, reference)
        if subtract:
            np.subtract(error, reference, out=error)
        if self._real is not None:
            np.copyto(self._both, 0.0, where=~self._real)

    def _leave_out_strange(self, sums: Sums) -> None:
        self._read(subtract=False)
        error, reference = self._both
        finite = np.isfinite(self._both)
        both = finite[0] & finite[1]
        same = (error == reference) | (np.isnan(error) & np.isnan(reference))
        strange = np.flatnonzero(~both & ~same)
        sums.is_strange(strange.size, self._index(strange[0]) if strange.size else 0)
        sums.lost += int(np.count_nonzero(~finite[1]))
        self._read(self._pair.subtract)
        np.copyto(self._both, 0.0, where=~both)

    def _find_largest(self, sums: Sums) -> None:
        """The largest absolute error, and where it is first."""
        error = self._both[0].reshape(-1)
        least, most = error.argmin(), error.argmax()
        low, high = -error[least], error[most]
        if max(low, high) >= sums.largest:
            at = min(least, most) if low == high else least if low > high else most
            sums.differs(float(max(low, high)), self._index(at))

    def _index(self, at: int) -> int:
        """The index in the pair of the element at `at` of the tile."""
        shape = self._pair.reference.shape
        inside = np.unravel_index(at, self._both[0].shape)
        place = [start + int(i) for start, i in zip(self._origin, inside, strict=True)]
        return int(np.ravel_multi_index(place, shape))


def _widen(array: Array, out: Array) -> None:
    """To float64. bfloat16 is the upper half of a float32, which is quicker than its own conversion."""
    if array.dtype.kind == "V":  # as NumPy has it for a dtype that is not its own
        bits = array.view(np.uint16).astype(np.uint32)
        bits <<= 16
        array = bits.view(np.float32)
    np.copyto(out, array)
