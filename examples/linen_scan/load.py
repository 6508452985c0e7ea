"""From a Hugging Face checkpoint to the model's variables."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes  # noqa: F401  teaches numpy, and so safetensors, the name bfloat16
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import load_file

from examples.linen_scan.model import Config, Decoder

ALL = 2**30  # the window of a layer that has none


def table(cfg: Config) -> dict[str, tuple[list[str], Any]]:
    """By a parameter's path the tensors that it is made of, joined along their first axis, and what becomes of them.

    `{n}` stands for the layers, which are stacked.
    """
    heads = (-1, cfg.head_dim)

    def qkv(role: str) -> list[str]:
        return [f"model.layers.{{n}}.self_attn.{part}_proj.{role}" for part in "qkv"]

    def one(name: str) -> list[str]:
        return [f"model.layers.{{n}}.{name}.weight"]

    return {
        "embed/embedding": (["model.embed_tokens.weight"], lambda w: w),
        "layers/attention_norm/scale": (one("input_layernorm"), lambda w: w),
        "layers/attention/qkv/kernel": (qkv("weight"), lambda w: w.T.reshape(cfg.width, *heads)),
        "layers/attention/qkv/bias": (qkv("bias"), lambda b: b.reshape(heads)),
        "layers/attention/query_norm/scale": (one("self_attn.q_norm"), lambda w: w),
        "layers/attention/key_norm/scale": (one("self_attn.k_norm"), lambda w: w),
        "layers/attention/out/kernel": (one("self_attn.o_proj"), lambda w: w.T.reshape(*heads, cfg.width)),
        "layers/mlp_norm/scale": (one("post_attention_layernorm"), lambda w: w),
        "layers/mlp/gate_up/kernel": (
            one("mlp.gate_proj") + one("mlp.up_proj"),
            lambda w: w.T.reshape(cfg.width, 2, cfg.inner),
        ),
        "layers/mlp/down/kernel": (one("mlp.down_proj"), lambda w: w.T),
        "final_norm/scale": (["model.norm.weight"], lambda w: w),
        "head/kernel": (["lm_head.weight"], lambda w: w.T),
    }


def read_config(folder: Path, dtype: str) -> Config:
    """Raises ValueError for a model that `Decoder` is not."""
    read = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    rope = read.get("rope_scaling") or read.get("rope_parameters") or {}
    known = read["model_type"] in ("qwen2", "qwen3") and read["hidden_act"] == "silu"
    if not known or read.get("attention_bias"):
        raise ValueError(f"{folder} holds no plain Qwen2 or Qwen3")
    if rope.get("rope_type", rope.get("type", "default")) != "default":
        raise ValueError(f"{folder} scales its rotary frequencies, which this model does not")
    heads, qwen3 = read["num_attention_heads"], read["model_type"] == "qwen3"
    return Config(
        vocab=read["vocab_size"],
        width=read["hidden_size"],
        inner=read["intermediate_size"],
        heads=heads,
        kv_heads=read["num_key_value_heads"],
        head_dim=read.get("head_dim") or read["hidden_size"] // heads,
        eps=read["rms_norm_eps"],
        theta=rope.get("rope_theta", read.get("rope_theta", 10_000.0)),
        windows=tuple(_window(read, layer) for layer in range(read["num_hidden_layers"])),
        qkv_bias=not qwen3,
        qk_norm=qwen3,
        tied=read["tie_word_embeddings"],
        dtype=dtype,
    )


def _window(read: dict[str, Any], layer: int) -> int:
    if not read.get("use_sliding_window"):
        return ALL
    kinds = read.get("layer_types")
    slides = kinds[layer] == "sliding_attention" if kinds else layer >= read["max_window_layers"]
    return read["sliding_window"] if slides else ALL


def load(checkpoint: str, dtype: str) -> tuple[Decoder, dict[str, Any]]:
    """The model and its variables. Raises ValueError where the checkpoint's tensors are not those that it needs."""
    folder = Path(checkpoint)
    cfg = read_config(folder, dtype)
    decoder = Decoder(cfg)
    tensors: dict[str, np.ndarray] = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(path)
    if cfg.tied:
        tensors.pop("lm_head.weight", None)
    ids = jnp.zeros((1, 1), int)
    wanted = jax.eval_shape(decoder.init, jax.random.key(0), ids, ids, ids, ids[0])
    rows, placed = table(cfg), {}
    for path, leaf in flatten_dict(wanted["params"], sep="/").items():
        names, change = rows[path]
        numbers = range(len(cfg.windows)) if path.startswith("layers/") else [None]
        try:
            parts = [[tensors.pop(name.format(n=n)) for name in names] for n in numbers]
        except KeyError as missing:
            raise ValueError(f"{folder} has no tensor {missing}") from None
        layers = [change(np.concatenate(part).astype(leaf.dtype)) for part in parts]
        placed[path] = jnp.asarray(np.stack(layers) if path.startswith("layers/") else layers[0])
        if placed[path].shape != leaf.shape:
            raise ValueError(f"{path} is {placed[path].shape}, but {leaf.shape} was expected")
    if tensors:
        raise ValueError(f"{folder} has tensors that are not used: {', '.join(tensors)}")
    return decoder, {"params": unflatten_dict(placed, sep="/")}
