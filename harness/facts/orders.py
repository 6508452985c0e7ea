"""A parameter that holds the right rows, columns or numbers in another order."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.facts.compared import Compared
from harness.facts.fingerprint import bits, blocks, same
from harness.facts.mistake import Mistake

Array = Any


@dataclass(frozen=True)
class Lines:
    """The rows of two tensors, or their columns, or the numbers of two vectors.

    noun: one of them; ours, theirs: tensors whose first axis they are
    """

    noun: str
    ours: Array
    theirs: Array

    def __len__(self) -> int:
        return len(self.theirs)

    def hold(self, order: Array) -> bool:
        """Whether line i of ours is line order[i] of theirs."""
        probes = np.unique(np.linspace(0, len(self) - 1, 8).astype(int))
        if not np.array_equal(bits(self.ours[probes]), bits(self.theirs[order[probes]])):
            return False
        start = 0
        for block in blocks(self.ours):
            if not np.array_equal(bits(block), bits(self.theirs[order[start : start + len(block)]])):
                return False
            start += len(block)
        return True

    def found(self) -> Array | None:
        """For each line of ours, which one of theirs it is, each once; None if there is no such order."""
        places: dict[int, list[int]] = {}
        for place in range(len(self) - 1, -1, -1):
            places.setdefault(hash(self.theirs[place].tobytes()), []).append(place)
        order = np.empty(len(self), int)
        for place in range(len(self)):
            left = places.get(hash(self.ours[place].tobytes()))
            if not left:
                return None
            order[place] = left.pop()
        return order if self.hold(order) else None


def reordered(c: Compared) -> Mistake | None:
    for lines in _lines(c):
        order = lines.found()
        if order is not None:
            return _named(c, lines, order)
    return _shifted_without_wrapping(c) or _sorted(c)


def _lines(c: Compared) -> Iterator[Lines]:
    """Those that may be in another order: across them, one number of each has to be, too."""
    if c.is_vector:
        yield Lines("number", c.ours.reshape(-1), c.theirs.reshape(-1))
        return
    if _alike(c.ours.reshape(len(c.ours), -1)[:, 0], c.theirs.reshape(len(c.ours), -1)[:, 0]):
        yield Lines("row", c.ours, c.theirs)
    if c.theirs.ndim == 2 and _alike(c.ours[0], c.theirs[0]):
        yield Lines("column", np.ascontiguousarray(c.ours.T), np.ascontiguousarray(c.theirs.T))


def _alike(ours: Array, theirs: Array) -> bool:
    """Whether two vectors hold the same numbers, in whatever order."""
    return np.array_equal(np.sort(bits(ours)), np.sort(bits(theirs)))


def _named(c: Compared, lines: Lines, order: Array) -> Mistake:
    """order: one that holds; where lines are alike, it need not be the one that was meant."""
    for name, text, candidate in _orders(c, lines, order):
        if lines.hold(candidate):
            return Mistake((name,), text)
    moved = int(np.flatnonzero(order != np.arange(len(order)))[0])
    first = f"{lines.noun} {moved} holds what belongs to {order[moved]}"
    size = c.head_dim
    if size and len(order) % size == 0 and _by_heads(order, size):
        head = f"head {moved // size} holds what belongs to {order[moved] // size}"
        return Mistake(("heads_permuted",), f"the right heads in another order: {head}")
    return Mistake((f"{lines.noun}s_permuted",), f"the right {lines.noun}s in another order: {first}")


def _orders(c: Compared, lines: Lines, order: Array) -> Iterator[tuple[str, str, Array]]:
    """The orders that mistakes have, by name."""
    noun, count = lines.noun, len(lines)
    places = np.arange(count)
    yield from _orders_of_heads(c, noun, places)
    yield f"{noun}s_reversed", f"{noun}s in reverse order", places[::-1]
    by = int(order[0])
    shift = f"{noun}s shifted by {min(by, count - by)}: {noun} 0 holds what belongs to {by}"
    if noun == "row" and "embed" in c.name and by in (1, count - 1):
        name = "ids_shifted_up" if by == 1 else "ids_shifted_down"
        yield name, shift, (places + by) % count
    yield f"{noun}s_shifted", shift, (places + by) % count
    if noun == "number":
        yield "values_sorted", "the right numbers, sorted", np.argsort(lines.theirs, kind="stable")


def _orders_of_heads(c: Compared, noun: str, places: Array) -> Iterator[tuple[str, str, Array]]:
    """Where the head size is not known, any one that fits."""
    count = len(places)
    what = "inputs" if noun == "column" else "outputs"
    sizes = [c.head_dim] if c.head_dim else range(2, count + 1, 2)
    for size in sizes:
        if size % 2 or count % size:
            continue
        pairs, heads = places.reshape(-1, 2, size // 2), places.reshape(-1, size)
        text = f"{what} of each head permuted for interleaved RoPE"
        yield "rows_interleaved", text, pairs.swapaxes(1, 2).reshape(-1)
        text = f"{what} of each head permuted back from interleaved RoPE"
        yield "rows_deinterleaved", text, places.reshape(-1, size // 2, 2).swapaxes(1, 2).reshape(-1)
        if 1 < len(heads) < count:
            text = f"{what} ordered by head size before heads (D H instead of H D)"
            yield "heads_dim_major", text, heads.T.reshape(-1)
            text = f"{what} split as (D H) and merged as (H D)"
            yield "heads_dim_major", text, places.reshape(size, -1).T.reshape(-1)
            yield "heads_reversed", "the right heads, from last to first", heads[::-1].reshape(-1)


def _by_heads(order: Array, size: int) -> bool:
    heads = order.reshape(-1, size)
    return bool((heads == heads[:, :1] + np.arange(size)).all() and (heads[:, 0] % size == 0).all())


def _shifted_without_wrapping(c: Compared) -> Mistake | None:
    """Rows that were pushed out at one end, and something else at the other."""
    if c.is_vector or len(c.ours) < 4:
        return None
    for name, ours, theirs, text in (
        ("ids_shifted_down", c.ours[1:], c.theirs[:-1], "each row holds what belongs to the row before"),
        ("ids_shifted_up", c.ours[:-1], c.theirs[1:], "each row holds what belongs to the row after"),
    ):
        if same(ours[:1], theirs[:1]) and same(ours, theirs):
            return Mistake((name if "embed" in c.name else "rows_shifted",), text)
    return None


def _sorted(c: Compared) -> Mistake | None:
    """All numbers of a matrix, from the smallest to the largest."""
    flat = c.ours.reshape(-1)
    if c.is_vector or not all((block[1:] >= block[:-1]).all() for block in blocks(flat)):
        return None
    if not same(flat, np.sort(c.theirs.reshape(-1))):
        return None
    return Mistake(("values_sorted",), "the right numbers, sorted")
