"""What an exact chain has somewhere, and how far the disturbed ones are from it."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Spread:
    """exact: (B ...), float64; moved: how far the others are from it, (draws B ...), float32; None where none is."""

    exact: Tensor
    moved: Tensor | None = None

    def several(self) -> Tensor:
        """Of the disturbed chains, in float64: (draws B ...)."""
        return self.exact if self.moved is None else self.exact + self.moved

    def chain(self, number: int) -> Tensor:
        """Of one of them."""
        return self.exact if self.moved is None else self.exact + self.moved[number]

    def at(self, rows: list[int] | None, axes: str) -> "Spread":
        """Of some rows; None for all."""
        if rows is None:
            return self
        axis, places = axes.split().index("T"), torch.tensor(rows)
        moved = None if self.moved is None else self.moved.index_select(axis + 1, places)
        return Spread(self.exact.index_select(axis, places), moved)


def beside(parts: list[Spread]) -> Spread:
    """Parts of outputs."""
    if len(parts) == 1:
        return parts[0]
    moved = [part.moved for part in parts if part.moved is not None]
    exact = torch.cat([part.exact for part in parts], dim=-1)
    return Spread(exact, torch.cat(moved, dim=-1) if moved else None)
