"""How the components of a small model hang together: the table of docs/architecture.md, as a golden file tells it."""

from harness.kinds.table import STEPS
from harness.model import Component
from qwen_flax import port as ports
from tests.qwen_flax import tiny

ARGUMENTS = {
    "embed_tokens": {"token_ids": "case.token_ids"},
    "rotary_emb.cos": {"positions": "case.positions"},
    "rotary_emb.sin": {"positions": "case.positions"},
    "norm": {"x": "layers.2"},
    "lm_head": {"x": "norm"},
}
KINDS = {
    **dict.fromkeys(("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"), "linear"),
    **dict.fromkeys(("input_layernorm", "post_attention_layernorm", "norm"), "rms_norm"),
    **dict.fromkeys(("attn_residual", "mlp_residual"), "residual"),
    **dict.fromkeys(("q_norm", "k_norm"), "head_norm"),
    **dict.fromkeys(("q_rope", "k_rope"), "rope"),
    "embed_tokens": "embedding",
    "act": "silu",
    "lm_head": "linear",
    "k_expanded": "expand_keys",
    "v_expanded": "expand_values",
}


def arguments(raw):
    """Each component's arguments, and where they come from: the table of docs/architecture.md."""
    table = dict(ARGUMENTS)
    for n in range(raw["num_hidden_layers"]):
        before = f"layers.{n - 1}" if n else "embed_tokens"
        layer, attn, mlp = f"layers.{n}", f"layers.{n}.self_attn", f"layers.{n}.mlp"
        norms = raw["model_type"] == "qwen3"
        for part in "qk":
            if norms:
                table[f"{attn}.{part}_norm"] = {"x": f"{attn}.{part}_proj"}
            x = f"{attn}.{part}_norm" if norms else f"{attn}.{part}_proj"
            table[f"{attn}.{part}_rope"] = {"x": x, "cos": "rotary_emb.cos", "sin": "rotary_emb.sin"}
        for part in "qkv":
            table[f"{attn}.{part}_proj"] = {"x": f"{layer}.input_layernorm"}
        masks = {"attention_mask": "case.attention_mask", "query_index": "case.query_index"}
        table |= {
            f"{layer}.input_layernorm": {"x": before},
            f"{attn}.k_expanded": {"x": f"{attn}.k_rope"},
            f"{attn}.v_expanded": {"x": f"{attn}.v_proj"},
            f"{attn}.scores": {"q": f"{attn}.q_rope", "k": f"{attn}.k_expanded"},
            f"{attn}.probs": {"scores": f"{attn}.scores", **masks},
            f"{attn}.context": {"probs": f"{attn}.probs", "v": f"{attn}.v_expanded"},
            f"{attn}.o_proj": {"x": f"{attn}.context"},
            f"{layer}.attn_residual": {"residual": before, "branch": f"{attn}.o_proj"},
            f"{layer}.post_attention_layernorm": {"x": f"{layer}.attn_residual"},
            f"{mlp}.gate_proj": {"x": f"{layer}.post_attention_layernorm"},
            f"{mlp}.up_proj": {"x": f"{layer}.post_attention_layernorm"},
            f"{mlp}.act": {"x": f"{mlp}.gate_proj"},
            f"{mlp}.gated": {"act": f"{mlp}.act", "up": f"{mlp}.up_proj"},
            f"{mlp}.down_proj": {"x": f"{mlp}.gated"},
            f"{layer}.mlp_residual": {"residual": f"{layer}.attn_residual", "branch": f"{mlp}.down_proj"},
        }
    return table


def components(raw):
    for name, takes in arguments(raw).items():
        kind = name.rpartition(".")[2]
        step = KINDS.get(kind, kind)
        yield Component(name, kind=kind, axes=STEPS[step].output, step=step, inputs=takes)


def make(folder, *, dtype, raw=tiny.QWEN2, **options):
    """A port that knows how its components hang together, as a golden file tells it."""
    port = ports.make(folder, dtype=dtype, **options)
    port.wire(components(raw))
    return port
