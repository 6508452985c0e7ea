"""How far one tensor is from another: three views, and where the worst element is. numpy only.

Only places with a real token are looked at: no padded row, and no padded key column.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.compare.layout import PLACES, Layout
from harness.compare.sums import Pair, measure
from harness.model import Views

Array = Any


@dataclass(frozen=True)
class Places:
    """Which tokens are real: `queries` (B T) and `keys` (B S), True for a real token."""

    queries: Array
    keys: Array

    def valid(self, axes: str) -> Array:
        """True where a tensor with `axes` holds a real token's number, broadcastable over the tensor."""
        letters = axes.split()
        mask = np.ones((1,) * len(letters), dtype=bool)
        for letter, real in (("T", self.queries), ("S", self.keys)):
            if letter in letters:
                batch, place = letters.index("B"), letters.index(letter)
                shape = [1] * len(letters)
                shape[batch], shape[place] = real.shape
                mask = mask & real.reshape(shape)
        return mask


def counts(shape: tuple[int, ...], axes: str, places: Places) -> Views:
    """How many elements the norm of each view is taken over: all, in the shortest row, in a channel."""
    letters = axes.split()
    placed = [size if letter in PLACES else 1 for size, letter in zip(shape, letters, strict=True)]
    valid = np.broadcast_to(places.valid(axes), placed)
    rows = valid.sum(axis=tuple(i for i, letter in enumerate(letters) if letter not in "BT"))
    channels = math.prod(shape) // math.prod(placed)
    whole = float(valid.sum())
    return Views(whole * channels, float(np.min(rows[rows > 0])) * channels, whole)


@dataclass(frozen=True)
class Apart:
    """How far a tensor is from another, and where.

    rows, channels: sums of squares of the error, and of the reference: (2 B T), and (2, channels)
    largest: the largest absolute error; at: where it is first
    strange: how many are NaN or infinite, and not the same in both; first: the first of them
    finite: how many numbers there are to compare
    """

    rows: Array
    channels: Array
    largest: float
    at: tuple[int, ...]
    strange: int
    first: tuple[int, ...]
    finite: int

    def views(self, least: float = 0.0) -> Views:
        """As `views` has it."""
        return relative(self.rows, self.channels, least)


def relative(rows: Array, channels: Array, least: float = 0.0) -> Views:
    """As `views` has it, from sums of squares of the error, and of the reference."""
    (row_error, row_reference), (channel_error, channel_reference) = rows, channels
    with np.errstate(divide="ignore", invalid="ignore"):
        return Views(
            whole=_ratio(row_error.sum(keepdims=True), row_reference.sum(keepdims=True)),
            row=_ratio(row_error, _at_least(row_reference, least)),
            channel=_ratio(channel_error, _at_least(channel_reference, least)),
        )


def apart(port: Array, recorded: Array, axes: str, places: Places, atol: float = 0.0) -> Apart:
    """Hold two tensors of one shape against each other. atol: elements that differ by no more count as equal."""
    return _apart(port, recorded, axes, places, subtract=True, atol=atol)


def views(error: Array, reference: Array, axes: str, places: Places, least: float = 0.0) -> Views:
    """The relative L2 of `error` against `reference` over the tensor, its worst row and its worst channel.

    A row is a token: all that a tensor holds for one (b, t). A channel is all that it holds for one index of the
    axes that are no place: one of O, one (h, d), one head. An error where the reference is all zero is infinite.
    Elements that overflowed are left out: whether they are the same ones is compared by itself.
    least: a row or channel that is smaller than this share of the median one counts as if it were that large. What is
        left where rounding cancels is noise, and says nothing of how large an error is
    """
    error = np.broadcast_to(error, reference.shape)
    return _apart(error, reference, axes, places, subtract=False).views(least)


def _apart(
    first: Array, reference: Array, axes: str, places: Places, subtract: bool, atol: float = 0.0
) -> Apart:
    shape, layout = reference.shape, Layout.of(axes, reference.shape)
    first, reference = first.reshape(layout.shape), reference.reshape(layout.shape)
    rows, keys = real(layout, places)
    sums = measure(Pair(first, reference, rows, keys, subtract, atol))
    there = rows.sum() * layout.shape[-1] if keys is None else rows.sum(axis=1) @ keys.sum(axis=1)
    return Apart(
        rows=layout.rows(sums.over_inner),
        channels=layout.channels(sums.over_inner, sums.over_middle),
        largest=sums.largest,
        at=_index(sums.at, shape),
        strange=sums.strange,
        first=_index(sums.first, shape),
        finite=int(there) - sums.lost,
    )


def real(layout: Layout, places: Places) -> tuple[Array, Array | None]:
    """Which of `outer` and `middle`, and which of `outer` and `inner`, are those of real tokens; None for all."""

    def valid(letters: Sequence[str], sizes: tuple[int, ...], *shape: int) -> Array:
        return np.broadcast_to(places.valid(" ".join(letters)), sizes).reshape(shape)

    outer, middle, inner = layout.shape
    before, lead = layout.before, layout.lead
    rows = valid(layout.letters[:lead], layout.sizes[:lead], outer, middle)
    if not layout.has_keys:
        return rows, None
    return rows, valid([*layout.letters[:before], "S"], (*layout.sizes[:before], inner), outer, inner)


def _index(at: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(at, shape)) if math.prod(shape) else ()


def _at_least(powers: Array, share: float) -> Array:
    """Powers of rows or channels, none below the square of a share of the median one; padded rows have none."""
    powers = np.asarray(powers)
    there = powers[powers > 0]
    return np.maximum(powers, share**2 * _median(there)) if share and there.size else powers


def _median(numbers: Array) -> float:
    """As `np.median` has it, in a fifth of the time where there are few."""
    middle = [(numbers.size - 1) // 2, numbers.size // 2]
    return float(np.partition(numbers, middle)[middle].mean())


def _ratio(squares: Array, powers: Array) -> float:
    """The root of the largest; where both are zero, they are alike."""
    ratios = np.divide(squares, powers, out=np.zeros(squares.shape), where=squares != 0)
    return float(np.sqrt(ratios.max(initial=0.0)))
