"""Tiny checkpoints that can show faults: biases that are not zero, norm weights that are not one."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from safetensors.numpy import save_file

from qwen_flax import checkpoint, config
from qwen_flax.model import Model

# q_proj and o_proj are square; three query heads to a key-value head; the window starts at layer 1.
QWEN2 = {
    "model_type": "qwen2",
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "tie_word_embeddings": False,
    "use_sliding_window": True,
    "sliding_window": 5,
    "max_window_layers": 1,
    "max_position_embeddings": 512,
    "eos_token_id": 7,
}
# Heads are wider than hidden / heads, so no projection of attention is square.
QWEN3 = {**QWEN2, "model_type": "qwen3", "head_dim": 10, "attention_bias": True, "tie_word_embeddings": True}


def tensors(raw: Mapping[str, Any], seed: int = 0) -> dict[str, np.ndarray]:
    """Random parameters for a config.json's content, in the reference's names and layout."""
    shapes = nnx.state(nnx.eval_shape(lambda: Model(config.parse(raw), dtype="float32")))
    rng = np.random.default_rng(seed)
    return {
        name: _random(rng, name, assignment.shape)
        for name, assignment in checkpoint.assignments(shapes).items()
    }


def _random(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    values = rng.standard_normal(shape)
    if name.endswith("bias"):
        values *= 0.5
    elif "norm" in name:
        values = 1 + 0.5 * values
    elif "embed_tokens" not in name:
        values *= 1.5 / np.sqrt(shape[1])
    return values.astype(np.float32)


def write(folder: Path, raw: Mapping[str, Any], arrays: Mapping[str, np.ndarray] | None = None) -> Path:
    """A checkpoint folder of one safetensors file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(raw))
    save_file(
        dict(tensors(raw) if arrays is None else arrays), folder / "model.safetensors", {"format": "pt"}
    )
    return folder


def padded_batch() -> dict[str, np.ndarray]:
    """Two texts longer than the window, the second with three tokens of padding on its left."""
    rng = np.random.default_rng(1)
    mask = np.ones((2, 12), np.int32)
    mask[1, :3] = 0
    return {
        "token_ids": rng.integers(0, 97, (2, 12)).astype(np.int32),
        "attention_mask": mask,
        "positions": np.maximum(np.cumsum(mask, axis=1, dtype=np.int32) - 1, 0),
        "query_index": np.arange(12, dtype=np.int32),
    }
