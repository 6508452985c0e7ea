"""The parts of a decoder layer. Every step that a golden can be recorded of is a method or a submodule.

Letters: B batch, T query tokens, S key tokens, H query heads, K key-value heads, D head size, C hidden
size, F intermediate size, I and O a product's inputs and outputs, V vocabulary.

The order of casts is the reference's: norms, softmax and SiLU are computed in float32 and rounded to the
model's dtype; everything else stays in that dtype, and products accumulate in float32.

A part's `__call__` is composed of its steps, and of nothing else.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from qwen_flax.cache import LayerCache
from qwen_flax.config import Config
from qwen_flax.rope import rotate
from qwen_flax.sharding import sharded


def product(x: Array, rows: Array) -> Array:
    """x (B T I), rows (O I) -> (B T O), in float32.

    In half precision, a token by itself gets one of zeros beside it. XLA on a CPU multiplies matrices in half
    precision as they are, but to multiply one with a vector it first converts the whole of it to float32: for
    one token, that takes ten times as long.
    """
    alone = x.shape[:2] == (1, 1) and x.dtype.itemsize < 4
    tokens = jnp.pad(x, ((0, 0), (0, 1), (0, 0))) if alone else x
    y = jnp.einsum(
        "bti,oi->bto", tokens, rows, precision=lax.Precision.HIGHEST, preferred_element_type=jnp.float32
    )
    return y[:, :1] if alone else y


class Linear(nnx.Module):
    """W x + b. The kernel is stored as (O I), as the reference stores it."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool, dtype: str):
        self.kernel = nnx.Param(jnp.zeros((outputs, inputs), dtype))
        self.bias = nnx.Param(jnp.zeros(outputs, dtype)) if bias else None

    def __call__(self, x: Array) -> Array:
        """x (B T I) -> (B T O); the bias joins the float32 sum, before it is rounded."""
        y = product(x, self.kernel[...])
        if self.bias is not None:
            y = y + self.bias[...].astype(jnp.float32)
        return y.astype(x.dtype)


class Embedding(nnx.Module):
    """A row of C numbers for each of V tokens."""

    def __init__(self, vocab_size: int, size: int, *, dtype: str):
        self.embedding = nnx.Param(jnp.zeros((vocab_size, size), dtype))

    @sharded("dp")
    def __call__(self, token_ids: Array) -> Array:
        """token_ids (B T) -> (B T C)."""
        return jnp.take(self.embedding[...], token_ids, axis=0)


class TiedHead(nnx.Module):
    """The embedding used backwards: a token's logit is the product of x with its row."""

    def __init__(self, embed_tokens: Embedding):
        self.embed_tokens = embed_tokens

    def __call__(self, x: Array) -> Array:
        """x (B T C) -> (B T V)."""
        y = product(x, self.embed_tokens.embedding[...])
        return y.astype(x.dtype)


class RMSNorm(nnx.Module):
    """x over its root mean square, times a weight per channel."""

    def __init__(self, size: int, *, eps: float, dtype: str):
        self.weight = nnx.Param(jnp.zeros(size, dtype))
        self.eps = eps

    def __call__(self, x: Array) -> Array:
        """x (... C) -> (... C); rounded before the weight is multiplied, as the reference does."""
        wide = x.astype(jnp.float32)
        mean_square = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
        return self.weight[...] * (wide * lax.rsqrt(mean_square + self.eps)).astype(x.dtype)


class HeadNorm(RMSNorm):
    """Qwen3's norm over each head by itself."""

    def __call__(self, x: Array) -> Array:
        """x (B T H·D) -> (B T H D)."""
        return super().__call__(split_heads(x, self.weight.shape[0]))


def split_heads(x: Array, head_dim: int) -> Array:
    """(B T H·D) -> (B T H D); heads that are split already stay so."""
    return x.reshape(*x.shape[:2], -1, head_dim)


class Attention(nnx.Module):
    """Grouped-query attention with causal, padding and sliding-window masks.

    window: how many keys a query sees, its own among them; None sees all before it
    """

    def __init__(self, config: Config, *, window: int | None, dtype: str):
        hidden, size = config.hidden_size, config.head_dim
        queries, keys = config.num_attention_heads * size, config.num_key_value_heads * size
        self.q_proj = Linear(hidden, queries, bias=config.qkv_bias, dtype=dtype)
        self.k_proj = Linear(hidden, keys, bias=config.qkv_bias, dtype=dtype)
        self.v_proj = Linear(hidden, keys, bias=config.qkv_bias, dtype=dtype)
        self.o_proj = Linear(queries, hidden, bias=config.o_bias, dtype=dtype)
        self.q_norm = HeadNorm(size, eps=config.rms_norm_eps, dtype=dtype) if config.qk_norm else None
        self.k_norm = HeadNorm(size, eps=config.rms_norm_eps, dtype=dtype) if config.qk_norm else None
        self.head_dim = size
        self.queries_per_key = config.num_attention_heads // config.num_key_value_heads
        self.window = window

    def __call__(
        self,
        x: Array,
        cos: Array,
        sin: Array,
        attention_mask: Array,
        query_index: Array,
        cache: LayerCache | None,
    ) -> tuple[Array, LayerCache | None]:
        """x (B T C) -> (B T C), and the cache with the keys and values of x in it, if there is one."""
        q = self.q_proj(x)
        k = self.k_proj(x)
        v = self.v_proj(x)
        if self.q_norm is not None and self.k_norm is not None:
            q = self.q_norm(q)
            k = self.k_norm(k)
        q = self.q_rope(q, cos, sin)
        k = self.k_rope(k, cos, sin)
        if cache is not None:
            cache = cache.write(k, v, query_index)
            k, v = cache.read(query_index)
        k = self.k_expanded(k)
        v = self.v_expanded(v)
        scores = self.scores(q, k)
        probs = self.probs(scores, attention_mask, query_index)
        context = self.context(probs, v)
        return self.o_proj(context), cache

    @sharded("dp", "tp")
    def q_rope(self, x: Array, cos: Array, sin: Array) -> Array:
        """x (B T H·D) or (B T H D); cos, sin (B T D) -> (B H T D)."""
        return rotate(jnp.swapaxes(split_heads(x, self.head_dim), 1, 2), cos, sin)

    @sharded("dp", "tp")
    def k_rope(self, x: Array, cos: Array, sin: Array) -> Array:
        """x (B T K·D) or (B T K D); cos, sin (B T D) -> (B K T D)."""
        return rotate(jnp.swapaxes(split_heads(x, self.head_dim), 1, 2), cos, sin)

    @sharded("dp", "tp")
    def k_expanded(self, x: Array) -> Array:
        """x (B K S D) -> (B H S D): each key head once for each query head it serves, in a row."""
        return jnp.repeat(x, self.queries_per_key, axis=1)

    @sharded("dp", "tp")
    def v_expanded(self, x: Array) -> Array:
        """x (B S K·D) -> (B H S D): each value head once for each query head it serves, in a row."""
        heads = jnp.swapaxes(split_heads(x, self.head_dim), 1, 2)
        return jnp.repeat(heads, self.queries_per_key, axis=1)

    def scores(self, q: Array, k: Array) -> Array:
        """q (B H T D), k (B H S D) -> (B H T S), scaled, before the mask.

        The product is rounded before it is scaled; the scale itself is not, as bfloat16 has no 128 ** -0.5.
        """
        products = jnp.einsum(
            "bhtd,bhsd->bhts", q, k, precision=lax.Precision.HIGHEST, preferred_element_type=jnp.float32
        ).astype(q.dtype)
        scaled: Array = products.astype(jnp.float32) * self.head_dim**-0.5
        return scaled.astype(q.dtype)

    def probs(self, scores: Array, attention_mask: Array, query_index: Array) -> Array:
        """scores (B H T S), attention_mask (B S), query_index (T) -> (B H T S).

        A query sees the keys at or before its own index, within the window, that are not padding. What it
        does not see gets the lowest finite score, so that a row of padding, which sees nothing, stays finite.
        """
        key_index = jnp.arange(scores.shape[-1])
        seen = key_index <= query_index[:, None]
        if self.window is not None:
            seen &= key_index > query_index[:, None] - self.window
        seen = seen[None, None] & (attention_mask != 0)[:, None, None]
        lowest = jnp.finfo(scores.dtype).min
        masked = jnp.where(seen, scores, lowest)
        return jax.nn.softmax(masked.astype(jnp.float32), axis=-1).astype(scores.dtype)

    @sharded("dp", None, "tp")
    def context(self, probs: Array, v: Array) -> Array:
        """probs (B H T S), v (B H S D) -> (B T H·D)."""
        heads = jnp.einsum(
            "bhts,bhsd->bhtd", probs, v, precision=lax.Precision.HIGHEST, preferred_element_type=jnp.float32
        ).astype(v.dtype)
        return jnp.swapaxes(heads, 1, 2).reshape(heads.shape[0], heads.shape[2], -1)


class MLP(nnx.Module):
    """SwiGLU."""

    def __init__(self, config: Config, *, dtype: str):
        hidden, inner = config.hidden_size, config.intermediate_size
        self.gate_proj = Linear(hidden, inner, bias=False, dtype=dtype)
        self.up_proj = Linear(hidden, inner, bias=False, dtype=dtype)
        self.down_proj = Linear(inner, hidden, bias=False, dtype=dtype)

    def __call__(self, x: Array) -> Array:
        """x (B T C) -> (B T C)."""
        act = self.act(self.gate_proj(x))
        gated = self.gated(act, self.up_proj(x))
        return self.down_proj(gated)

    def act(self, x: Array) -> Array:
        """SiLU of x (B T F)."""
        wide = x.astype(jnp.float32)
        return (wide / (1 + jnp.exp(-wide))).astype(x.dtype)

    @sharded("dp", None, "tp")
    def gated(self, act: Array, up: Array) -> Array:
        """act, up (B T F) -> (B T F)."""
        return act * up


class DecoderLayer(nnx.Module):
    """Attention, then the MLP: each on a norm of the residual stream, and added back to it."""

    def __init__(self, config: Config, *, window: int | None, dtype: str):
        self.input_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps, dtype=dtype)
        self.self_attn = Attention(config, window=window, dtype=dtype)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps, dtype=dtype)
        self.mlp = MLP(config, dtype=dtype)

    def __call__(
        self,
        x: Array,
        cos: Array,
        sin: Array,
        attention_mask: Array,
        query_index: Array,
        cache: LayerCache | None,
    ) -> tuple[Array, LayerCache | None]:
        """x (B T C) -> (B T C), and the layer's cache."""
        normed = self.input_layernorm(x)
        branch, cache = self.self_attn(normed, cos, sin, attention_mask, query_index, cache)
        x = self.attn_residual(x, branch)
        normed = self.post_attention_layernorm(x)
        branch = self.mlp(normed)
        return self.mlp_residual(x, branch), cache

    @sharded("dp")
    def attn_residual(self, residual: Array, branch: Array) -> Array:
        """residual, branch (B T C) -> (B T C)."""
        return residual + branch

    @sharded("dp")
    def mlp_residual(self, residual: Array, branch: Array) -> Array:
        """residual, branch (B T C) -> (B T C)."""
        return residual + branch
