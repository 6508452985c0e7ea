"""Random numbers that stand for rounding: mean 0, standard deviation 1, bell-shaped, and quickly drawn."""

import hashlib
from collections.abc import Iterable
from math import prod

import numpy as np
import torch
from torch import Tensor

from harness.record.loops import FEW, loops
from harness.record.torch_arrays import flat

SPREAD = float(np.sqrt(4 * (16**2 - 1) / 12))
"""The standard deviation of the sum of four numbers below 16."""
MIDDLE = 30
"""Its mean."""


def seed_of(*names: str) -> int:
    """The same each time."""
    return int.from_bytes(hashlib.sha256("/".join(names).encode()).digest()[:7], "big")


class Noise:
    """Each number is the sum of four drawn ones of four bits: the floors of a case are the same each time."""

    def __init__(self, *seed: str) -> None:
        self._words = np.random.Generator(np.random.SFC64(seed_of(*seed)))

    def disturbing(self, distances: Tensor, variance: Tensor) -> Tensor:
        """distances, (N ...), float32, each with what rounding of this variance, (...), float64, may do to it.

        In place, if they are in one piece.
        """
        count = variance.numel()
        if count <= FEW:
            return distances.addcmul_(variance.sqrt().float(), self.draw(distances.shape), value=1 / SPREAD)
        disturbed = distances.contiguous()
        bits = self._bits((len(distances), count)).view(np.uint16)
        loops().disturb(disturbed.view(-1, count).numpy(), flat(variance), bits, MIDDLE, 1 / SPREAD)
        return disturbed

    def draw(self, shape: Iterable[int]) -> Tensor:
        """float32, and SPREAD times too large."""
        bits = self._bits(tuple(shape))
        sums = (bits >> 4) & 0x0F0F
        sums += np.bitwise_and(bits, 0x0F0F, out=bits)
        sums += sums >> 8
        sums &= 0x7F
        sums -= MIDDLE
        return torch.from_numpy(sums).float()

    def _bits(self, shape: tuple[int, ...]) -> np.ndarray:
        words = self._words.integers(0, 2**64, -(-prod(shape) // 4), np.uint64)
        return words.view(np.int16)[: prod(shape)].reshape(shape)
