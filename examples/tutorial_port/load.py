"""From a Hugging Face checkpoint to the model and its variables."""

import json
from pathlib import Path
from typing import Any

from jax import Array
from safetensors.flax import load_file

from examples.tutorial_port.model import Model


def load(folder: str, dtype: str) -> tuple[Model, dict[str, Any]]:
    """PyTorch's weights are (out, in), Flax's kernels (in, out). Raises ValueError for any dtype but float32."""
    if dtype != "float32":
        raise ValueError(f"this model runs in float32, not in {dtype}")
    config = json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))
    stored = load_file(Path(folder, "model.safetensors"))
    tensors = {name: tensor.astype("float32") for name, tensor in stored.items()}

    def scale(name: str) -> dict[str, Array]:
        return {"scale": tensors[f"{name}.weight"]}

    def dense(name: str) -> dict[str, Array]:
        bias = tensors.get(f"{name}.bias")
        return {"kernel": tensors[f"{name}.weight"].T} | ({} if bias is None else {"bias": bias})

    params = {
        "embed": {"embedding": tensors["model.embed_tokens.weight"]},
        "norm": scale("model.norm"),
        "head": dense("lm_head"),
    }
    for n in range(config["num_hidden_layers"]):
        layer = f"model.layers.{n}"
        attention = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "o_proj"}
        params[f"layer_{n}"] = {
            "norm_1": scale(f"{layer}.input_layernorm"),
            "attention": {own: dense(f"{layer}.self_attn.{name}") for own, name in attention.items()},
            "norm_2": scale(f"{layer}.post_attention_layernorm"),
            "mlp": {own: dense(f"{layer}.mlp.{own}_proj") for own in ("gate", "up", "down")},
        }
    return Model(config), {"params": params}
