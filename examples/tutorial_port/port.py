"""Where the components of the reference are in the model of docs/port-tutorial.md."""

from typing import Any

from examples.tutorial_port.load import load
from harness.ports import ModelPort, Tap, linen_model

CODE, BLOCK = "examples.tutorial_port.model", "layer_{n}.attention"
LAYER, ATTENTION, MLP = "layers.{n}", "layers.{n}.self_attn", "layers.{n}.mlp"
HEADS, SPLIT, TURNS = "B T (H D) -> B T H D", "B H T D -> B T H D", "B T D -> B T 1 D"


def of_heads(function: str, argument: str, nth: int) -> Tap:
    """A function of split heads; in the reference they lie side by side until then."""
    taken = Tap(BLOCK, function, nth, argument=argument, layout=HEADS)
    return Tap(BLOCK, function, nth, layout=SPLIT, takes={"x": taken})


COMPONENTS = {
    "embed_tokens": Tap("embed"),
    "rotary_emb.cos": Tap(function="jax.numpy:cos", layout=TURNS),
    "rotary_emb.sin": Tap(function="jax.numpy:sin", layout=TURNS),
    f"{LAYER}.input_layernorm": Tap("layer_{n}.norm_1"),
    f"{ATTENTION}.q_proj": Tap("layer_{n}.attention.query"),
    f"{ATTENTION}.k_proj": Tap("layer_{n}.attention.key"),
    f"{ATTENTION}.v_proj": Tap("layer_{n}.attention.value"),
    f"{ATTENTION}.q_rope": of_heads(f"{CODE}:rotate", "x", nth=0),
    f"{ATTENTION}.k_rope": of_heads(f"{CODE}:rotate", "x", nth=1),
    f"{ATTENTION}.k_expanded": Tap(BLOCK, "jax.numpy:repeat", nth=0, layout=SPLIT),
    f"{ATTENTION}.v_expanded": of_heads("jax.numpy:repeat", "a", nth=1),
    f"{ATTENTION}.scores": Tap(BLOCK, f"{CODE}:attention_scores"),
    f"{ATTENTION}.probs": Tap(BLOCK, f"{CODE}:attention_weights"),
    f"{ATTENTION}.context": Tap("layer_{n}.attention.out", argument=0),
    f"{ATTENTION}.o_proj": Tap("layer_{n}.attention.out"),
    f"{LAYER}.attn_residual": Tap("layer_{n}.norm_2", argument=0),
    f"{LAYER}.post_attention_layernorm": Tap("layer_{n}.norm_2"),
    f"{MLP}.gate_proj": Tap("layer_{n}.mlp.gate"),
    f"{MLP}.up_proj": Tap("layer_{n}.mlp.up"),
    f"{MLP}.act": Tap("layer_{n}.mlp", "jax.nn:silu"),
    f"{MLP}.gated": Tap("layer_{n}.mlp.down", argument=0),
    f"{MLP}.down_proj": Tap("layer_{n}.mlp.down"),
    f"{LAYER}.mlp_residual": Tap("layer_{n}"),
    ATTENTION: Tap("layer_{n}.attention"),
    MLP: Tap("layer_{n}.mlp"),
    LAYER: Tap("layer_{n}"),
    "norm": Tap("norm"),
    "lm_head": Tap("head"),
}


def make(checkpoint: str, *, dtype: str) -> ModelPort:
    model, variables = load(checkpoint, dtype)
    sizes = {"D": model.config["hidden_size"] // model.config["num_attention_heads"]}
    return ModelPort(linen_model(model, variables), run, COMPONENTS, sizes=sizes)


def run(model: Any, token_ids: Any, positions: Any, attention_mask: Any, query_index: Any) -> Any:
    return model(token_ids, positions, attention_mask, query_index)
