"""What the ports of tunix's decoders share: how they are run, and where their values and parameters are."""

from functools import partial
from typing import Any

from jax import Array

from examples.tunix.cache import empty, read, step
from harness.ports import Cache, CachedPort, Param, Tap, nnx_model

ATTENTION = "layers.{n}.attn"
EINSUM = "jax.numpy:einsum"  # the first of the two in attention makes scores, the second the context
HEADS, COPIES, GROUPS = "B T (H D) -> B T H D", "B (K G) T D -> B T K D", "B (K G) T S -> B K G T S"

COMPONENTS = {
    "embed_tokens": Tap("embedder.encode"),
    "layers.{n}.input_layernorm": Tap("layers.{n}.input_layernorm"),
    "layers.{n}.self_attn.k_expanded": Tap(ATTENTION, EINSUM, nth=0, argument=2, layout=COPIES),
    "layers.{n}.self_attn.v_expanded": Tap(ATTENTION, EINSUM, nth=1, argument=2, layout=COPIES),
    "layers.{n}.self_attn.scores": Tap(ATTENTION, "jax.numpy:where", argument=1, layout=GROUPS),
    "layers.{n}.self_attn.probs": Tap(ATTENTION, EINSUM, nth=1, argument=1, layout=GROUPS),
    "layers.{n}.self_attn.context": Tap("layers.{n}.attn.o_proj", argument=0, layout=HEADS),
    "layers.{n}.self_attn.o_proj": Tap("layers.{n}.attn.o_proj"),
    "layers.{n}.self_attn": Tap(ATTENTION, result=1),
    "layers.{n}.attn_residual": Tap("layers.{n}.post_attention_layernorm", argument=0),
    "layers.{n}.post_attention_layernorm": Tap("layers.{n}.post_attention_layernorm"),
    "layers.{n}.mlp.gate_proj": Tap("layers.{n}.mlp.gate_proj"),
    "layers.{n}.mlp.up_proj": Tap("layers.{n}.mlp.up_proj"),
    "layers.{n}.mlp.act": Tap("layers.{n}.mlp", "flax.nnx:silu"),
    "layers.{n}.mlp.gated": Tap("layers.{n}.mlp.down_proj", argument=0),
    "layers.{n}.mlp.down_proj": Tap("layers.{n}.mlp.down_proj"),
    "layers.{n}.mlp": Tap("layers.{n}.mlp"),
    "layers.{n}.mlp_residual": Tap("layers.{n}", result=1),
    "layers.{n}": Tap("layers.{n}", result=1),
    "norm": Tap("final_norm"),
}
PARAMETERS = {
    "model.embed_tokens.weight": Param("embedder.input_embedding"),
    "model.layers.{n}.input_layernorm.weight": Param("layers.{n}.input_layernorm.w"),
    "model.layers.{n}.self_attn.q_proj.weight": Param("layers.{n}.attn.q_proj.w", "(H D) C -> C H D"),
    "model.layers.{n}.self_attn.k_proj.weight": Param("layers.{n}.attn.k_proj.w", "(K D) C -> C K D"),
    "model.layers.{n}.self_attn.v_proj.weight": Param("layers.{n}.attn.v_proj.w", "(K D) C -> C K D"),
    "model.layers.{n}.self_attn.o_proj.weight": Param("layers.{n}.attn.o_proj.w", "C (H D) -> H D C"),
    "model.layers.{n}.post_attention_layernorm.weight": Param("layers.{n}.post_attention_layernorm.w"),
    "model.layers.{n}.mlp.gate_proj.weight": Param("layers.{n}.mlp.gate_proj.kernel", "F C -> C F"),
    "model.layers.{n}.mlp.up_proj.weight": Param("layers.{n}.mlp.up_proj.kernel", "F C -> C F"),
    "model.layers.{n}.mlp.down_proj.weight": Param("layers.{n}.mlp.down_proj.kernel", "C F -> F C"),
    "model.norm.weight": Param("final_norm.w"),
}


def port(model: Any, components: dict[str, Tap], parameters: dict[str, Param]) -> CachedPort:
    """components, parameters: the rows that not all of tunix's decoders have."""
    cfg, rows, table = model.config, COMPONENTS | components, PARAMETERS | parameters
    rows["lm_head"] = Tap("embedder.decode" if cfg.use_tied_embedding else "lm_head")
    if not cfg.use_tied_embedding:
        table["lm_head.weight"] = Param("lm_head.w", "V C -> C V")
    sizes = {"K": cfg.num_kv_heads, "G": cfg.num_heads // cfg.num_kv_heads, "D": cfg.head_dim, "Z": 2}
    return CachedPort(
        nnx_model(model),
        logits,
        rows,
        cache=Cache(partial(empty, cfg), step, read),
        sizes=sizes,
        parameters=table,
        precision="highest",
    )


def logits(model: Any, **inputs: Array) -> Array:
    found: Array = step(model, None, **inputs)[0]
    return found
