"""What is drawn: an input as a few numbers, and the strategy that finds and shrinks it. Imports nothing heavy.

A row's tokens follow from its place and one number, and a shorter row begins as the longer one does. So Hypothesis
shrinks a handful of numbers instead of hundreds, and what fails at some length mostly fails at every greater one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.inputs import CaseInputs, Padding, Rows, assemble, draw_rows

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn, SearchStrategy

_STARTS = (0, 0, 3, 300, 5_000)
"""Positions up to which inputs start, beside the farthest there is: most start at 0, as most prompts do."""
_PADDINGS: tuple[Padding, ...] = ("none", "left", "right", "left", "right")
_SEEDS = 2**16
_APART, _ODD = 4, 3
"""How much longer each usual length is than the one before: few, since a port compiles each one anew. One length in
_ODD + 1 is any other."""


@dataclass(frozen=True)
class Bounds:
    """What may be drawn. tokens: of all rows together, padding counted; positions: how many there are."""

    vocab_size: int
    tokens: int
    rows: int
    positions: int


@dataclass(frozen=True)
class Drawn:
    """One input. rows: token ids; start: the position of each row's first real token; padding is token 0."""

    rows: tuple[tuple[int, ...], ...]
    padding: Padding = "none"
    start: int = 0

    @property
    def length(self) -> int:
        """Tokens of the longest row."""
        return max(len(row) for row in self.rows)

    @property
    def says(self) -> str:
        lengths = [str(len(row)) for row in self.rows]
        told = f"{', '.join(lengths[:-1])} and {lengths[-1]}" if len(lengths) > 1 else lengths[0]
        rows = "1 row of" if len(lengths) == 1 else f"{len(lengths)} rows of"
        tokens = "token" if lengths == ["1"] else "tokens"
        padding = "no padding" if self.padding == "none" else f"padding on the {self.padding}"
        return f"{rows} {told} {tokens}, {padding}, from position {self.start}"

    def case(self, name: str, vocab_size: int) -> CaseInputs:
        return assemble(name, "randomized", self.says, Rows(self.rows, self.padding, self.start), vocab_size)


def drawn(bounds: Bounds) -> "SearchStrategy[Drawn]":
    """Inputs within `bounds`. Shrinks towards one short row at position 0, of tokens counted up from 0."""
    from hypothesis import strategies as st

    @st.composite
    def inputs(draw: "DrawFn") -> Drawn:
        several = range(2, min(bounds.rows, bounds.tokens) + 1)
        batch = draw(st.sampled_from((1, *several, *several)))
        padding: Padding = draw(st.sampled_from(_PADDINGS)) if batch > 1 else "none"
        bound = draw(st.sampled_from(_lengths(bounds.tokens // batch)))
        usual = draw(st.integers(0, _ODD)) < _ODD
        longest = bound if usual else draw(st.integers(1, bound))
        others = [longest if padding == "none" else draw(st.integers(1, longest)) for _ in range(batch - 1)]
        seed = draw(st.integers(0, _SEEDS - 1))
        most = max(bounds.positions - longest, 0)
        start = draw(st.integers(0, min(draw(st.sampled_from((*_STARTS, most))), most)))
        rows = (
            _tokens(seed, row, length, bounds.vocab_size) for row, length in enumerate([longest, *others])
        )
        return Drawn(tuple(rows), padding, start)

    return inputs()


def _lengths(most: int) -> Sequence[int]:
    """From short to `most`, which is there twice: what is rare is mostly so in long inputs."""
    found = [most]
    while most > 1:
        found.append(most)
        most //= _APART
    return (*reversed(found),) or (1,)


def _tokens(seed: int, row: int, length: int, vocab_size: int) -> tuple[int, ...]:
    """Counted up from the row's number where the seed is 0; else as randomized cases are drawn."""
    if seed == 0:
        return tuple((row + place) % vocab_size for place in range(length))
    return tuple(draw_rows(seed + row * _SEEDS, vocab_size, 1, length, length, "none")[0])
