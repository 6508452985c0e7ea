"""What this port understood of a checkpoint's configuration, as JSON has it."""

from dataclasses import fields
from typing import Any

from qwen_flax.config import Config, RopeScaling
from qwen_flax.sampling import Settings

_LENGTH = "original_max_position_embeddings"
_SCALED_BY: dict[str, tuple[str, ...]] = {
    "linear": (),
    "dynamic": (_LENGTH,),
    "yarn": (_LENGTH, "attention_factor", "beta_fast", "beta_slow", "truncate"),
    "llama3": (_LENGTH, "low_freq_factor", "high_freq_factor"),
}
"""Rope type -> the numbers beside its factor that it depends on."""


def settings(config: Config, sampling: Settings | None) -> dict[str, Any]:
    """Setting -> value; null for what is not there, or does nothing. sampling: None where it is not known."""
    chosen = (
        {}
        if sampling is None
        else {f"generation.{f.name}": getattr(sampling, f.name) for f in fields(sampling)}
    )
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": _rope_scaling(config.rope_scaling),
        "windows": list(config.windows),
        "scaling": config.head_dim**-0.5,
        "hidden_act": "silu",
        "qkv_bias": config.qkv_bias,
        "o_bias": config.o_bias,
        "mlp_bias": False,
        "qk_norm": config.qk_norm,
        "tie_word_embeddings": config.tie_word_embeddings,
        "eos_token_ids": sorted(config.eos_token_ids),
        "dtype": config.dtype,
        **chosen,
    }


def _rope_scaling(scaling: RopeScaling | None) -> dict[str, Any] | None:
    if scaling is None:
        return None
    names = ("rope_type", "factor", *_SCALED_BY[scaling.rope_type])
    return {name: getattr(scaling, name) for name in names}
