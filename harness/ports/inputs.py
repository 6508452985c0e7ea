"""What a component is given when it is run by itself: in the shapes that the program has, and all that it needs."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from harness.model import Component
from harness.ports.located import TapError
from harness.ports.program import Program, Slice, Variable
from harness.replay.port import Misshaped

Array = Any
Arrays = Mapping[str, Any]


def as_taken(value: Array, wanted: Any, name: str, argument: str) -> Array:
    """An input as the program takes it. Raises TapError for another layout, Misshaped for another size of an axis."""
    if len(value.shape) == len(wanted.shape) and sorted(value.shape) != sorted(wanted.shape):
        raise Misshaped(
            f"{name} takes {argument} as {tuple(wanted.shape)} in this model, and would be given {value.shape}: "
            "is a size in its configuration another one?"
        )
    if value.shape != wanted.shape:
        raise TapError(
            f"{name} takes {argument} as {tuple(wanted.shape)} in this model, and would be given {value.shape}: "
            "declare its layout in `takes`"
        )
    return value if value.dtype == wanted.dtype else value.astype(wanted.dtype)


def refuse_loose(program: Program, part: Slice, given: Collection[Variable], component: Component) -> None:
    """A component is what its inputs make it. Raises TapError where the model makes it of more.

    Where it makes it of less, the numbers tell.
    """
    inputs = {variable: name for name, variable in program.inputs.items()}
    loose = [inputs[leaf] for leaf in part.leaves if leaf in inputs and leaf not in given]
    if loose:
        raise TapError(
            f"{component.name} takes in {', '.join(component.inputs)}, but this model computes it from "
            f"{', '.join(loose)}: say in `takes` where these are"
        )


@dataclass(frozen=True)
class Lengths:
    """How many tokens a component is run on, and how many the pass must have: as many queries as keys."""

    batch: int
    queries: int
    keys: int

    @classmethod
    def of(cls, axes: Mapping[str, Sequence[str]], inputs: Arrays) -> Self:
        found = {
            letter: size
            for argument, value in inputs.items()
            for letter, size in zip(axes[argument], np.shape(value), strict=True)
        }
        return cls(found.get("B", 1), found.get("T", 1), found.get("S", found.get("T", 1)))

    @property
    def tokens(self) -> int:
        return max(self.queries, self.keys)

    def padded(self, value: Array, axes: Sequence[str]) -> Array:
        """With rows of zeros where the pass has more tokens than the component is run on."""
        widths = [
            (0, self.tokens - size if letter in "TS" else 0)
            for letter, size in zip(axes, value.shape, strict=True)
        ]
        return np.pad(value, widths) if any(after for _, after in widths) else value

    def cut(self, value: Array, axes: str) -> Array:
        """Without these rows."""
        if self.queries == self.keys:
            return value
        sizes = {"T": self.queries, "S": self.keys}
        return value[tuple(slice(sizes.get(letter)) for letter in axes.split())]
