"""Qwen2, Qwen2.5 and dense Qwen3 in Flax Linen: layers under `nn.scan`, fused projections, grouped attention.

Letters: B batch, T queries, S keys, H query heads, K key-value heads, G query heads to a key-value head, D head size,
C width, F inner width, V vocabulary, L layers.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.ad_checkpoint import checkpoint_name


@dataclass(frozen=True)
class Config:
    """windows: for each layer how many keys a query sees, its own among them."""

    vocab: int
    width: int
    inner: int
    heads: int
    kv_heads: int
    head_dim: int
    eps: float
    theta: float
    windows: tuple[int, ...]
    qkv_bias: bool
    qk_norm: bool
    tied: bool
    dtype: str

    @property
    def kind(self) -> dict[str, str]:
        return {"dtype": self.dtype, "param_dtype": self.dtype}


class Attention(nn.Module):
    cfg: Config

    @nn.compact
    def __call__(self, x: Array, cos: Array, sin: Array, seen: Array) -> Array:
        """x (B T C), cos and sin (B T 1 D/2), seen (B T S) -> (B T C)."""
        cfg, norm = self.cfg, partial(nn.RMSNorm, self.cfg.eps, **self.cfg.kind)
        features = (cfg.heads + 2 * cfg.kv_heads, cfg.head_dim)
        qkv = nn.DenseGeneral(features, use_bias=cfg.qkv_bias, name="qkv", **cfg.kind)(x)
        q, k, v = jnp.split(qkv, [cfg.heads, cfg.heads + cfg.kv_heads], axis=2)
        q, k, v = checkpoint_name(q, "query"), checkpoint_name(k, "key"), checkpoint_name(v, "value")
        if cfg.qk_norm:
            q, k = norm(name="query_norm")(q), norm(name="key_norm")(k)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        context = attend(q, k, v, seen)
        return nn.DenseGeneral(cfg.width, axis=(-2, -1), use_bias=False, name="out", **cfg.kind)(context)


def turns(positions: Array, cfg: Config) -> tuple[Array, Array]:
    """positions (B T) -> cos and sin (B T 1 D/2)."""
    angles = positions[:, :, None, None] * cfg.theta ** -(jnp.arange(0, cfg.head_dim, 2) / cfg.head_dim)
    return jnp.cos(angles).astype(cfg.dtype), jnp.sin(angles).astype(cfg.dtype)


def rotate(x: Array, cos: Array, sin: Array) -> Array:
    """x (B T H D), whose halves are the two coordinates of each pair, turned by its angles."""
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def attend(q: Array, k: Array, v: Array, seen: Array) -> Array:
    """q (B T H D), k and v (B S K D), seen (B T S) -> (B T H D). No key or value is repeated for its G queries."""
    grouped = q.reshape(*q.shape[:2], k.shape[2], -1, q.shape[3])
    products = jnp.einsum("btkgd,bskd->bkgts", grouped, k, preferred_element_type=jnp.float32)
    scores = checkpoint_name((products * q.shape[3] ** -0.5).astype(q.dtype), "scores")
    masked = jnp.where(seen[:, None, None], scores, jnp.finfo(scores.dtype).min)
    probs = checkpoint_name(jax.nn.softmax(masked.astype(jnp.float32)).astype(q.dtype), "probs")
    return jnp.einsum("bkgts,bskd->btkgd", probs, v).reshape(q.shape)


class FeedForward(nn.Module):
    cfg: Config

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """x (B T C) -> (B T C)."""
        dense = partial(nn.DenseGeneral, use_bias=False, **self.cfg.kind)
        both = dense((2, self.cfg.inner), name="gate_up")(x)
        return dense(self.cfg.width, name="down")(swiglu(both[..., 0, :], both[..., 1, :]))


def swiglu(gate: Array, up: Array) -> Array:
    return jax.nn.silu(gate) * up


class Block(nn.Module):
    cfg: Config

    @nn.compact
    def __call__(
        self, x: Array, window: Array, turned: tuple[Array, Array], distance: Array
    ) -> tuple[Array, None]:
        """x (B T C) is carried from layer to layer; distance (B T S) from a query back to a key, negative if unseen."""
        norm = partial(nn.RMSNorm, self.cfg.eps, **self.cfg.kind)
        seen = (distance >= 0) & (distance < window)
        x = x + Attention(self.cfg, name="attention")(norm(name="attention_norm")(x), *turned, seen)
        return x + FeedForward(self.cfg, name="mlp")(norm(name="mlp_norm")(x)), None


class Decoder(nn.Module):
    cfg: Config

    @nn.compact
    def __call__(self, tokens: Array, positions: Array, padding: Array, query_index: Array) -> Array:
        """tokens, positions (B T); padding (B S), 0 for no token; query_index (T), where queries stand -> (B T V)."""
        cfg = self.cfg
        embed = nn.Embed(cfg.vocab, cfg.width, name="embed", **cfg.kind)
        distance = query_index[:, None] - jnp.arange(padding.shape[1])
        distance = jnp.where(padding[:, None, :] != 0, distance, -1)
        layers = nn.scan(
            Block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(0, nn.broadcast, nn.broadcast),
            length=len(cfg.windows),
        )
        windows, turned = jnp.array(cfg.windows), turns(positions, cfg)
        x, _ = layers(cfg, name="layers")(embed(tokens), windows, turned, distance)
        x = nn.RMSNorm(cfg.eps, name="final_norm", **cfg.kind)(x)
        if cfg.tied:
            return embed.attend(x)
        return nn.Dense(cfg.vocab, use_bias=False, name="head", **cfg.kind)(x)
