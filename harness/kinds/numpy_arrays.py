"""The few array operations that steps are written in, on numpy arrays."""

from functools import reduce
from typing import Any

import ml_dtypes
import numpy as np

Array = Any


class NumpyArrays:
    """Operations in one model dtype; `harness.record.torch_arrays` has the same on torch tensors.

    Narrow is the model's dtype. Wide is at least float32: what the reference computes in float32 whatever the
    model's dtype is stays in float64 when the model's dtype is float64.
    """

    def __init__(self, dtype: Any) -> None:
        self.dtype = np.dtype(dtype)
        self.wide_dtype = np.result_type(self.dtype, np.float32)

    pi = np.pi
    concat = staticmethod(np.concatenate)
    stack = staticmethod(np.stack)
    log = staticmethod(np.log)
    cos = staticmethod(np.cos)
    sin = staticmethod(np.sin)
    tanh = staticmethod(np.tanh)
    exp = staticmethod(np.exp)
    zeros_like = staticmethod(np.zeros_like)
    where = staticmethod(np.where)
    clip = staticmethod(np.clip)
    matmul = staticmethod(np.matmul)

    def narrow(self, x: Array) -> Array:
        return x.astype(self.dtype, copy=False)

    def wide(self, x: Array) -> Array:
        return x.astype(self.wide_dtype, copy=False)

    def number(self, value: float) -> float:
        """The number of the model's dtype that is nearest."""
        return float(np.asarray(value).astype(self.dtype))

    def linear(self, x: Array, weight: Array, bias: Array | None) -> Array:
        """x (... I), weight (O I), bias (O) -> (... O)."""
        product = x @ weight.T
        return product if bias is None else product + bias

    def linear_squares(self, x: Array, weight: Array, bias: Array | None) -> Array:
        """The sum of the squares of a product's terms. Float32 is exact enough for a variance."""
        x, weight = x.astype(np.float32), weight.astype(np.float32)
        squares = self.wide(np.square(x) @ np.square(weight).T)
        return squares if bias is None else squares + np.square(bias)

    def mean(self, x: Array) -> Array:
        """Over the last axis, which stays with length 1."""
        return np.mean(x, axis=-1, keepdims=True)

    def mean_square(self, x: Array) -> Array:
        """Over the last axis, which stays with length 1."""
        return np.mean(np.square(x), axis=-1, keepdims=True)

    def total(self, x: Array) -> Array:
        """The sum over the last axis, which stays with length 1."""
        return np.sum(x, axis=-1, keepdims=True)

    def greatest(self, x: Array) -> Array:
        """The maximum over the last axis, which stays with length 1."""
        return np.max(x, axis=-1, keepdims=True)

    def rounding(self, u: float, *values: Array) -> Array:
        """The variance of rounding each of `values` once to unit roundoff u."""
        return reduce(np.add, (_binade(value) ** 2 for value in values)) * (u * u / 3)

    def rsqrt(self, x: Array) -> Array:
        return 1 / np.sqrt(x)

    def silu(self, x: Array) -> Array:
        return x / (1 + np.exp(-x))

    def gelu(self, x: Array) -> Array:
        return x / 2 * (1 + self.erf(x * 0.5**0.5))

    def gelu_tanh(self, x: Array) -> Array:
        return x / 2 * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3)))

    def layer_norm(self, x: Array, weight: Array | None, bias: Array | None, eps: float) -> Array:
        """Over the last axis, in at least float32."""
        wide = self.wide(x)
        centred = wide - self.mean(wide)
        normed = centred * self.rsqrt(self.mean_square(centred) + eps)
        weighted = normed if weight is None else normed * weight
        return self.narrow(weighted if bias is None else weighted + bias)

    def sigmoid(self, x: Array) -> Array:
        return 1 / (1 + np.exp(-x))

    def softplus(self, x: Array) -> Array:
        """log(1 + exp(x))."""
        return np.logaddexp(x, 0)

    def erf(self, x: Array) -> Array:
        from scipy.special import erf

        return erf(x)

    def softmax(self, x: Array) -> Array:
        """Over the last axis."""
        shifted = np.exp(x - self.greatest(x))
        return shifted / self.total(shifted)

    def log_total_exp(self, x: Array) -> Array:
        """log(sum(exp(x))) over the last axis, which stays with length 1."""
        top = self.greatest(x)
        return top + np.log(self.total(np.exp(x - top)))

    def swap(self, x: Array, a: int, b: int) -> Array:
        return np.swapaxes(x, a, b)

    def repeat_heads(self, x: Array, times: int) -> Array:
        """(B K T D) -> (B K·times T D), each head `times` times in a row."""
        return np.repeat(x, times, axis=1)

    def lowest(self) -> float:
        """The most negative finite number of the model's dtype."""
        return float(ml_dtypes.finfo(self.dtype).min)

    def powers(self, theta: Any, size: int) -> Array:
        """theta ** (2i / size) for i < size / 2, wide."""
        return theta ** (np.arange(0, size, 2).astype(self.wide_dtype) / size)

    def inverse_frequencies(self, theta: float, size: int) -> Array:
        """theta ** -(2i / size) for i < size / 2, wide."""
        return 1 / self.powers(theta, size)

    def indices(self, length: int) -> Array:
        return np.arange(length)


def _binade(x: Array) -> Array:
    """The power of two at or below |x|; 0 for 0."""
    return np.ldexp(1.0, np.frexp(x)[1] - 1) * (x != 0)
