"""Tiny models of many architectures, with random numbers everywhere, biases and norm weights too."""

from pathlib import Path
from typing import Any

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
TYPES = ["sliding_attention", "full_attention"]
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {"mlp_bias": True, "attention_bias": True}),
    "mistral": ("Mistral", {"sliding_window": 4, "head_dim": 8}),
    "qwen2": ("Qwen2", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}),
    "qwen3": ("Qwen3", {"head_dim": 16, "tie_word_embeddings": True}),
    "gemma": ("Gemma", {"head_dim": 16, "hidden_size": 24}),
    "gemma2": (
        "Gemma2",
        {
            "head_dim": 16,
            "hidden_size": 24,
            "query_pre_attn_scalar": 12,
            "sliding_window": 4,
            "attn_logit_softcapping": 5.0,
            "final_logit_softcapping": 3.0,
            "layer_types": TYPES,
        },
    ),
    "gemma3": (
        "Gemma3Text",
        {
            "head_dim": 16,
            "hidden_size": 24,
            "query_pre_attn_scalar": 12,
            "sliding_window": 4,
            "layer_types": TYPES,
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            },
        },
    ),
    "phi3": ("Phi3", {"sliding_window": 5}),
    "olmo2": ("Olmo2", {}),
    "granite": (
        "Granite",
        {
            "embedding_multiplier": 12.3,
            "attention_multiplier": 0.3,
            "residual_multiplier": 0.22,
            "logits_scaling": 3.0,
            "attention_bias": True,
        },
    ),
    "starcoder2": ("Starcoder2", {"use_bias": True, "sliding_window": 4}),
    "smollm3": ("SmolLM3", {"no_rope_layers": [1, 0]}),
    "stablelm": ("StableLm", {"use_qkv_bias": True}),
    "cohere": ("Cohere", {"logit_scale": 0.4}),
    "qwen3_moe": (
        "Qwen3Moe",
        {
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "head_dim": 8,
            "decoder_sparse_step": 1,
        },
    ),
}


def make(folder: Path, architecture: str, **changes: Any) -> Path:
    """A checkpoint of the architecture in `folder`, drawn from a fixed seed."""
    import torch
    import transformers

    name, own = ARCHITECTURES[architecture]
    torch.manual_seed(1)
    config = getattr(transformers, f"{name}Config")(**{**SIZES, **own, **changes})
    model = getattr(transformers, f"{name.removesuffix('Text')}ForCausalLM")(config)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.3 + (1.0 if "norm" in parameter_name else 0.0))
    model.save_pretrained(folder)
    return folder
