"""How this model is compiled."""

from collections.abc import Callable
from typing import Any

import jax

OPTIONS = {"xla_allow_excess_precision": False}
"""Every rounding that the code asks for. By default XLA leaves out roundings to bfloat16 between steps that it fuses:
the result then depends on what is fused, and the reference's order of casts is lost."""


def jit(function: Callable[..., Any], **options: Any) -> Any:
    """`jax.jit` with these options."""
    return jax.jit(function, compiler_options=OPTIONS, **options)
