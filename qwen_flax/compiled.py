"""How this model is compiled."""

from collections.abc import Callable
from typing import Any

import jax


def jit(function: Callable[..., Any], **options: Any) -> Any:
    """`jax.jit` with every rounding that the code asks for.

    By default XLA leaves out roundings to bfloat16 between steps that it fuses: the result then depends on
    what is fused, and the reference's order of casts is lost.
    """
    return jax.jit(function, compiler_options={"xla_allow_excess_precision": False}, **options)
