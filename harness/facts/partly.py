"""A parameter that is right in part: which rows or columns are not, and what they hold."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from harness.diagnose.fits import spans
from harness.facts.compared import Compared, cast, numbers
from harness.facts.fingerprint import bits, same
from harness.facts.layer import is_same_in_another_layer
from harness.facts.mistake import Mistake

Array = Any

_FEW = 0.5
"""Up to this share of the rows or columns, what is wrong is told by which ones."""
_NEAR = 0.1
"""Up to this distance, relative to the right numbers, what is there is told to be like them."""


@dataclass(frozen=True)
class Differing:
    """Where port and reference are not bit by bit the same.

    rows, columns: which of them hold a wrong number; of vectors, which numbers are wrong, and nothing
    zero: whether all wrong numbers are zero; small: whether those should have been too small to be normal
    strange: how many are NaN or infinite in the port only
    gap, largest: the largest difference, and its place; squares, powers: of all differences, and of the right numbers
    """

    count: int
    rows: Array
    columns: Array
    zero: bool
    small: bool
    strange: int
    gap: float
    largest: tuple[int, ...]
    squares: float
    powers: float

    @classmethod
    def of(cls, c: Compared) -> Self:
        parts, start = [], 0
        for ours, theirs, _ in c.blocks():
            parts.append(cls._of_block(np.atleast_1d(ours), np.atleast_1d(theirs), start))
            start += len(parts[-1].rows)
        worst = max(parts, key=lambda part: part.gap)
        return cls(
            count=sum(part.count for part in parts),
            rows=np.concatenate([part.rows for part in parts]),
            columns=np.any([part.columns for part in parts], axis=0),
            zero=all(part.zero for part in parts),
            small=all(part.small for part in parts),
            strange=sum(part.strange for part in parts),
            gap=worst.gap,
            largest=worst.largest,
            squares=sum(part.squares for part in parts),
            powers=sum(part.powers for part in parts),
        )

    @classmethod
    def _of_block(cls, ours: Array, theirs: Array, start: int) -> Self:
        """start: how many rows there are before these."""
        differs = bits(ours) != bits(theirs)
        a, b = ours.astype(np.float64), theirs.astype(np.float64)
        with np.errstate(invalid="ignore"):
            gaps = np.where(differs, np.nan_to_num(np.abs(a - b), nan=np.inf), 0.0)
        row, *rest = (int(n) for n in np.unravel_index(int(gaps.argmax()), gaps.shape))
        return cls(
            count=int(np.count_nonzero(differs)),
            rows=differs.reshape(len(differs), -1).any(axis=1),
            columns=differs.any(axis=0) if differs.ndim == 2 else np.zeros(0, bool),
            zero=not a[differs].any(),
            small=bool((np.abs(b[differs]) < np.finfo(np.float32).tiny).all()),
            strange=int(np.count_nonzero(np.isfinite(b) & ~np.isfinite(a))),
            gap=float(gaps.max()) if differs.any() else -1.0,
            largest=(row + start, *rest),
            squares=float(np.sum(gaps**2)),
            powers=float(np.sum(b**2)),
        )

    @property
    def flushed(self) -> bool:
        """Numbers that are not normal are zero, as accelerators have them; float16's own are larger, and are kept."""
        return bool(self.count) and self.zero and self.small

    @property
    def distance(self) -> float:
        """Of all numbers, relative to the right ones."""
        return float(np.sqrt(self.squares / self.powers)) if self.powers else np.inf

    def told(self, c: Compared) -> str:
        """How many numbers are wrong, and the one that is furthest off."""
        ours, theirs = (float(np.atleast_1d(x)[self.largest]) for x in (c.ours, c.theirs))
        strange = f", {self.strange:,} of them NaN or infinite" if self.strange else ""
        differ = "differs" if self.count == 1 else "differ"
        return (
            f"{self.count:,} of {numbers(c.theirs.size)} {differ}{strange}, "
            f"most at {list(self.largest)}: port {ours:.9g}, reference {theirs:.9g}"
        )

    def part(self, c: Compared) -> Mistake | None:
        """A parameter that is right in part."""
        if self.count == 1:
            place = list(self.largest)
            return Mistake(("one_element",), f"one number is wrong, at {place}; all others are right")
        rows = ("numbers" if c.is_vector else "rows", self.rows, 0)
        for noun, wrong_ones, axis in (rows, ("columns", self.columns, 1)):
            if wrong_ones.size and not wrong_ones.all():
                found = self._lines(c, noun, wrong_ones, axis)
                if found:
                    return found
        if self.zero and not c.is_vector:
            return Mistake(
                ("zeroed",), f"{self.count:,} of {numbers(c.theirs.size)} are zero, the others right"
            )
        if self.distance <= _NEAR:
            text = f"like the right numbers, {self.distance:.2g} of their size away: rounded, or trained on"
            return Mistake((), text)
        return None

    def _lines(self, c: Compared, noun: str, wrong_ones: Array, axis: int) -> Mistake | None:
        """What the wrong rows or columns hold, if it can be told."""
        which = f"{noun} {spans(np.flatnonzero(wrong_ones))} of {wrong_ones.size}"
        there = np.compress(wrong_ones, c.ours, axis=axis)
        if (there == there.reshape(-1)[0]).all():
            value = float(there.reshape(-1)[0])
            told = "zero" if value == 0 else f"{value:g}"
            return Mistake(("partly_loaded",), f"{which} are {told}: loaded in part")
        source = None if c.is_vector else _source(c, wrong_ones, there, axis)
        if source is not None:
            return Mistake(("stale_shard",), f"{which} are those of {source}: loaded in part")
        if wrong_ones.mean() <= _FEW:
            return Mistake((), f"only {which} {'are' if wrong_ones.sum() > 1 else 'is'} wrong")
        return None


def _source(c: Compared, wrong_ones: Array, there: Array, axis: int) -> str | None:
    """Another tensor of the checkpoint that holds these rows or columns at the same places; another layer's first."""
    alike = [name for name in c.weights if name != c.name and c.weights[name].shape == c.theirs.shape]
    probe = np.flatnonzero(wrong_ones)[:1]
    for name in sorted(alike, key=lambda other: not is_same_in_another_layer(c.name, other)):
        first = cast(np.take(c.weights[name], probe, axis=axis), c.dtype)
        if not same(first, np.take(there, [0], axis=axis)):
            continue
        if same(cast(np.compress(wrong_ones, c.weights[name], axis=axis), c.dtype), there):
            return name
    return None
