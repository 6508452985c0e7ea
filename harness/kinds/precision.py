"""Numbers as a lower precision has them: what hypotheses about precision are made of. numpy only."""

from collections.abc import Callable
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np

Array = Any

_FORMATS = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16, "fp8": ml_dtypes.float8_e4m3fn}
_TF32_DROPPED = 13
"""Bits of a float32's mantissa that TensorFloat-32 has not."""


def rounded(x: Array, precision: str) -> Array:
    """x rounded to the nearest number of `bfloat16`, `float16` or `fp8` (e4m3), as float64; ties to even."""
    single = np.asarray(x).astype(np.float32)
    with np.errstate(over="ignore"):
        return single.astype(_FORMATS[precision]).astype(np.float64)


def truncated(x: Array, dropped: int) -> Array:
    """x with the last `dropped` bits of its float32 cut off instead of rounded, as float64."""
    return _masked(np.asarray(x).astype(np.float32).view(np.uint32), dropped)


def tf32(x: Array, ties_to_even: bool) -> Array:
    """x rounded to TensorFloat-32's 10 bits of mantissa, as float64; ties to even, or away from zero, as GPUs do."""
    bits = np.asarray(x).astype(np.float32).view(np.uint32)
    half = np.uint32(1 << (_TF32_DROPPED - 1))
    if not ties_to_even:
        return _masked(bits + half, _TF32_DROPPED)
    odd = (bits >> np.uint32(_TF32_DROPPED)) & np.uint32(1)
    return _masked(bits + (half - np.uint32(1)) + odd, _TF32_DROPPED)


def _masked(bits: Array, dropped: int) -> Array:
    kept = bits & np.uint32(0xFFFFFFFF >> dropped << dropped)
    return kept.view(np.float32).astype(np.float64)


def quantised(weight: Array, levels: int, dtype: str = "float64") -> Array:
    """weight (O I) in `levels` steps either side of zero, of one size for each output: the largest is a step itself.

    dtype: that of the quotients, which are halfway between two steps here and there, and fall to either side
    """
    weight = np.asarray(weight).astype(dtype)
    step = np.max(np.abs(weight), axis=-1, keepdims=True) / np.dtype(dtype).type(levels)
    return (np.round(weight / np.where(step > 0, step, 1.0)) * step).astype(np.float64)


def is_rounded(x: Array, precision: str) -> Array:
    """Which elements of x are numbers of a lower precision."""
    wide = np.asarray(x).astype(np.float64)
    return rounded(wide, precision) == wide


PRODUCTS: tuple[tuple[str, str, Callable[[Array], Array]], ...] = (
    ("low_precision_bfloat16", "rounded to bfloat16", partial(rounded, precision="bfloat16")),
    ("low_precision_tf32", "rounded to TF32", partial(tf32, ties_to_even=False)),
    ("low_precision_tf32", "rounded to TF32", partial(tf32, ties_to_even=True)),
    ("low_precision_tf32", "cut to TF32", partial(truncated, dropped=_TF32_DROPPED)),
)
"""The precisions that products of matrices are taken in: hypothesis, what becomes of operands, and how."""
