"""A tensor's axes, brought down to the three that sums over rows and channels need. numpy only."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = Any

PLACES = "BTS"
"""Axes that say where in the input a number belongs; all others are channels."""


@dataclass(frozen=True)
class Layout:
    """A tensor as (outer, middle, inner), where its sums over `inner` and over `middle` are all that views need.

    Channels at the end are `inner`, and the places before them `middle`: over the one a token is summed, over the
    other a channel. Key columns at the end are `inner` too, and nothing is kept of each. Elsewhere `inner` is 1.
    """

    letters: Sequence[str]
    sizes: tuple[int, ...]
    before: int
    """How many axes are `outer`."""
    lead: int
    """How many are `outer` or `middle`."""

    @classmethod
    def of(cls, axes: str, sizes: tuple[int, ...]) -> "Layout":
        letters = axes.split()
        lead = len(letters)
        while lead and letters[lead - 1] not in PLACES:
            lead -= 1
        before = lead
        if lead < len(letters):
            while before and letters[before - 1] in PLACES:
                before -= 1
        elif letters[-1:] == ["S"] and "B" in letters[:-1]:
            lead -= 1
            before = letters.index("B") + 1
        return cls(letters, sizes, before, lead)

    @property
    def shape(self) -> tuple[int, int, int]:
        sizes, before, lead = self.sizes, self.before, self.lead
        return math.prod(sizes[:before]), math.prod(sizes[before:lead]), math.prod(sizes[lead:])

    @property
    def has_channels(self) -> bool:
        """Whether `inner` are channels."""
        return self.lead < len(self.letters) and self.letters[-1] not in PLACES

    @property
    def has_keys(self) -> bool:
        """Whether `inner` is a row of keys."""
        return self.lead < len(self.letters) and self.letters[-1] in PLACES

    def rows(self, over_inner: Array) -> Array:
        """Sums over `inner`, (N outer middle), to those of tokens: (N B T)."""
        return self._summed(over_inner, range(self.lead), "BT")

    def channels(self, over_inner: Array, over_middle: Array) -> Array:
        """Sums over `middle`, (N outer inner), to those of channels; over `inner` where those are no channels."""
        channels = "".join(letter for letter in self.letters if letter not in PLACES)
        if not self.has_channels:
            return self._summed(over_inner, range(self.lead), channels)
        return self._summed(
            over_middle, [*range(self.before), *range(self.lead, len(self.letters))], channels
        )

    def _summed(self, sums: Array, axes: Sequence[int], kept: str) -> Array:
        """Sums over (N axes), to those over the axes that are `kept`."""
        there = "".join(self.letters[axis].lower() for axis in axes)
        left = "".join(letter.lower() for letter in self.letters if letter in kept)
        return np.einsum(f"z{there}->z{left}", sums.reshape(len(sums), *(self.sizes[axis] for axis in axes)))
