"""Rotary position embedding, as the reference's: angles in float32, halves of a head paired.

Where a configuration scales it for longer texts, frequencies are made slower: all of them, slow ones only, or by how
long a text is. docs/numerics.md names the papers.
"""

import math

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from qwen_flax.config import RopeScaling


class RotaryEmbedding(nnx.Module):
    """cos and sin of the angle by which each pair of channels turns at each position.

    Angles are computed in float32 in every dtype and only cos and sin are rounded: bfloat16 cannot even
    tell position 256 from 257.
    """

    def __init__(self, theta: float, head_dim: int, dtype: str, scaling: RopeScaling | None = None):
        self.theta, self.head_dim, self.dtype, self.scaling = theta, head_dim, dtype, scaling
        self.attention_factor = 1.0 if scaling is None else scaling.attention_factor

    def cos(self, positions: Array) -> Array:
        """positions (B T) -> (B T D)."""
        return (jnp.cos(self.angles(positions)) * self.attention_factor).astype(self.dtype)

    def sin(self, positions: Array) -> Array:
        """positions (B T) -> (B T D)."""
        return (jnp.sin(self.angles(positions)) * self.attention_factor).astype(self.dtype)

    def angles(self, positions: Array) -> Array:
        """positions (B T) -> (B T D) in float32; both halves of a head have the same angles."""
        half = positions[..., None].astype(jnp.float32) * self.frequencies(positions)
        return jnp.concatenate([half, half], axis=-1)

    def frequencies(self, positions: Array) -> Array:
        """positions (B T) -> (D/2) in float32; only `dynamic` looks at the positions."""
        frequencies = inverse_frequencies(self.theta, self.head_dim)
        if self.scaling is None:
            return jnp.asarray(frequencies)
        if self.scaling.rope_type == "dynamic":
            return jnp.asarray(frequencies) * dynamic_slowdown(positions, self.head_dim, self.scaling)
        if self.scaling.rope_type == "yarn":
            return jnp.asarray(yarn(frequencies, self.theta, self.scaling))
        if self.scaling.rope_type == "llama3":
            return jnp.asarray(llama3(frequencies, self.scaling))
        return jnp.asarray(frequencies / np.float32(self.scaling.factor))


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


def dynamic_slowdown(positions: Array, head_dim: int, scaling: RopeScaling) -> Array:
    """By what each frequency (D/2) is multiplied in a call with these positions (B T).

    The reference takes the base times s ** (D / (D - 2)) with s = factor L / N - (factor - 1), where L is the length of
    the longest text and N the original one. A frequency base ** -(2i / D) is then s ** -(2i / (D - 2)) times as fast;
    written so, s is exactly 1 up to N.
    """
    beyond = jnp.maximum(jnp.max(positions) + 1 - scaling.original_max_position_embeddings, 0)
    longer = 1 + scaling.factor * beyond.astype(jnp.float32) / scaling.original_max_position_embeddings
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim - 2)
    return jnp.exp(-exponents * jnp.log(longer))


def yarn(frequencies: np.ndarray, theta: float, scaling: RopeScaling) -> np.ndarray:
    """frequencies (D/2): those that turn often within the original length are kept, the slowest divided."""
    head_dim = 2 * len(frequencies)

    def pair(turns: float) -> float:
        """The pair of channels, as a fraction, that turns so often within the original length."""
        waves = scaling.original_max_position_embeddings / (turns * 2 * math.pi)
        return head_dim * math.log(waves) / (2 * math.log(theta))

    first, last = pair(scaling.beta_fast), pair(scaling.beta_slow)
    if scaling.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, head_dim - 1)
    width = last - first or 0.001  # as in the reference: a ramp without width would divide by zero
    divided = np.clip((np.arange(head_dim // 2, dtype=np.float32) - first) / width, 0, 1)
    return (frequencies / scaling.factor * divided + frequencies * (1 - divided)).astype(np.float32)


def llama3(frequencies: np.ndarray, scaling: RopeScaling) -> np.ndarray:
    """frequencies (D/2): waves longer than a part of the original length are divided, short ones kept."""
    turns = scaling.original_max_position_embeddings * frequencies / (2 * math.pi)
    width = scaling.high_freq_factor - scaling.low_freq_factor
    kept = np.clip((turns - scaling.low_freq_factor) / width, 0, 1)
    return ((1 - kept) * frequencies / scaling.factor + kept * frequencies).astype(np.float32)


def rotate(x: Array, cos: Array, sin: Array) -> Array:
    """x (B H T D); cos, sin (B T D): turn channel i and channel i + D/2 of each head as one pair."""
    first, second = jnp.split(x, 2, axis=-1)
    turned = jnp.concatenate([-second, first], axis=-1)
    return x * cos[:, None] + turned * sin[:, None]
