"""One model on many devices: what is split over which axis of a mesh.

The axes are `dp`, over which the texts of a batch are split, and `tp`, over which heads, the channels of the MLP and
the vocabulary are (Shoeybi et al. 2019, "Megatron-LM"). A product whose outputs are split is followed by one whose
inputs are, so that a layer has two sums over devices. XLA puts them in: the forward pass is the same code on one
device, and only says here and there how an activation lies.

Key-value heads that `tp` does not divide are whole on every device, as in serving; so is a batch that `dp` does not
divide. Anything else that cannot be split evenly is refused.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Any

import jax
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from qwen_flax.config import Config

DATA, MODEL = "dp", "tp"
_BY_OUTPUT, _BY_INPUT, _WHOLE = P(MODEL, None), P(None, MODEL), P()

PARAMETERS = {
    "embed_tokens.embedding": P(MODEL, None),  # by token
    "layers.{n}.input_layernorm.weight": _WHOLE,
    "layers.{n}.self_attn.q_proj.kernel": _BY_OUTPUT,
    "layers.{n}.self_attn.q_proj.bias": P(MODEL),
    "layers.{n}.self_attn.k_proj.kernel": _BY_OUTPUT,
    "layers.{n}.self_attn.k_proj.bias": P(MODEL),
    "layers.{n}.self_attn.v_proj.kernel": _BY_OUTPUT,
    "layers.{n}.self_attn.v_proj.bias": P(MODEL),
    "layers.{n}.self_attn.q_norm.weight": _WHOLE,
    "layers.{n}.self_attn.k_norm.weight": _WHOLE,
    "layers.{n}.self_attn.o_proj.kernel": _BY_INPUT,
    "layers.{n}.self_attn.o_proj.bias": _WHOLE,
    "layers.{n}.post_attention_layernorm.weight": _WHOLE,
    "layers.{n}.mlp.gate_proj.kernel": _BY_OUTPUT,
    "layers.{n}.mlp.up_proj.kernel": _BY_OUTPUT,
    "layers.{n}.mlp.down_proj.kernel": _BY_INPUT,
    "norm.weight": _WHOLE,
    "lm_head.kernel": _BY_OUTPUT,
}
"""How each parameter of the table in checkpoint.py lies; a kernel is (O I)."""


class MeshError(ValueError):
    """A mesh over which this model cannot be split: one sentence says why."""


def check(mesh: Mesh, config: Config) -> None:
    """Raises MeshError for another axis than `dp` and `tp`, and for what `tp` does not divide."""
    unknown = [axis for axis in mesh.shape if axis not in (DATA, MODEL)]
    if unknown:
        raise MeshError(f"this model is split over {DATA} and {MODEL}, but the mesh has an axis {unknown[0]}")
    parts = mesh.shape.get(MODEL, 1)
    sizes = {
        "query heads": config.num_attention_heads,
        "channels of the MLP": config.intermediate_size,
        "tokens of the vocabulary": config.vocab_size,
    }
    uneven = [f"{size} {what}" for what, size in sizes.items() if size % parts]
    if uneven:
        raise MeshError(f"{MODEL}={parts} does not divide {' and '.join(uneven)} of this checkpoint")


def placed(path: tuple[Any, ...], parameter: Array, mesh: Mesh, config: Config) -> Array:
    """The parameter at `path` spread over a mesh: each process puts on its devices what belongs there."""
    sharding = NamedSharding(mesh, spec_of(path, mesh, config))
    whole = np.asarray(parameter)
    return jax.make_array_from_callback(whole.shape, sharding, lambda part: whole[part])


def spec_of(path: tuple[Any, ...], mesh: Mesh, config: Config) -> P:
    """How the parameter at `path` is split over the axes that the mesh has."""
    spec = PARAMETERS[".".join("{n}" if isinstance(part, int) else part for part in path)]
    if config.num_key_value_heads % mesh.shape.get(MODEL, 1) and not {"k_proj", "v_proj"}.isdisjoint(path):
        return _WHOLE
    return P(*(axis if axis in mesh.shape else None for axis in spec))


def on(mesh: Mesh | None) -> AbstractContextManager[object]:
    """In it, a forward pass that is traced is split over the axes of `mesh`."""
    return nullcontext() if mesh is None else jax.sharding.use_abstract_mesh(mesh.abstract_mesh)


def sharded(*axes: str | None) -> Callable[[Callable[..., Array]], Callable[..., Array]]:
    """Of a step: where its output lies on a mesh, by the axes over which its own are split."""

    def of(step: Callable[..., Array]) -> Callable[..., Array]:
        @wraps(step)
        def split(*args: Any, **kwargs: Any) -> Array:
            return constrained(step(*args, **kwargs), *axes)

        return split

    return of


def constrained(x: Array, *axes: str | None) -> Array:
    """x, its axes split over these of the mesh that the pass is traced on, as far as they divide them.

    An axis that is None, and those after the last, are whole on every device. Without a mesh, it is x as it is.
    """
    sizes = jax.sharding.get_abstract_mesh().shape
    if not sizes:
        return x
    fits = [
        axis if axis in sizes and size % sizes[axis] == 0 else None
        for axis, size in zip(axes, x.shape, strict=False)
    ]
    return lax.with_sharding_constraint(x, P(*fits))
