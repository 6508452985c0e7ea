"""One small model in five ways: an embedding, two layers of a norm, a product and SiLU on a residual stream, a head.

C = 6 channels, V = 11 tokens. Every way has the same parameters, and its own table of where its values are.
"""

from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx
from jax.ad_checkpoint import checkpoint_name

from harness.model import Component
from harness.ports import ModelPort, Param, Tap, function_model, linen_model, nnx_model

LAYERS, C, V = 2, 6, 11
_RANDOM = np.random.default_rng(0)
TENSORS = {
    "model.embed_tokens.weight": _RANDOM.standard_normal((V, C)),
    **{f"model.layers.{n}.input_layernorm.weight": 1 + _RANDOM.random(C) for n in range(LAYERS)},
    **{f"model.layers.{n}.mlp.gate_proj.weight": _RANDOM.standard_normal((C, C)) for n in range(LAYERS)},
    "lm_head.weight": _RANDOM.standard_normal((V, C)),
}
TENSORS = {name: value.astype(np.float32) for name, value in TENSORS.items()}
STACKED = {
    "norm": np.stack([TENSORS[f"model.layers.{n}.input_layernorm.weight"] for n in range(LAYERS)]),
    "gate": np.stack([TENSORS[f"model.layers.{n}.mlp.gate_proj.weight"].T for n in range(LAYERS)]),
}


def _components():
    yield Component("embed_tokens", "embed_tokens", "B T C", "embedding", {"token_ids": "case.token_ids"})
    before = "embed_tokens"
    for n in range(LAYERS):
        layer = f"layers.{n}"
        norm, gate, act = f"{layer}.input_layernorm", f"{layer}.mlp.gate_proj", f"{layer}.mlp.act"
        yield Component(norm, "input_layernorm", "B T C", "rms_norm", {"x": before})
        yield Component(gate, "gate_proj", "B T O", "linear", {"x": norm})
        yield Component(act, "act", "B T F", "silu", {"x": gate})
        before_too = {"residual": before, "branch": act}
        yield Component(f"{layer}.mlp_residual", "mlp_residual", "B T C", "residual", before_too)
        before = f"{layer}.mlp_residual"
    yield Component("lm_head", "lm_head", "B T O", "linear", {"x": before})


COMPONENTS = list(_components())


def norm(x, weight):
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6) * weight


def add(x, y):
    return x + y


class NormNnx(nnx.Module):
    def __init__(self, weight):
        self.scale = nnx.Param(jnp.asarray(weight))

    def __call__(self, x):
        return norm(x, self.scale[...])


class LayerNnx(nnx.Module):
    def __init__(self, weight, kernel):
        self.norm = NormNnx(weight)
        self.gate = nnx.Linear(C, C, use_bias=False, rngs=nnx.Rngs(0))
        self.gate.kernel[...] = jnp.asarray(kernel)

    def __call__(self, x):
        return add(x, jax.nn.silu(self.gate(self.norm(x)))), {"aux": x}


class ModelNnx(nnx.Module):
    def __init__(self, scanned):
        self.table = nnx.Param(jnp.asarray(TENSORS["model.embed_tokens.weight"]))
        self.head = nnx.Param(jnp.asarray(TENSORS["lm_head.weight"].T))
        self.scanned = scanned
        if scanned:
            self.stack = nnx.vmap(LayerNnx)(STACKED["norm"], STACKED["gate"])
        else:
            self.blocks = nnx.List(
                [LayerNnx(*pair) for pair in zip(STACKED["norm"], STACKED["gate"], strict=True)]
            )

    def encode(self, ids):
        return self.table[...][ids]

    def __call__(self, ids):
        x = self.encode(ids)
        if self.scanned:
            x = nnx.scan(lambda x, layer: layer(x)[0], in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)(
                x, self.stack
            )
        else:
            for block in self.blocks:
                x, _ = block(x)
        return x @ self.head[...]


class NormLinen(linen.Module):
    @linen.compact
    def __call__(self, x):
        return norm(x, self.param("scale", linen.initializers.ones, (C,)))


class LayerLinen(linen.Module):
    @linen.compact
    def __call__(self, x, _):
        gate = linen.Dense(C, use_bias=False, name="gate")(NormLinen(name="norm")(x))
        return add(x, jax.nn.silu(gate)), None


class ModelLinen(linen.Module):
    scanned: bool

    @linen.compact
    def __call__(self, ids):
        x = linen.Embed(V, C, name="embed")(ids)
        if self.scanned:
            every = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}, "length": LAYERS}
            x, _ = linen.scan(linen.remat(LayerLinen), **every)(name="layers")(x, None)
        else:
            for n in range(LAYERS):
                x, _ = LayerLinen(name=f"layer_{n}")(x, None)
        return linen.Dense(V, use_bias=False, name="head")(x)


def variables_linen(scanned):
    layers = {"norm": {"scale": STACKED["norm"]}, "gate": {"kernel": STACKED["gate"]}}
    each = {f"layer_{n}": jax.tree.map(lambda x, n=n: x[n], layers) for n in range(LAYERS)}
    ends = {
        "embed": {"embedding": TENSORS["model.embed_tokens.weight"]},
        "head": {"kernel": TENSORS["lm_head.weight"].T},
    }
    return {"params": {**ends, **({"layers": layers} if scanned else each)}}


def plain_function(variables, ids):
    def layer(x, given):
        scale, kernel = given
        x = checkpoint_name(x, "stream")
        gate = checkpoint_name(checkpoint_name(norm(x, scale), "normed") @ kernel, "gate")
        x = checkpoint_name(add(x, checkpoint_name(jax.nn.silu(gate), "act")), "stream after")
        return x, None

    x = checkpoint_name(variables["embed"][ids], "embedded")
    x, _ = jax.lax.scan(jax.checkpoint(layer), x, (variables["layers"]["norm"], variables["layers"]["gate"]))
    return x @ variables["head"]


def run(model, *, token_ids, positions, attention_mask, query_index):
    return model(token_ids)


def _tables(embed, layer, of_layer, **more):
    """layer: where a layer is; of_layer: where its modules are."""
    here = f"{__name__}:"
    return {
        "embed_tokens": Tap(embed),
        "layers.{n}.input_layernorm": Tap(f"{of_layer}.norm"),
        "layers.{n}.mlp.gate_proj": Tap(f"{of_layer}.gate"),
        "layers.{n}.mlp.act": Tap(layer, function="jax.nn:silu"),
        "layers.{n}.mlp_residual": Tap(layer, function=f"{here}add", takes={"residual": "x", "branch": "y"}),
        **more,
    }


def _parameters(embed, head, of_layer, stacked):
    return {
        "model.embed_tokens.weight": Param(embed),
        "model.layers.{n}.input_layernorm.weight": Param(
            f"{of_layer}.norm.scale", "C -> L C" if stacked else ""
        ),
        "model.layers.{n}.mlp.gate_proj.weight": Param(
            f"{of_layer}.gate.kernel", "O I -> L I O" if stacked else "O I -> I O"
        ),
        "lm_head.weight": Param(head, "O I -> I O"),
    }


def nnx_way(scanned):
    at = "stack" if scanned else "blocks.{n}"
    return ModelPort(
        nnx_model(ModelNnx(scanned)),
        run,
        _tables("encode", at, at),
        parameters=_parameters("table", "head", at, scanned),
    )


def linen_way(scanned):
    at = "layers" if scanned else "layer_{n}"
    return ModelPort(
        linen_model(ModelLinen(scanned), variables_linen(scanned)),
        run,
        _tables("embed", at, at, lm_head=Tap("head")),
        parameters=_parameters("embed.embedding", "head.kernel", at, scanned),
    )


def function_way():
    variables = {
        "embed": TENSORS["model.embed_tokens.weight"],
        "layers": STACKED,
        "head": TENSORS["lm_head.weight"].T,
    }
    table = {
        "embed_tokens": Tap(value="embedded"),
        "layers.{n}.input_layernorm": Tap(value="normed", takes={"x": Tap(value="stream")}),
        "layers.{n}.mlp.gate_proj": Tap(value="gate"),
        "layers.{n}.mlp.act": Tap(value="act"),
        "layers.{n}.mlp_residual": Tap(value="stream after", takes={"residual": Tap(value="stream")}),
    }
    parameters = {
        "model.embed_tokens.weight": Param("embed"),
        "model.layers.{n}.input_layernorm.weight": Param("layers.norm", "C -> L C"),
        "model.layers.{n}.mlp.gate_proj.weight": Param("layers.gate", "O I -> L I O"),
        "lm_head.weight": Param("head", "O I -> I O"),
    }
    return ModelPort(function_model(plain_function, variables), run, table, parameters=parameters)


WAYS = {
    "nnx": partial(nnx_way, False),
    "nnx, scanned": partial(nnx_way, True),
    "linen": partial(linen_way, False),
    "linen, scanned and remat": partial(linen_way, True),
    "function": function_way,
}


def reference(ids):
    """Every component's value, in numpy."""
    with np.errstate(over="ignore"):
        values = {"embed_tokens": TENSORS["model.embed_tokens.weight"][ids]}
        x = values["embed_tokens"]
        for n in range(LAYERS):
            layer = f"layers.{n}"
            normed = x / np.sqrt(np.mean(x * x, -1, keepdims=True) + 1e-6)
            normed = normed * TENSORS[f"model.{layer}.input_layernorm.weight"]
            gate = normed @ TENSORS[f"model.{layer}.mlp.gate_proj.weight"].T
            act = gate / (1 + np.exp(-gate))
            x = x + act
            values |= {
                f"{layer}.input_layernorm": normed,
                f"{layer}.mlp.gate_proj": gate,
                f"{layer}.mlp.act": act,
                f"{layer}.mlp_residual": x,
            }
        values["lm_head"] = x @ TENSORS["lm_head.weight"].T
    return SimpleNamespace(values=values, case=case_of(ids))


def case_of(ids):
    batch, tokens = ids.shape
    return {
        "token_ids": ids,
        "positions": np.tile(np.arange(tokens), (batch, 1)),
        "attention_mask": np.ones_like(ids),
        "query_index": np.arange(tokens),
    }
