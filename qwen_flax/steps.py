"""What a step is to this model: how steps are declared, watched and compiled."""

from collections.abc import Callable
from typing import Any, ClassVar

import jax
from flax import nnx
from jax import Array

Tap = Callable[[str, Array], Array]
"""Called as `tap(name, value)` with what a step put out; the forward pass goes on with what it returns."""


class Part(nnx.Module):
    """A module that steps belong to.

    steps: the methods that are one step each. `__call__` is the step that has the module's own name; a module
    whose `__call__` is made of other steps does not list it.
    """

    steps: ClassVar[tuple[str, ...]] = ("__call__",)


def components(model: nnx.Module) -> dict[str, tuple[Part, str]]:
    """Every step of a model: `layers.0.self_attn.scores` -> the attention of layer 0, `scores`."""
    return {
        ".".join(map(str, path if step == "__call__" else (*path, step))): (module, step)
        for path, module in nnx.iter_modules(model)
        if isinstance(module, Part)
        for step in module.steps
    }


def no_tap(name: str, value: Array) -> Array:
    return value


def within(tap: Tap, prefix: str) -> Tap:
    """The tap for a part of the model: the names it is called with get `prefix` put before them."""
    return lambda name, value: tap(f"{prefix}.{name}", value)


def jit(function: Callable[..., Any], **options: Any) -> Any:
    """`jax.jit` with every rounding that the code asks for.

    By default XLA leaves out roundings to bfloat16 between steps that it fuses: the result then depends on
    what is fused, and the reference's order of casts is lost.
    """
    return jax.jit(function, compiler_options={"xla_allow_excess_precision": False}, **options)
