"""Greedy generation: the prompts in one pass, then one token after another through the cache."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from qwen_flax import cache as caches
from qwen_flax.cache import Cache
from qwen_flax.config import Config
from qwen_flax.model import Model
from qwen_flax.steps import jit

CAPACITY_STEP = 64
"""Caches have a multiple of this many slots, so that prompts of like length share one compiled step."""


@dataclass(frozen=True)
class Generation:
    """What was written.

    tokens: (B N) int32; N is the longest text's length, and shorter texts repeat the token that ended them
    lengths: (B) how many tokens are a text's own, the one that ended it included
    logits: (B N V) that each token was chosen from, if asked for
    """

    tokens: np.ndarray
    lengths: np.ndarray
    logits: np.ndarray | None


def generate(
    model: Model,
    config: Config,
    token_ids: np.ndarray,
    attention_mask: np.ndarray,
    *,
    max_new_tokens: int,
    eos_token_ids: Collection[int] | None = None,
    keep_logits: bool = False,
    cache_fill: float = 0.0,
) -> Generation:
    """The likeliest next token, up to `max_new_tokens` times.

    token_ids, attention_mask: (B T), shorter prompts padded on the left, where the mask is 0
    eos_token_ids: a text ends with any of them; by default those of the checkpoint, and `()` never ends one
    cache_fill: what unused slots of the cache hold; no result depends on it
    Raises ValueError for a mask that does not fit, is empty in a row or has padding on the right.
    """
    token_ids, mask = np.asarray(token_ids, np.int32), np.asarray(attention_mask, np.int32)
    _check_prompts(token_ids, mask, max_new_tokens)
    batch, length = token_ids.shape
    ends = np.asarray(list(config.eos_token_ids if eos_token_ids is None else eos_token_ids), np.int32)
    capacity = -(-(length + max_new_tokens) // CAPACITY_STEP) * CAPACITY_STEP
    dtype = str(model.embed_tokens.embedding.dtype)
    cache = caches.init(config, batch, capacity, dtype, cache_fill)
    # Slots after the prompt count as real from the start: until they are written, they lie in the future.
    key_mask = jnp.asarray(np.pad(mask, ((0, 0), (0, capacity - length)), constant_values=1))
    positions = np.maximum(np.cumsum(mask, axis=1, dtype=np.int32) - 1, 0)

    graph, state = nnx.split(model)
    logits, token, cache = _step(
        graph, state, cache, jnp.asarray(token_ids), key_mask, jnp.asarray(positions), jnp.arange(length)
    )
    position = jnp.asarray(positions[:, -1:])
    tokens, kept, lengths = [np.asarray(token)], [logits], np.full(batch, max_new_tokens)
    ended = np.zeros(batch, bool)
    while True:
        now = np.isin(tokens[-1][:, 0], ends) & ~ended
        lengths[now], ended = len(tokens), ended | now
        if ended.all() or len(tokens) == max_new_tokens:
            break
        index = jnp.asarray([length + len(tokens) - 1])
        position = position + 1
        logits, token, cache = _step(graph, state, cache, token, key_mask, position, index)
        tokens.append(np.where(ended[:, None], tokens[-1], np.asarray(token)))
        if keep_logits:
            kept.append(logits)
    return Generation(
        tokens=np.concatenate(tokens, axis=1),
        lengths=lengths,
        logits=np.stack([np.asarray(each) for each in kept], axis=1) if keep_logits else None,
    )


@partial(jit, static_argnums=0, donate_argnames="cache")
def _step(
    graph: nnx.GraphDef[Any],
    state: nnx.State[Any, Any],
    cache: Cache,
    token_ids: Array,
    attention_mask: Array,
    positions: Array,
    query_index: Array,
) -> tuple[Array, Array, Cache]:
    """Read tokens (B T) into the cache; give the logits (B V) after them, and the likeliest token (B 1).

    Compiles once for each prompt length, and once for a single token.
    """
    model = nnx.merge(graph, state)
    x, cache = model.hidden(token_ids, attention_mask, positions, query_index, cache)
    logits = model.lm_head(x[:, -1:])[:, 0]
    return logits, jnp.argmax(logits, axis=-1, keepdims=True).astype(jnp.int32), cache


def _check_prompts(token_ids: np.ndarray, mask: np.ndarray, max_new_tokens: int) -> None:
    if token_ids.ndim != 2 or token_ids.shape != mask.shape:
        raise ValueError(
            f"token_ids {list(token_ids.shape)} and attention_mask {list(mask.shape)} must both be "
            "(texts, tokens)"
        )
    if not token_ids.size or not mask[:, -1].all() or (np.diff(mask, axis=1) < 0).any():
        raise ValueError(
            "attention_mask must be 0 on the left of a text and 1 from its first token to its last"
        )
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens is {max_new_tokens}, but 1 or more was expected")
