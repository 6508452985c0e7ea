"""Random numbers that stand for rounding: mean 0, standard deviation 1, bell-shaped, and quickly drawn."""

import hashlib
from collections.abc import Iterable
from math import prod

import numpy as np
import torch
from torch import Tensor

SPREAD = float(np.sqrt(4 * (16**2 - 1) / 12))
"""The standard deviation of the sum of four numbers below 16."""


def seed_of(*names: str) -> int:
    """The same each time."""
    return int.from_bytes(hashlib.sha256("/".join(names).encode()).digest()[:7], "big")


class Noise:
    """Each number is the sum of four drawn ones of four bits: the floors of a case are the same each time."""

    def __init__(self, *seed: str) -> None:
        self._words = np.random.Generator(np.random.SFC64(seed_of(*seed)))

    def draw(self, shape: Iterable[int]) -> Tensor:
        """float32, and SPREAD times too large."""
        shape = tuple(shape)
        words = self._words.integers(0, 2**64, -(-prod(shape) // 4), np.uint64)
        bits = words.view(np.int16)[: prod(shape)].reshape(shape)
        sums = (bits >> 4) & 0x0F0F
        sums += np.bitwise_and(bits, 0x0F0F, out=bits)
        sums += sums >> 8
        sums &= 0x7F
        sums -= 30
        return torch.from_numpy(sums).float()
