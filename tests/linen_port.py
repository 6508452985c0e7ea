"""A second port of Qwen2, Qwen2.5 and dense Qwen3, in Flax Linen: right, and different wherever rounding lets it be.

It shares nothing with the first one, so that what both pass is no habit of either. In exact arithmetic it is the same
model; in another order it is rounded elsewhere:

- q, k and v are one product, gate and up another; every product is the sum of two halves of its inputs
- a bias is added after the product was rounded; norm weights are multiplied before, and the root divides
- rotary frequencies are exponentials, and the two halves of a head are turned apart
- queries are scaled before they meet the keys, in groups around their key-value head, which is never repeated
- softmax leaves out what a query does not see instead of giving it a low score; SiLU is x times a sigmoid
"""

import json
import re
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes  # noqa: F401  teaches numpy, and so safetensors, the name bfloat16
import numpy as np
from flax.traverse_util import flatten_dict
from jax import Array
from safetensors.numpy import load_file

from harness.replay.port import NotOffered
from tests.linen_model import MLP, Attention, Layer, Model, Norm, Rotary, Shape, Weighted

Tensors = Mapping[str, Any]
_jit = partial(jax.jit, compiler_options={"xla_allow_excess_precision": False})
"""Without it XLA leaves out roundings to bfloat16 between the steps that it fuses."""


def make(checkpoint: str, *, dtype: str) -> "Port":
    """The port of the checkpoint in a folder. Raises ValueError for a dtype or a model that it does not run."""
    if dtype not in ("float32", "bfloat16", "float16"):
        raise ValueError(f"dtype is {dtype!r}, but float32, bfloat16 or float16 was expected")
    folder = Path(checkpoint)
    shape = read_shape(folder, dtype)
    tensors = {
        name: t for path in sorted(folder.glob("*.safetensors")) for name, t in load_file(path).items()
    }
    if json.loads((folder / "config.json").read_text(encoding="utf-8"))["tie_word_embeddings"]:
        tensors.pop("lm_head.weight", None)
    return Port(shape, {name: value.astype(dtype) for name, value in tensors.items()})


class Port:
    """tensors: by the reference's names, in its layout and in the port's dtype."""

    def __init__(self, shape: Shape, tensors: Tensors):
        self._shape, self._tensors, self._params = shape, tensors, _tree(tensors, shape)

    def trace(self, inputs: Mapping[str, Any], names: Collection[str]) -> dict[str, Array]:
        return _traced(Model(self._shape), frozenset(names), self._params, dict(inputs))

    def apply(self, name: str, inputs: Mapping[str, Any]) -> dict[str, Array]:
        module, params, step = self._found(name)
        return {name: _applied(module, step, params, dict(inputs))}

    def parameters(self) -> dict[str, Any]:
        return dict(self._tensors)

    def with_parameters(self, overrides: Mapping[str, Any]) -> "Port":
        for name, value in overrides.items():
            if name not in self._tensors or np.shape(value) != self._tensors[name].shape:
                raise ValueError(f"there is no parameter {name} of shape {np.shape(value)}")
        given = {name: np.asarray(value).astype(self._shape.dtype) for name, value in overrides.items()}
        return Port(self._shape, {**self._tensors, **given})

    def _found(self, name: str) -> tuple[Weighted, Mapping[str, Any], str]:
        """The module that a component is a step of, alone, with its own parameters. Equal layers are equal modules."""
        path, _, step = name.rpartition(".")
        layer = re.fullmatch(r"layers\.(\d+)(?:\.(self_attn|mlp))?", path)
        if name in ("embed_tokens", "lm_head"):
            return Model(self._shape), self._params, name
        if path == "rotary_emb":
            return Rotary(self._shape), {}, step
        if name == "norm":
            return Norm(self._shape), self._params["norm"], "__call__"
        if layer is None or step in ("self_attn", "mlp"):
            raise NotOffered(name)
        params, part = self._params[f"layers_{layer[1]}"], layer[2]
        params = params[part] if part else params
        if step.endswith("norm"):
            return Norm(self._shape, per_head=part is not None), params[step], "__call__"
        window = self._shape.windows[int(layer[1])]
        modules = {"self_attn": Attention(self._shape, window), "mlp": MLP(self._shape)}
        return modules.get(part, Layer(self._shape)), params, step


def read_shape(folder: Path, dtype: str) -> Shape:
    """Raises ValueError for a model that is computed otherwise."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    rope = config.get("rope_parameters") or {"rope_theta": config.get("rope_theta", 1e4)}
    known = (config["model_type"] in ("qwen2", "qwen3"), config["hidden_act"] == "silu")
    if not all(known) or rope.get("rope_type", "default") != "default" or config.get("rope_scaling"):
        raise ValueError(f"{folder} holds no plain Qwen2 or Qwen3 model")
    heads = config["num_attention_heads"]
    return Shape(
        heads=heads,
        kv_heads=config["num_key_value_heads"],
        head_dim=config.get("head_dim") or config["hidden_size"] // heads,
        inner=config["intermediate_size"],
        eps=config["rms_norm_eps"],
        theta=rope["rope_theta"],
        windows=tuple(_window(config, layer) for layer in range(config["num_hidden_layers"])),
        dtype=dtype,
    )


def _window(config: dict[str, Any], layer: int) -> int | None:
    if not config.get("use_sliding_window"):
        return None
    kinds = config.get("layer_types")
    slides = kinds[layer] == "sliding_attention" if kinds else layer >= config["max_window_layers"]
    return config["sliding_window"] if slides else None


def _tree(tensors: Tensors, shape: Shape) -> dict[str, Any]:
    """The reference's tensors as the modules have them: products (I O), those with the same input side by side."""

    def dense(prefix: str, *parts: str) -> dict[str, Array]:
        names = [f"{prefix}.{part}" for part in parts]
        found = {"weight": np.concatenate([tensors[f"{name}.weight"] for name in names]).T}
        if f"{names[0]}.bias" in tensors:
            found["bias"] = np.concatenate([tensors[f"{name}.bias"] for name in names])
        return {role: jnp.asarray(value, shape.dtype) for role, value in found.items()}

    def vector(name: str) -> dict[str, Array]:
        return {"weight": jnp.asarray(tensors[f"{name}.weight"], shape.dtype)}

    def layer(prefix: str) -> dict[str, Any]:
        attention = {
            "qkv": dense(f"{prefix}.self_attn", "q_proj", "k_proj", "v_proj"),
            "out": dense(f"{prefix}.self_attn", "o_proj"),
        }
        if f"{prefix}.self_attn.q_norm.weight" in tensors:
            attention |= {name: vector(f"{prefix}.self_attn.{name}") for name in ("q_norm", "k_norm")}
        mlp = {
            "gate_up": dense(f"{prefix}.mlp", "gate_proj", "up_proj"),
            "down": dense(f"{prefix}.mlp", "down_proj"),
        }
        norms = {name: vector(f"{prefix}.{name}") for name in ("input_layernorm", "post_attention_layernorm")}
        return {"self_attn": attention, "mlp": mlp, **norms}

    layers = {f"layers_{n}": layer(f"model.layers.{n}") for n in range(len(shape.windows))}
    ends = {"embedding": jnp.asarray(tensors["model.embed_tokens.weight"], shape.dtype)}
    if "lm_head.weight" in tensors:
        ends["head"] = jnp.asarray(tensors["lm_head.weight"], shape.dtype).T
    return {**ends, **layers, "norm": vector("model.norm")}


@partial(_jit, static_argnums=(0, 1))
def _traced(model: Model, names: frozenset[str], params: Any, inputs: dict[str, Array]) -> dict[str, Array]:
    _, kept = model.apply({"params": params}, **inputs, mutable=["steps"])
    values = {}
    for path, (value,) in flatten_dict(kept["steps"], sep=".").items():
        name = re.sub(r"^layers_", "layers.", path).removesuffix(".output")
        if name in names:
            values[name] = value
    return values


@partial(_jit, static_argnums=(0, 1))
def _applied(module: Weighted, step: str, params: Any, inputs: dict[str, Array]) -> Array:
    return module.apply({"params": params}, **inputs, method=step)
