"""A parameter of the port that is not the reference's, beside it. numpy, and heavy."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from harness.facts.fingerprint import blocks
from harness.store.layout import numpy_dtype

Array = Any


@dataclass(frozen=True)
class Compared:
    """ours, theirs: in the port's dtype; stored: the reference's as the checkpoint has it

    weights: all the checkpoint's tensors; port: all the port's parameters; head_dim: None where it is not known
    """

    name: str
    ours: Array
    theirs: Array
    stored: Array
    dtype: str
    weights: Mapping[str, Array]
    port: Mapping[str, Array]
    head_dim: int | None

    @classmethod
    def of(
        cls,
        name: str,
        ours: Array,
        weights: Mapping[str, Array],
        dtype: str,
        port: Mapping[str, Array],
        head_dim: int | None,
    ) -> Self:
        stored = np.asarray(weights[name])
        return cls(name, cast(ours, dtype), cast(stored, dtype), stored, dtype, weights, port, head_dim)

    @property
    def is_vector(self) -> bool:
        return self.theirs.ndim < 2

    @property
    def is_bias(self) -> bool:
        return self.name.endswith(".bias")

    def blocks(self) -> Iterator[tuple[Array, Array, Array]]:
        """ours, theirs and stored, some rows at a time."""
        return zip(blocks(self.ours), blocks(self.theirs), blocks(self.stored), strict=True)


def cast(tensor: Array, dtype: str) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(tensor).astype(numpy_dtype(dtype), copy=False)


def numbers(count: int) -> str:
    return f"{count:,} numbers" if count != 1 else "1 number"
