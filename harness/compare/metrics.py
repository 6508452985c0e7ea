"""How far one tensor is from another: three views, and where the worst element is. numpy only.

Only places with a real token are looked at: no padded row, and no padded key column.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

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
    valid = np.broadcast_to(places.valid(axes), shape)
    rows = valid.sum(axis=tuple(i for i, letter in enumerate(letters) if letter not in "BT"))
    channels = valid.sum(axis=tuple(i for i, letter in enumerate(letters) if letter in "BTS"))
    return Views(float(valid.sum()), float(np.min(rows[rows > 0])), float(np.min(channels)))


def views(error: Array, reference: Array, axes: str, places: Places, least: float = 0.0) -> Views:
    """The relative L2 of `error` against `reference` over the tensor, its worst row and its worst channel.

    A row is a token: all that a tensor holds for one (b, t). A channel is all that it holds for one index of the
    axes that are no place: one of O, one (h, d), one head. An error where the reference is all zero is infinite.
    Elements that overflowed are left out: whether they are the same ones is compared by itself.
    least: a row or channel that is smaller than this share of the median one counts as if it were that large. What is
        left where rounding cancels is noise, and says nothing of how large an error is
    """
    letters = axes.lower().split()
    valid = places.valid(axes)
    if not valid.all():
        error, reference = np.where(valid, error, 0.0), np.where(valid, reference, 0.0)
    rows = "".join(letter for letter in letters if letter in "bt")
    channels = "".join(letter for letter in letters if letter not in "bts")

    def power(tensor: Array, kept: str) -> Array:
        return np.einsum(f"{''.join(letters)},{''.join(letters)}->{kept}", tensor, tensor, dtype=np.float64)

    found = [(power(error, kept), power(reference, kept)) for kept in (rows, channels)]
    if not all(np.isfinite(total).all() for pair in found for total in pair):
        finite = np.isfinite(error) & np.isfinite(reference)
        return views(np.where(finite, error, 0.0), np.where(finite, reference, 0.0), axes, places, least)
    (row_error, row_reference), (channel_error, channel_reference) = found
    return Views(
        whole=_relative(row_error.sum(), row_reference.sum()),
        row=_relative(row_error, _at_least(row_reference, least)),
        channel=_relative(channel_error, _at_least(channel_reference, least)),
    )


def _at_least(powers: Array, share: float) -> Array:
    """Powers of rows or channels, none below the square of a share of the median one; padded rows have none."""
    powers = np.asarray(powers)
    there = powers[powers > 0]
    return np.maximum(powers, share**2 * np.median(there)) if share and there.size else powers


def _relative(squares: Array, powers: Array) -> float:
    squares, powers = np.atleast_1d(squares), np.atleast_1d(powers)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(squares == 0, 0.0, squares / powers)
    return float(np.sqrt(np.max(ratios, initial=0.0)))
