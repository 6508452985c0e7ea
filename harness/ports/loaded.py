"""A model's parameters, in memory when a part of it is run: not all of them need fit there together."""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from functools import cache
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
        self._bytes = 0  # held
        self._coming: dict[str, Future[Array]] = {}

    def of(self, names: Collection[str]) -> dict[str, Array]:
        """These, together. Where they and what is kept are too much, what is not among them is forgotten first."""
        missing = [name for name in dict.fromkeys(names) if name not in self._held]
        if missing and self._bytes + self._size({*self._coming, *missing}) > KEPT:
            self._held = {name: self._held[name] for name in names if name in self._held}
            self._bytes = self._size(self._held)
        for name in missing:
            self._held[name] = self._changed[name] if name in self._changed else self._read(name)
            self._bytes += self._sizes[name]
        return {name: self._held[name] for name in names}

    def read_ahead(self, names: Collection[str]) -> None:
        """Begin to read what is going to be asked for, beside what is computed; not where it needs others' place."""
        for name in names:
            if name in self._held or name in self._changed or name in self._coming:
                continue
            if self._bytes + self._size([*self._coming, name]) <= KEPT:
                self._coming[name] = _reader().submit(self._variables.__getitem__, name)

    def _size(self, names: Iterable[str]) -> int:
        return sum(self._sizes[name] for name in names)

    def _read(self, name: str) -> Array:
        coming = self._coming.pop(name, None)
        return jnp.asarray(self._variables[name] if coming is None else coming.result())

    def replaced(self, changed: Mapping[str, Array]) -> Self:
        """With other values in place of some; the rest is shared."""
        twin = copy(self)
        twin._changed = {**self._changed, **{name: jnp.asarray(value) for name, value in changed.items()}}
        twin._coming = {}
        twin._held = {name: value for name, value in self._held.items() if name not in changed}
        twin._bytes = twin._size(twin._held)
        return twin

    def __getitem__(self, name: str) -> Array:
        return self.of([name])[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


@cache
def _reader() -> ThreadPoolExecutor:
    """Few: reading is mostly waiting for memory that is new."""
    return ThreadPoolExecutor(2, thread_name_prefix="parameters")
