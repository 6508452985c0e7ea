"""Random numbers that stand for rounding: mean 0, standard deviation 1, bell-shaped, and quickly drawn."""

import hashlib
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

_SPREAD = float(np.sqrt(4 * (256**2 - 1) / 12))
"""The standard deviation of the sum of four bytes."""


class Noise:
    """Each number is the sum of the four bytes of one drawn word: the floors of a case are the same each time."""

    def __init__(self, *seed: str) -> None:
        digest = hashlib.sha256("/".join(seed).encode()).digest()
        self._words = np.random.Generator(np.random.SFC64(int.from_bytes(digest[:7], "big")))
        self.generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))

    def draw(self, shape: Iterable[int]) -> Tensor:
        """float32."""
        shape = tuple(shape)
        words = torch.from_numpy(self._words.integers(-(2**31), 2**31, shape, np.int32))
        pairs = (words & 0x00FF00FF) + (words >> 8 & 0x00FF00FF)
        sums = (pairs & 0xFFFF) + (pairs >> 16)
        return (sums.float() - 510) / _SPREAD
