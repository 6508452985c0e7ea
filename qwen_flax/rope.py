"""Rotary position embedding, as the reference's default: angles in float32, halves of a head paired."""

from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jax import Array

from qwen_flax.steps import Part


class RotaryEmbedding(Part):
    """cos and sin of the angle by which each pair of channels turns at each position.

    Angles are computed in float32 in every dtype and only cos and sin are rounded: bfloat16 cannot even
    tell position 256 from 257.
    """

    steps: ClassVar = ("cos", "sin")

    def __init__(self, theta: float, head_dim: int, dtype: str):
        self.theta, self.head_dim, self.dtype = theta, head_dim, dtype

    def cos(self, positions: Array) -> Array:
        """positions (B T) -> (B T D)."""
        return jnp.cos(self.angles(positions)).astype(self.dtype)

    def sin(self, positions: Array) -> Array:
        """positions (B T) -> (B T D)."""
        return jnp.sin(self.angles(positions)).astype(self.dtype)

    def angles(self, positions: Array) -> Array:
        """positions (B T) -> (B T D) in float32; both halves of a head have the same angles."""
        half = positions[..., None].astype(jnp.float32) * inverse_frequencies(self.theta, self.head_dim)
        return jnp.concatenate([half, half], axis=-1)


def inverse_frequencies(theta: float, head_dim: int) -> np.ndarray:
    """theta ** -(2i / D) for i < D/2, in float32.

    On the host, with the power itself in float64: rounded, it is then the reference's, whose power is good to
    the last place. XLA's and numpy's float32 powers are not, and at position 30,000 one unit in the last
    place moves an angle by 0.002.
    """
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    powers = np.power(theta, exponents, dtype=np.float64).astype(np.float32)
    frequencies: np.ndarray = np.float32(1) / powers
    return frequencies


def rotate(x: Array, cos: Array, sin: Array) -> Array:
    """x (B H T D); cos, sin (B T D): turn channel i and channel i + D/2 of each head as one pair."""
    first, second = jnp.split(x, 2, axis=-1)
    turned = jnp.concatenate([-second, first], axis=-1)
    return x * cos[:, None] + turned * sin[:, None]
