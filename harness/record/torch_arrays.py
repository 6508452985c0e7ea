"""The operations of `harness.kinds.numpy_arrays` on torch tensors.

Each is the call that `transformers` makes in eager mode, so that a step run in the model's own dtype is
bit-equal to the reference; the recorder checks that for everything it records.
"""

from functools import reduce

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from harness.record.loops import EXPONENT, FEW, loops


class TorchArrays:
    """Operations in one model dtype: narrow is that dtype, wide at least float32."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.wide_dtype = torch.promote_types(dtype, torch.float32)

    concat = staticmethod(torch.cat)
    log = staticmethod(torch.log)
    cos = staticmethod(torch.cos)
    sin = staticmethod(torch.sin)
    where = staticmethod(torch.where)
    clip = staticmethod(torch.clip)
    matmul = staticmethod(torch.matmul)
    linear = staticmethod(functional.linear)
    rsqrt = staticmethod(torch.rsqrt)
    silu = staticmethod(functional.silu)
    gelu = staticmethod(functional.gelu)
    tanh = staticmethod(torch.tanh)
    swap = staticmethod(torch.transpose)

    def narrow(self, x: Tensor) -> Tensor:
        return x.to(self.dtype)

    def wide(self, x: Tensor) -> Tensor:
        return x.to(self.wide_dtype)

    def number(self, value: float) -> float:
        return float(torch.tensor(value, dtype=self.dtype))

    def gelu_tanh(self, x: Tensor) -> Tensor:
        return functional.gelu(x, approximate="tanh")

    def layer_norm(self, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:], weight, bias, eps)

    def linear_squares(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        squares = functional.linear(x.float().square(), weight.float().square())
        return squares.to(self.wide_dtype) if bias is None else squares + bias.square()

    def mean(self, x: Tensor) -> Tensor:
        return x.mean(-1, keepdim=True)

    def mean_square(self, x: Tensor) -> Tensor:
        return x.pow(2).mean(-1, keepdim=True)

    def total(self, x: Tensor) -> Tensor:
        return x.sum(-1, keepdim=True)

    def rounding(self, u: float, *values: Tensor) -> Tensor:
        if any(value.numel() <= FEW or value.shape != values[0].shape for value in values):
            return reduce(torch.add, map(_square_binade, values)) * (u * u / 3)
        total = torch.zeros(values[0].shape, dtype=torch.float64)
        for value in values:
            loops().add_rounding(flat(total), flat(value.double()), u * u / 3)
        return total

    def greatest(self, x: Tensor) -> Tensor:
        return x.amax(-1, keepdim=True)

    def softmax(self, x: Tensor) -> Tensor:
        return functional.softmax(x, dim=-1)

    def repeat_heads(self, x: Tensor, times: int) -> Tensor:
        batch, heads, length, size = x.shape
        repeated = x[:, :, None].expand(batch, heads, times, length, size)
        return repeated.reshape(batch, heads * times, length, size)

    def lowest(self) -> float:
        return torch.finfo(self.dtype).min

    def powers(self, theta: float | Tensor, size: int) -> Tensor:
        powers: Tensor = theta ** (torch.arange(0, size, 2, dtype=self.wide_dtype) / size)
        return powers

    def inverse_frequencies(self, theta: float, size: int) -> Tensor:
        return 1.0 / self.powers(theta, size)

    def indices(self, length: int) -> Tensor:
        return torch.arange(length)


def _square_binade(x: Tensor) -> Tensor:
    """Of a float64 without its sign and mantissa; 0 for one too small to be normal."""
    return (x.double().view(torch.int64) & EXPONENT).view(torch.float64) ** 2


def flat(x: Tensor) -> np.ndarray:
    """Its numbers (E), in one piece."""
    return x.contiguous().view(-1).numpy()
