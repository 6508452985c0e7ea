"""Where the components and the parameters of the reference are in this model. Letters: those of model.py."""

from typing import Any

from examples.linen_scan.load import load
from harness.ports import ModelPort, Param, Part, Tap, linen_model

CODE, WEIGHTS = "examples.linen_scan.model", "model.layers.{n}"
LAYER, ATTENTION, MLP = "layers.{n}", "layers.{n}.self_attn", "layers.{n}.mlp"
HALVES, HEADS, SPLIT = "B T (two R) -> B T 1 R", "B T (H D) -> B T H D", "B H T D -> B T H D"
REPEATED, GROUPED = "B (K G) T D -> B T K D", "B (K G) T S -> B K G T S"
Q, K, V = (Part(index, ("K G", "K", "K"), axis=-2) for index in range(3))
GATE, UP = (Part(index, (1, 1), axis=-2) for index in range(2))

COMPONENTS = {
    "embed_tokens": Tap("embed"),
    "rotary_emb.cos": Tap(function=f"{CODE}:turns", result=0, layout=HALVES),
    "rotary_emb.sin": Tap(function=f"{CODE}:turns", result=1, layout=HALVES),
    f"{LAYER}.input_layernorm": Tap("layers.attention_norm"),
    f"{ATTENTION}.q_proj": Tap(value="query", layout=HEADS),
    f"{ATTENTION}.k_proj": Tap(value="key", layout=HEADS),
    f"{ATTENTION}.v_proj": Tap(value="value", layout=HEADS),
    f"{ATTENTION}.q_norm": Tap("layers.attention.query_norm"),
    f"{ATTENTION}.k_norm": Tap("layers.attention.key_norm"),
    f"{ATTENTION}.q_rope": Tap("layers.attention", f"{CODE}:rotate", nth=0, layout=SPLIT),
    f"{ATTENTION}.k_rope": Tap("layers.attention", f"{CODE}:rotate", nth=1, layout=SPLIT),
    f"{ATTENTION}.k_expanded": Tap("layers.attention", f"{CODE}:attend", argument="k", layout=REPEATED),
    f"{ATTENTION}.v_expanded": Tap("layers.attention", f"{CODE}:attend", argument="v", layout=REPEATED),
    f"{ATTENTION}.scores": Tap(value="scores", layout=GROUPED),
    f"{ATTENTION}.probs": Tap(value="probs", layout=GROUPED),
    f"{ATTENTION}.context": Tap("layers.attention.out", argument=0, layout=HEADS),
    f"{ATTENTION}.o_proj": Tap("layers.attention.out"),
    f"{LAYER}.attn_residual": Tap("layers.mlp_norm", argument=0),
    f"{LAYER}.post_attention_layernorm": Tap("layers.mlp_norm"),
    f"{MLP}.gate_proj": Tap("layers.mlp", f"{CODE}:swiglu", argument="gate"),
    f"{MLP}.up_proj": Tap("layers.mlp", f"{CODE}:swiglu", argument="up"),
    f"{MLP}.act": Tap("layers.mlp", "jax.nn:silu"),
    f"{MLP}.gated": Tap("layers.mlp", f"{CODE}:swiglu"),
    f"{MLP}.down_proj": Tap("layers.mlp.down"),
    f"{LAYER}.mlp_residual": Tap("layers", result=0),
    ATTENTION: Tap("layers.attention"),
    MLP: Tap("layers.mlp"),
    LAYER: Tap("layers", result=0),
    "norm": Tap("final_norm"),
}

PARAMETERS = {
    "model.embed_tokens.weight": Param("embed.embedding"),
    f"{WEIGHTS}.input_layernorm.weight": Param("layers.attention_norm.scale", "C -> L C"),
    f"{WEIGHTS}.self_attn.q_proj.weight": Param("layers.attention.qkv.kernel", "(H D) C -> L C H D", Q),
    f"{WEIGHTS}.self_attn.k_proj.weight": Param("layers.attention.qkv.kernel", "(H D) C -> L C H D", K),
    f"{WEIGHTS}.self_attn.v_proj.weight": Param("layers.attention.qkv.kernel", "(H D) C -> L C H D", V),
    f"{WEIGHTS}.self_attn.q_proj.bias": Param("layers.attention.qkv.bias", "(H D) -> L H D", Q),
    f"{WEIGHTS}.self_attn.k_proj.bias": Param("layers.attention.qkv.bias", "(H D) -> L H D", K),
    f"{WEIGHTS}.self_attn.v_proj.bias": Param("layers.attention.qkv.bias", "(H D) -> L H D", V),
    f"{WEIGHTS}.self_attn.q_norm.weight": Param("layers.attention.query_norm.scale", "D -> L D"),
    f"{WEIGHTS}.self_attn.k_norm.weight": Param("layers.attention.key_norm.scale", "D -> L D"),
    f"{WEIGHTS}.self_attn.o_proj.weight": Param("layers.attention.out.kernel", "C (H D) -> L H D C"),
    f"{WEIGHTS}.post_attention_layernorm.weight": Param("layers.mlp_norm.scale", "C -> L C"),
    f"{WEIGHTS}.mlp.gate_proj.weight": Param("layers.mlp.gate_up.kernel", "F C -> L C 1 F", GATE),
    f"{WEIGHTS}.mlp.up_proj.weight": Param("layers.mlp.gate_up.kernel", "F C -> L C 1 F", UP),
    f"{WEIGHTS}.mlp.down_proj.weight": Param("layers.mlp.down.kernel", "C F -> L F C"),
    "model.norm.weight": Param("final_norm.scale"),
    "lm_head.weight": Param("head.kernel", "V C -> C V"),
}


def make(checkpoint: str, *, dtype: str) -> ModelPort:
    decoder, variables = load(checkpoint, dtype)
    kv_heads, heads, head_dim = decoder.cfg.kv_heads, decoder.cfg.heads, decoder.cfg.head_dim
    sizes = {"K": kv_heads, "G": heads // kv_heads, "D": head_dim, "two": 2}
    return ModelPort(linen_model(decoder, variables), run, COMPONENTS, sizes=sizes, parameters=PARAMETERS)


def run(model: Any, token_ids: Any, positions: Any, attention_mask: Any, query_index: Any) -> Any:
    return model(token_ids, positions, attention_mask, query_index)
