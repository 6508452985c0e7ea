"""Generation: the prompts in one pass, then one token after another through the cache.

A token is chosen on the device, by the step that computes its logits. That step is one program, launched once a token;
a prompt is read part by part, as parts.py tells.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from qwen_flax import cache as caches
from qwen_flax import sampling
from qwen_flax.cache import Cache
from qwen_flax.compiled import jit
from qwen_flax.config import Config
from qwen_flax.layers import Linear, TiedHead
from qwen_flax.model import Model
from qwen_flax.parts import Compile, InParts, part
from qwen_flax.sampling import Settings
from qwen_flax.sharding import constrained

GREEDY = Settings()
_seen = jit(sampling.seen, static_argnums=2)

CAPACITY_STEP = 64
"""Caches have a multiple of this many slots, so that prompts of like length share one compiled step."""


@dataclass(frozen=True)
class Generation:
    """What was written.

    tokens: (B N) int32; N is the longest text's length, and shorter texts repeat the token that ended them
    lengths: (B) how many tokens are a text's own, the one that ended it included
    stop: (B) the token that ended a text, or -1 where `max_new_tokens` did
    logits: (B N V) that each token was chosen from, before they were processed, if asked for
    """

    tokens: np.ndarray
    lengths: np.ndarray
    stop: np.ndarray
    logits: np.ndarray | None


def generate(
    model: Model,
    config: Config,
    token_ids: np.ndarray,
    attention_mask: np.ndarray,
    *,
    max_new_tokens: int,
    settings: Settings = GREEDY,
    seed: int = 0,
    eos_token_ids: Collection[int] | None = None,
    keep_logits: bool = False,
    cache_fill: float = 0.0,
) -> Generation:
    """The likeliest next token, or one that is drawn, up to `max_new_tokens` times.

    token_ids, attention_mask: (B T), shorter prompts padded on the left, where the mask is 0
    settings: how logits become a choice; those of a checkpoint are `sampling.read(folder)`
    seed: of the draws, if settings ask for any
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
    key_mask = np.pad(mask, ((0, 0), (0, capacity - length)), constant_values=1)
    positions = np.maximum(np.cumsum(mask, axis=1, dtype=np.int32) - 1, 0)

    now = _State(cache, _seen(token_ids, mask != 0, config.vocab_size), jax.random.key(seed))
    prompt = jax.device_put((token_ids, key_mask, positions, np.arange(length, dtype=np.int32)))
    logits, token, now = _read(model, jit, settings, now, *prompt)
    graph, state = nnx.split(model)
    step = _compiled(graph, settings)
    position = positions[:, -1:]
    tokens, kept, lengths = [np.asarray(token)], [logits], np.full(batch, max_new_tokens)
    ended = np.zeros(batch, bool)
    while True:
        ending = np.isin(tokens[-1][:, 0], ends) & ~ended
        lengths[ending], ended = len(tokens), ended | ending
        if ended.all() or len(tokens) == max_new_tokens:
            break
        index = np.asarray([length + len(tokens) - 1], np.int32)
        position = position + 1
        logits, token, now = step(state, now, token, key_mask, position, index)
        tokens.append(np.where(ended[:, None], tokens[-1], np.asarray(token)))
        if keep_logits:
            kept.append(logits)
    written = np.concatenate(tokens, axis=1)
    return Generation(
        tokens=written,
        lengths=lengths,
        stop=np.where(ended, written[np.arange(batch), lengths - 1], -1),
        logits=np.stack([np.asarray(each) for each in kept], axis=1) if keep_logits else None,
    )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _State:
    """What a step hands on to the next. there: the tokens of each text so far, (B V); key: of the draws to come"""

    cache: Cache
    there: Array
    key: Array


@lru_cache
def _compiled(graph: nnx.GraphDef[Any], settings: Settings) -> Callable[..., tuple[Array, Array, _State]]:
    """`_step`, compiled. As static arguments these two would be hashed at every token, which takes milliseconds."""
    step: Callable[..., tuple[Array, Array, _State]] = jit(partial(_step, graph, settings), donate_argnums=1)
    return step


def _step(
    graph: nnx.GraphDef[Any], settings: Settings, state: nnx.State[Any, Any], now: _State, *inputs: Array
) -> tuple[Array, Array, _State]:
    """`_read` of a single token, as one program, in which a layer is traced once for all that are like it."""
    return _read(nnx.merge(graph, state), jax.jit, settings, now, *inputs)


def _read(
    model: Model,
    compiled: Compile,
    settings: Settings,
    now: _State,
    token_ids: Array,
    attention_mask: Array,
    positions: Array,
    query_index: Array,
) -> tuple[Array, Array, _State]:
    """Read tokens (B T) into the cache; give the logits (B V) after them, and the token that is chosen (B 1)."""
    choose = part(compiled, _choose, model.lm_head, settings)
    x, cache = InParts(model, compiled).hidden(token_ids, attention_mask, positions, query_index, now.cache)
    assert cache is not None, "there is one where one is given"
    logits, token, there, key = choose(x, now.there, now.key)
    return logits, token, _State(cache, there, key)


def _choose(
    lm_head: TiedHead | Linear, settings: Settings, x: Array, there: Array, key: Array
) -> tuple[Array, Array, Array, Array]:
    """The logits (B V) after x (B T C), the token that is chosen (B 1), and what `_State` has of the choice."""
    logits = lm_head(x[:, -1:])[:, 0]
    choices = sampling.choices(logits.astype(jnp.float32), there, settings)
    key, own = jax.random.split(key)
    token = sampling.draw(own, choices) if settings.do_sample else jnp.argmax(choices, axis=-1)
    there = there.at[jnp.arange(len(token)), token].set(True)
    # Whole on every device: each process looks at them.
    return constrained(logits), constrained(token[:, None].astype(jnp.int32)), there, key


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
