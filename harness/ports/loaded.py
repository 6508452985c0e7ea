"""A model's parameters, in memory when a part of it is run: not all of them need fit there together."""

import math
from collections.abc import Collection, Iterator, Mapping
from copy import copy
from typing import Any, Self

import jax.numpy as jnp

Array = Any

KEPT = 2 << 30
"""So many bytes of parameters stay in memory for the next part that needs them. A part that needs more has more."""


class Loaded(Mapping[str, Array]):
    """Parameters by path. Each is read when it is asked for, and kept until others need its place.

    variables: from where they are read; shapes: of each, shape and dtype, without reading any
    """

    def __init__(self, variables: Mapping[str, Array], shapes: Mapping[str, Any]) -> None:
        self.shapes = shapes
        self._variables = variables
        self._sizes = {name: math.prod(each.shape) * each.dtype.itemsize for name, each in shapes.items()}
        self._changed: dict[str, Array] = {}
        self._held: dict[str, Array] = {}

    def of(self, names: Collection[str]) -> dict[str, Array]:
        """These, together. Where they and what is kept are too much, what is not among them is forgotten first."""
        missing = [name for name in names if name not in self._held]
        if missing and sum(self._sizes[name] for name in [*self._held, *missing]) > KEPT:
            self._held = {name: self._held[name] for name in names if name in self._held}
        for name in missing:
            value = self._changed[name] if name in self._changed else self._variables[name]
            self._held[name] = jnp.asarray(value)
        return {name: self._held[name] for name in names}

    def replaced(self, changed: Mapping[str, Array]) -> Self:
        """With other values in place of some; the rest is shared."""
        twin = copy(self)
        twin._changed = {**self._changed, **changed}
        twin._held = {name: value for name, value in self._held.items() if name not in changed}
        return twin

    def __getitem__(self, name: str) -> Array:
        return self.of([name])[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)
