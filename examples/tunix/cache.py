"""Running tunix's decoders, without a cache or with one, and what that holds."""

from typing import Any

import jax.numpy as jnp
from jax import Array

Layers = dict[str, dict[str, Array]]


def empty(config: Any, batch: int, capacity: int, fill: float) -> Layers:
    """As tunix's sampler makes one, which fills it with zeros."""
    slots = jnp.full((batch, capacity, config.num_kv_heads, config.head_dim), fill, config.dtype)
    layer = {"k": slots, "v": slots, "end_index": jnp.zeros(batch, jnp.int32)}
    return {f"layer_{n}": layer for n in range(config.num_layers)}


def step(
    model: Any, cache: Any, token_ids: Array, positions: Array, attention_mask: Array, query_index: Array
) -> Any:
    """tunix is given a mask (B T S): a query sees what stands at or before it, and is no padding."""
    causal = jnp.arange(attention_mask.shape[1]) <= query_index[:, None]
    return model(token_ids, positions, cache, causal & (attention_mask[:, None, :] != 0))


def read(cache: Layers) -> dict[str, Array]:
    found = {}
    for n in range(len(cache)):
        k, v = cache[f"layer_{n}"]["k"], cache[f"layer_{n}"]["v"]
        found[f"layers.{n}.self_attn.k_rope"] = k.swapaxes(1, 2)
        found[f"layers.{n}.self_attn.v_proj"] = v.reshape(*v.shape[:2], -1)
    return found
