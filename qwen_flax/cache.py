"""The keys and values of tokens that have been read, in arrays that do not grow.

A slot holds one token of each text of the batch; the query of a token stands at the slot of its own key.
Keys are stored after RoPE as (B K S D) and values as (B S K·D): as `k_rope` and `v_proj` put them out, so
that the very steps that expand them in a whole pass also expand what a cache holds.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array, lax

from qwen_flax.config import Config


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LayerCache:
    """k (B K S D), v (B S K·D)."""

    k: Array
    v: Array

    def write(self, k: Array, v: Array, query_index: Array) -> "LayerCache":
        """With k (B K T D) and v (B T K·D) in the slots `query_index` (T), which follow each other."""
        start = query_index[0]
        return LayerCache(
            k=lax.dynamic_update_slice_in_dim(self.k, k, start, axis=2),
            v=lax.dynamic_update_slice_in_dim(self.v, v, start, axis=1),
        )

    def read(self, query_index: Array) -> tuple[Array, Array]:
        """All keys and values, with zeros in the slots after the last of `query_index`.

        Those are not written yet and may hold anything. No probability reaches them, but 0 x NaN is NaN. XLA
        fuses the selection into the copy that expands the heads, so it costs no pass of its own.
        """
        used = jnp.arange(self.v.shape[1]) <= query_index[-1]
        return jnp.where(used[:, None], self.k, 0), jnp.where(used[:, None], self.v, 0)


Cache = tuple[LayerCache, ...]
"""One for each layer."""


def init(config: Config, batch: int, capacity: int, dtype: str, fill: float = 0.0) -> Cache:
    """A cache of `capacity` slots, all holding `fill`, which no result depends on: it may be NaN."""
    heads, size = config.num_key_value_heads, config.head_dim
    return tuple(
        LayerCache(
            k=jnp.full((batch, heads, capacity, size), fill, dtype),
            v=jnp.full((batch, capacity, heads * size), fill, dtype),
        )
        for _ in range(config.num_hidden_layers)
    )
