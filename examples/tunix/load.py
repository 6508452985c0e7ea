"""From a Hugging Face checkpoint to a model of tunix, by tunix's own loader."""

import importlib
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp

# tunix's own __init__ imports its trainers, and with them all that they need: its models are imported without it.
spec = importlib.util.find_spec("tunix")
if spec is None:
    raise ImportError(
        "google-tunix is not installed: pip install --no-deps -r examples/tunix/requirements.txt"
    )
sys.modules.setdefault("tunix", importlib.util.module_from_spec(spec))


def load(family: str, checkpoint: str, dtype: str) -> Any:
    """family: a package of `tunix.models`. Its settings are made of those of config.json that it has."""
    models = importlib.import_module(f"tunix.models.{family}")
    read = json.loads(Path(checkpoint, "config.json").read_text(encoding="utf-8"))
    config = models.model.ModelConfig(
        num_layers=read["num_hidden_layers"],
        vocab_size=read["vocab_size"],
        embed_dim=read["hidden_size"],
        hidden_dim=read["intermediate_size"],
        num_heads=read["num_attention_heads"],
        head_dim=read.get("head_dim") or read["hidden_size"] // read["num_attention_heads"],
        num_kv_heads=read["num_key_value_heads"],
        rope_theta=(read.get("rope_parameters") or read)["rope_theta"],
        norm_eps=read["rms_norm_eps"],
        use_tied_embedding=read["tie_word_embeddings"],
        dtype=jnp.dtype(dtype),
        param_dtype=jnp.dtype(dtype),
    )
    return models.params.create_model_from_safe_tensors(checkpoint, config, dtype=config.dtype)
