"""Sums of squares of errors, and of what they are relative to, as they come in tile by tile.

What `harness.compare.sums` finds, without the element that differs most: a floor has none. numpy only: its operations
start no threads, and tiles are worked on side by side.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.compare.layout import PLACES
from harness.compare.metrics import Places, relative
from harness.model import Views
from harness.record.tiles import rows_of

Array = Any


@dataclass(frozen=True)
class Found:
    """Of one tile: sums of squares over each token, (2 errors B T), and each channel, (2 errors ...): of errors, and of
    what each is relative to.
    """

    rows: Array
    channels: Array


class Tally:
    """Errors of one component at some tokens. positions: of its rows among those that are evaluated, in order."""

    def __init__(self, shape: tuple[int, ...], axes: str, places: Places, positions: Sequence[int]) -> None:
        sizes = dict(zip(axes.split(), shape, strict=True))
        self.axes, self._positions = axes, positions
        self._rows = tuple(sizes[letter] for letter in axes.split() if letter in "BT")
        self._channels = tuple(sizes[letter] for letter in axes.split() if letter not in PLACES)
        real = places.valid(axes)
        placed = [size if letter in PLACES else 1 for letter, size in sizes.items()]
        self._padded = None if real.all() else ~np.broadcast_to(real, placed)
        self._sums: dict[str, Found] = {}

    def among(self, tile: slice) -> slice:
        """Which rows are in a tile of what is evaluated."""
        return slice(bisect_left(self._positions, tile.start), bisect_left(self._positions, tile.stop))

    def picked(self, tile: slice, rows: slice) -> list[int] | None:
        """Where these rows are in the tile; None if they are all of it."""
        if rows.stop - rows.start == tile.stop - tile.start:
            return None
        return [position - tile.start for position in self._positions[rows]]

    def found(self, errors: Array, rows: slice, squares: int = 0) -> Found:
        """errors: what they are relative to, and behind it the errors, float64; overwritten. squares: how many at the
        end are squares already. Where an error overflowed, or what it is relative to, neither counts.
        """
        plain = errors[: len(errors) - squares]
        with np.errstate(invalid="ignore", over="ignore"):
            np.square(plain, out=plain)
            if self._padded is not None:
                padded = rows_of(self._padded, self.axes, rows)
                np.copyto(errors, 0.0, where=padded)
            by_row, by_channel = self._summed(errors)
            if np.isfinite(by_row.sum()):
                return Found(_against_first(by_row), _against_first(by_channel))
            each = [self._both(errors[0], error) for error in errors[1:]]
        by_row, by_channel = (np.stack(sums, 1) for sums in zip(*each, strict=True))
        return Found(by_row, by_channel)

    def _both(self, reference: Array, error: Array) -> tuple[Array, Array]:
        both = np.stack([error, reference])
        np.copyto(both, 0.0, where=~np.isfinite(both).all(axis=0))
        return self._summed(both)

    def _summed(self, squares: Array) -> tuple[Array, Array]:
        letters = self.axes.split()
        if letters[-1] == "S":  # nothing is kept of a key
            letters, squares = letters[:-1], np.add.reduce(squares, axis=-1)
        axes = [axis for axis, letter in enumerate(letters, 1) if letter not in "BT"]
        others = [axis for axis, letter in enumerate(letters, 1) if letter in PLACES]
        return np.add.reduce(squares, axis=tuple(axes)), np.add.reduce(squares, axis=tuple(others))

    def add(self, group: str, found: Found, rows: slice, part: slice) -> None:
        """Errors of a group are always the same ones."""
        if group not in self._sums:
            errors = found.rows.shape[1]
            self._sums[group] = Found(
                np.zeros((2, errors, *self._rows)), np.zeros((2, errors, *self._channels))
            )
        self._sums[group].rows[..., rows] += found.rows
        self._sums[group].channels[..., part] += found.channels

    def views(self, group: str) -> list[Views]:
        """Of each error of a group."""
        if group not in self._sums:
            return []
        sums = self._sums[group]
        return [relative(sums.rows[:, n], sums.channels[:, n]) for n in range(sums.rows.shape[1])]


def _against_first(sums: Array) -> Array:
    """Sums of errors, and those of the first for each of them."""
    return np.stack([sums[1:], np.broadcast_to(sums[:1], sums[1:].shape)])
