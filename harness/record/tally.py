"""Sums of squares of errors, and of what they are relative to, as they come in tile by tile.

What `harness.compare.sums` finds, without the element that differs most: a floor has none. numpy only, and a compiled
loop for large tiles.
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.compare.layout import PLACES, Layout
from harness.compare.metrics import Places, real, relative
from harness.model import Views
from harness.record.loops import FEW, loops
from harness.record.tiles import rows_of

Array = Any
Numbers = tuple[Array, Array, Array, Array]
"""What errors are relative to, what was seen of it, distances, and variances."""
Sums = tuple[Array, Array]
"""Of squares over tokens, (2 errors B T), and channels, (2 errors ...): of errors, and of what each is relative to."""


class Tally:
    """Errors of one component at some tokens. positions: of its rows among those that are evaluated, in order."""

    def __init__(self, shape: tuple[int, ...], axes: str, places: Places, positions: Sequence[int]) -> None:
        sizes = dict(zip(axes.split(), shape, strict=True))
        self.axes, self._positions = axes, positions
        self._rows = tuple(sizes[letter] for letter in axes.split() if letter in "BT")
        self._channels = tuple(sizes[letter] for letter in axes.split() if letter not in PLACES)
        there = places.valid(axes)
        placed = [size if letter in PLACES else 1 for letter, size in sizes.items()]
        self._places = places  # for the loop; and for numpy, the same:
        self._padded = None if there.all() else ~np.broadcast_to(there, placed)
        self._sums: dict[str, Sums] = {}

    def among(self, tile: slice) -> slice:
        """Which rows are in a tile of what is evaluated."""
        return slice(bisect_left(self._positions, tile.start), bisect_left(self._positions, tile.stop))

    def picked(self, tile: slice, rows: slice) -> list[int] | None:
        """Where these rows are in the tile; None if they are all of it."""
        if rows.stop - rows.start == tile.stop - tile.start:
            return None
        return [position - tile.start for position in self._positions[rows]]

    def add(
        self,
        group: str,
        rows: slice,
        part: slice,
        right: Array,
        seen: Array,
        moved: Array | None = None,
        variance: Array | None = None,
    ) -> None:
        """Errors of a group, always the same ones: seen - right, each of moved, (N ...), and what has this variance.

        Where an error overflowed, or what it is relative to, neither counts. right, variance: float64; seen, moved:
        float32. rows, part: of the tokens, and of the last channels.
        """
        numbers = (
            right,
            seen,
            np.empty((0, *right.shape), np.float32) if moved is None else moved,
            np.empty((0, *right.shape)) if variance is None else variance[None],
        )
        by_row, by_channel = self._found(numbers, rows)
        if group not in self._sums:
            count = by_row.shape[1]
            self._sums[group] = np.zeros((2, count, *self._rows)), np.zeros((2, count, *self._channels))
        over_rows, over_channels = self._sums[group]
        over_rows[..., rows] += by_row
        over_channels[..., part] += by_channel

    def _found(self, numbers: Numbers, rows: slice) -> Sums:
        with np.errstate(invalid="ignore", over="ignore"):
            sums = (
                self._compiled(numbers, rows)
                if numbers[0].size > FEW
                else self._summed(self._squares(numbers, rows))
            )
            if np.isfinite(sums[0].sum()):
                by_row, by_channel = map(_against_first, sums)
                return by_row, by_channel
            squares = self._squares(numbers, rows)
            each = [self._both(squares[0], error) for error in squares[1:]]
        by_row, by_channel = (np.stack(sums, 1) for sums in zip(*each, strict=True))
        return by_row, by_channel

    def _compiled(self, numbers: Numbers, rows: slice) -> tuple[Array, Array]:
        layout = Layout.of(self.axes, numbers[0].shape)
        outer, middle, inner = layout.shape
        there, keys = real(layout, Places(self._places.queries[:, rows], self._places.keys))
        keys = np.broadcast_to(True if keys is None else keys, (outer, inner))
        right, seen = (np.ascontiguousarray(each).reshape(layout.shape) for each in numbers[:2])
        moved, variance = (np.ascontiguousarray(each).reshape(-1, *layout.shape) for each in numbers[2:])
        real_places = (np.array(each, order="C") for each in (there, keys))
        count = 2 + len(moved) + len(variance)
        over_inner, over_middle = np.zeros((count, outer, middle)), np.zeros((count, outer, inner))
        loops().sum_up(right, seen, moved, variance, *real_places, over_inner, over_middle)
        return layout.rows(over_inner), layout.channels(over_inner, over_middle)

    def _squares(self, numbers: Numbers, rows: slice) -> Array:
        """Of what errors are relative to, and behind it of the errors."""
        right, seen, moved, variance = numbers
        squares = np.empty((2 + len(moved) + len(variance), *right.shape))
        squares[0], squares[1] = right, seen - right
        squares[2 : 2 + len(moved)] = moved
        plain = squares[: 2 + len(moved)]
        np.square(plain, out=plain)
        squares[2 + len(moved) :] = variance
        if self._padded is not None:
            np.copyto(squares, 0.0, where=rows_of(self._padded, self.axes, rows))
        return squares

    def _both(self, right: Array, error: Array) -> tuple[Array, Array]:
        both = np.stack([error, right])
        np.copyto(both, 0.0, where=~np.isfinite(both).all(axis=0))
        return self._summed(both)

    def _summed(self, squares: Array) -> tuple[Array, Array]:
        letters = self.axes.split()
        if letters[-1] == "S":  # nothing is kept of a key
            letters, squares = letters[:-1], np.add.reduce(squares, axis=-1)
        axes = [axis for axis, letter in enumerate(letters, 1) if letter not in "BT"]
        others = [axis for axis, letter in enumerate(letters, 1) if letter in PLACES]
        return np.add.reduce(squares, axis=tuple(axes)), np.add.reduce(squares, axis=tuple(others))

    def views(self, group: str) -> list[Views]:
        """Of each error of a group."""
        if group not in self._sums:
            return []
        rows, channels = self._sums[group]
        return [relative(rows[:, n], channels[:, n]) for n in range(rows.shape[1])]


def _against_first(sums: Array) -> Array:
    """Sums of errors, and those of the first for each of them."""
    return np.stack([sums[1:], np.broadcast_to(sums[:1], sums[1:].shape)])
