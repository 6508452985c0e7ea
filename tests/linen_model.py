"""Qwen2, Qwen2.5 and dense Qwen3 as Flax Linen modules; `tests/linen_port.py` says what is different in them.

Letters: B batch, T query tokens, S key tokens, H query heads, K key-value heads, G query heads to a key-value head,
D head size, C hidden size, F intermediate size, I and O a product's inputs and outputs, V vocabulary.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array


@dataclass(frozen=True)
class Shape:
    """What the modules need of config.json. window: how many keys a query sees in each layer, None for all."""

    heads: int
    kv_heads: int
    head_dim: int
    inner: int
    eps: float
    theta: float
    windows: tuple[int | None, ...]
    dtype: str

    @property
    def groups(self) -> int:
        return self.heads // self.kv_heads


def product(x: Array, weight: Array) -> Array:
    """x (... I), weight (I O) -> (... O) in float32: half of the inputs, as on one of two devices, then the others."""
    middle = x.shape[-1] // 2
    x, weight = x.astype(jnp.float32), weight.astype(jnp.float32)
    dot = partial(jnp.matmul, precision="highest")
    return dot(x[..., :middle], weight[:middle]) + dot(x[..., middle:], weight[middle:])


def summed(axes: str, x: Array, y: Array) -> Array:
    """A product of x and y, summed in float32."""
    return jnp.einsum(axes, x.astype(jnp.float32), y.astype(jnp.float32), precision="highest")


class Weighted(nn.Module):
    """A module whose parameters are given, never made."""

    shape: Shape

    def given(self, name: str) -> Array:
        if self.has_variable("params", name):
            return self.get_variable("params", name)
        raise ValueError(f"{type(self).__name__} has no parameter {name!r}")

    def keep(self, name: str, value: Array) -> Array:
        """Hand a step's value out, if anybody asked for such."""
        self.sow("steps", name, value)
        return value


class Dense(Weighted):
    """One product, or several with the same input, in one matrix."""

    def __call__(self, x: Array) -> Array:
        """x (B T I) -> (B T O)."""
        y = product(x, self.given("weight")).astype(x.dtype)
        return y + self.given("bias") if self.has_variable("params", "bias") else y


class Norm(Weighted):
    """Over the last axis, or over each head. The weight is multiplied in float32, and all is rounded once."""

    per_head: bool = False

    def __call__(self, x: Array) -> Array:
        """x (B T C) -> (B T C); of heads, x (B T H·D) -> (B T H D)."""
        wide = x.astype(jnp.float32)
        if self.per_head:
            wide = wide.reshape(*x.shape[:2], -1, self.shape.head_dim)
        power = jnp.einsum("...c,...c->...", wide, wide, precision="highest") / wide.shape[-1]
        weighted = wide * self.given("weight").astype(jnp.float32)
        return self.keep("output", (weighted / jnp.sqrt(power + self.shape.eps)[..., None]).astype(x.dtype))


class Rotary(Weighted):
    """The angle of each pair of channels at each position, in float32 whatever the dtype."""

    def cos(self, positions: Array) -> Array:
        """positions (B T) -> (B T D)."""
        return self.keep("cos", self._of_angles(jnp.cos, positions))

    def sin(self, positions: Array) -> Array:
        """positions (B T) -> (B T D)."""
        return self.keep("sin", self._of_angles(jnp.sin, positions))

    def _of_angles(self, function: Any, positions: Array) -> Array:
        size = self.shape.head_dim
        rates = np.exp(np.arange(0, size, 2, dtype=np.float32) * np.float32(-np.log(self.shape.theta) / size))
        half = function(positions[..., None].astype(jnp.float32) * rates)
        return jnp.tile(half, 2).astype(self.shape.dtype)


class Attention(Weighted):
    """Queries in groups around their key-value head."""

    window: int | None = None

    def setup(self) -> None:
        self.qkv = Dense(self.shape)
        self.out = Dense(self.shape)
        self.q_norm = Norm(self.shape, per_head=True)
        self.k_norm = Norm(self.shape, per_head=True)

    def __call__(self, x: Array, cos: Array, sin: Array, mask: Array, query_index: Array) -> Array:
        """x (B T C) -> (B T C)."""
        q, k, v = (
            self.keep(f"{name}_proj", part) for name, part in zip("qkv", self.projected(x), strict=True)
        )
        if self.has_variable("params", "q_norm"):
            q, k = self.q_norm(q), self.k_norm(k)
        q = self.keep("q_rope", self.q_rope(q, cos, sin))
        k = self.keep("k_rope", self.k_rope(k, cos, sin))
        v = self.split(v)
        self.keep("k_expanded", self.shared(k))
        self.keep("v_expanded", self.shared(v))
        scores = self.keep("scores", self.grouped_scores(q, k))
        probs = self.keep("probs", self.probs(scores, mask, query_index))
        context = self.keep("context", self.grouped_context(probs, v))
        return self.keep("output", self.keep("o_proj", self.o_proj(context)))

    def projected(self, x: Array) -> list[Array]:
        """x (B T C) -> q (B T H·D), k and v (B T K·D)."""
        size = self.shape.head_dim
        ends = [self.shape.heads * size, (self.shape.heads + self.shape.kv_heads) * size]
        return jnp.split(self.qkv(x), ends, axis=-1)

    def q_proj(self, x: Array) -> Array:
        return self.projected(x)[0]

    def k_proj(self, x: Array) -> Array:
        return self.projected(x)[1]

    def v_proj(self, x: Array) -> Array:
        return self.projected(x)[2]

    def o_proj(self, x: Array) -> Array:
        return self.out(x)

    def split(self, x: Array) -> Array:
        """(B T H·D) or (B T H D) -> (B H T D)."""
        return jnp.moveaxis(x.reshape(*x.shape[:2], -1, self.shape.head_dim), 2, 1)

    def q_rope(self, x: Array, cos: Array, sin: Array) -> Array:
        """x (B T H·D) or (B T H D); cos, sin (B T D), whose halves are alike -> (B H T D)."""
        first, second = jnp.split(self.split(x).astype(jnp.float32), 2, axis=-1)
        half = self.shape.head_dim // 2
        cos, sin = (turn[:, None, :, :half].astype(jnp.float32) for turn in (cos, sin))
        turned = (first * cos - second * sin, second * cos + first * sin)
        return jnp.concatenate(turned, axis=-1).astype(x.dtype)

    k_rope = q_rope

    def shared(self, x: Array) -> Array:
        """x (B K S D) -> (B H S D): which key-value head each query head meets. Nothing is computed with it."""
        return x[:, jnp.arange(self.shape.heads) // self.shape.groups]

    def k_expanded(self, x: Array) -> Array:
        return self.shared(x)

    def v_expanded(self, x: Array) -> Array:
        """x (B S K·D) -> (B H S D)."""
        return self.shared(self.split(x))

    def in_groups(self, x: Array) -> Array:
        """(B H ...) -> (B K G ...)."""
        return x.reshape(x.shape[0], self.shape.kv_heads, self.shape.groups, *x.shape[2:])

    def grouped_scores(self, q: Array, k: Array) -> Array:
        """q (B H T D), k (B K S D) -> (B H T S)."""
        q = (q.astype(jnp.float32) / self.shape.head_dim**0.5).astype(q.dtype)
        scores = summed("bkgtd,bksd->bkgts", self.in_groups(q), k)
        return scores.reshape(*q.shape[:3], -1).astype(q.dtype)

    def scores(self, q: Array, k: Array) -> Array:
        """k (B H S D), of which the first of each group stands for all."""
        return self.grouped_scores(q, k[:, :: self.shape.groups])

    def probs(self, scores: Array, attention_mask: Array, query_index: Array) -> Array:
        """scores (B H T S), attention_mask (B S), query_index (T) -> (B H T S). A row that sees nothing sees all."""
        behind = query_index[:, None] - jnp.arange(attention_mask.shape[1])
        seen = (behind >= 0) & (behind < (self.window or jnp.inf))
        seen = (seen & attention_mask.astype(bool)[:, None])[:, None]
        seen |= ~seen.any(axis=-1, keepdims=True)
        return jax.nn.softmax(scores.astype(jnp.float32), where=seen).astype(scores.dtype)

    def grouped_context(self, probs: Array, v: Array) -> Array:
        """probs (B H T S), v (B K S D) -> (B T H·D)."""
        heads = summed("bkgts,bksd->btkgd", self.in_groups(probs), v)
        return heads.reshape(*heads.shape[:2], -1).astype(v.dtype)

    def context(self, probs: Array, v: Array) -> Array:
        """v (B H S D), of which the first of each group stands for all."""
        return self.grouped_context(probs, v[:, :: self.shape.groups])


class MLP(Weighted):
    """SwiGLU, gate and up in one product."""

    def setup(self) -> None:
        self.gate_up = Dense(self.shape)
        self.down = Dense(self.shape)

    def __call__(self, x: Array) -> Array:
        """x (B T C) -> (B T C)."""
        gate, up = jnp.split(self.gate_up(x), 2, axis=-1)
        act = self.keep("act", self.act(self.keep("gate_proj", gate)))
        gated = self.keep("gated", self.gated(act, self.keep("up_proj", up)))
        return self.keep("output", self.keep("down_proj", self.down_proj(gated)))

    def gate_proj(self, x: Array) -> Array:
        return self.gate_up(x)[..., : self.shape.inner]

    def up_proj(self, x: Array) -> Array:
        return self.gate_up(x)[..., self.shape.inner :]

    def act(self, x: Array) -> Array:
        return x * jax.nn.sigmoid(x.astype(jnp.float32)).astype(x.dtype)

    def gated(self, act: Array, up: Array) -> Array:
        return up * act

    def down_proj(self, x: Array) -> Array:
        return self.down(x)


class Layer(Weighted):
    window: int | None = None

    def setup(self) -> None:
        self.input_layernorm = Norm(self.shape)
        self.self_attn = Attention(self.shape, self.window)
        self.post_attention_layernorm = Norm(self.shape)
        self.mlp = MLP(self.shape)

    def __call__(self, x: Array, *context: Array) -> Array:
        """x (B T C) -> (B T C)."""
        x = self.keep(
            "attn_residual", self.attn_residual(x, self.self_attn(self.input_layernorm(x), *context))
        )
        x = self.keep("mlp_residual", self.mlp_residual(x, self.mlp(self.post_attention_layernorm(x))))
        return self.keep("output", x)

    def attn_residual(self, residual: Array, branch: Array) -> Array:
        return branch + residual

    mlp_residual = attn_residual


class Model(Weighted):
    def setup(self) -> None:
        self.rotary_emb = Rotary(self.shape)
        self.layers = [Layer(self.shape, window) for window in self.shape.windows]
        self.norm = Norm(self.shape)

    def __call__(
        self, token_ids: Array, attention_mask: Array, positions: Array, query_index: Array
    ) -> Array:
        """The logits (B T V)."""
        x = self.keep("embed_tokens", self.embed_tokens(token_ids))
        cos, sin = self.rotary_emb.cos(positions), self.rotary_emb.sin(positions)
        for layer in self.layers:
            x = layer(x, cos, sin, attention_mask, query_index)
        return self.keep("lm_head", self.lm_head(self.norm(x)))

    def embed_tokens(self, token_ids: Array) -> Array:
        """token_ids (B T) -> (B T C)."""
        return self.given("embedding").at[token_ids].get(mode="fill")

    def lm_head(self, x: Array) -> Array:
        """x (B T C) -> (B T V); a tied head is the embedding, transposed."""
        head = self.given("head") if self.has_variable("params", "head") else self.given("embedding").T
        return product(x, head).astype(x.dtype)
