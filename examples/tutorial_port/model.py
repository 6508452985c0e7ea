"""Qwen2 in Flax Linen and float32, written as plainly as it can be."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

Config = dict[str, Any]  # config.json


def angles(positions: Array, size: int, base: float) -> Array:
    """(batch, tokens) -> (batch, tokens, 1, size), the same for both halves of a head."""
    half = positions[:, :, None, None] * base ** (-jnp.arange(0, size, 2) / size)
    return jnp.concatenate([half, half], axis=-1)


def rotate(x: Array, cos: Array, sin: Array) -> Array:
    first, second = jnp.split(x, 2, axis=-1)
    return x * cos + jnp.concatenate([-second, first], axis=-1) * sin


def attention_scores(q: Array, k: Array) -> Array:
    return jnp.einsum("bthd,bshd->bhts", q, k) / jnp.sqrt(q.shape[-1])


def attention_weights(scores: Array, mask: Array) -> Array:
    return jax.nn.softmax(jnp.where(mask, scores, -1e30))


class Attention(nn.Module):
    config: Config

    @nn.compact
    def __call__(self, x: Array, cos: Array, sin: Array, mask: Array) -> Array:
        heads, kv_heads = self.config["num_attention_heads"], self.config["num_key_value_heads"]
        size = x.shape[-1] // heads
        q = nn.Dense(heads * size, name="query")(x).reshape(*x.shape[:2], heads, size)
        k = nn.Dense(kv_heads * size, name="key")(x).reshape(*x.shape[:2], kv_heads, size)
        v = nn.Dense(kv_heads * size, name="value")(x).reshape(*x.shape[:2], kv_heads, size)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        k, v = (jnp.repeat(x, heads // kv_heads, axis=2) for x in (k, v))
        weights = attention_weights(attention_scores(q, k), mask)
        context = jnp.einsum("bhts,bshd->bthd", weights, v).reshape(x.shape)
        return nn.Dense(x.shape[-1], use_bias=False, name="out")(context)


class Mlp(nn.Module):
    config: Config

    @nn.compact
    def __call__(self, x: Array) -> Array:
        gate = nn.Dense(self.config["intermediate_size"], use_bias=False, name="gate")(x)
        up = nn.Dense(self.config["intermediate_size"], use_bias=False, name="up")(x)
        return nn.Dense(x.shape[-1], use_bias=False, name="down")(jax.nn.silu(gate) * up)


class Layer(nn.Module):
    config: Config

    @nn.compact
    def __call__(self, x: Array, cos: Array, sin: Array, mask: Array) -> Array:
        eps = self.config["rms_norm_eps"]
        x = x + Attention(self.config, name="attention")(nn.RMSNorm(eps, name="norm_1")(x), cos, sin, mask)
        return x + Mlp(self.config, name="mlp")(nn.RMSNorm(eps, name="norm_2")(x))


class Model(nn.Module):
    config: Config

    @nn.compact
    def __call__(self, tokens: Array, positions: Array, padding: Array, query_index: Array) -> Array:
        """tokens, positions (batch, tokens) and padding (batch, keys) -> logits; query_index (tokens)."""
        config = self.config
        x = nn.Embed(config["vocab_size"], config["hidden_size"], name="embed")(tokens)
        turn = angles(positions, config["hidden_size"] // config["num_attention_heads"], config["rope_theta"])
        cos, sin = jnp.cos(turn), jnp.sin(turn)
        causal = query_index[:, None] >= jnp.arange(padding.shape[1])
        mask = causal & (padding[:, None, None, :] != 0)
        for n in range(config["num_hidden_layers"]):
            x = Layer(config, name=f"layer_{n}")(x, cos, sin, mask)
        x = nn.RMSNorm(config["rms_norm_eps"], name="norm")(x)
        return nn.Dense(config["vocab_size"], use_bias=False, name="head")(x)
