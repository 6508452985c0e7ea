"""tunix's Qwen3 as a port: `--port examples.tunix.qwen3:make`."""

from examples.tunix.common import ATTENTION, HEADS, port
from examples.tunix.load import load
from harness.ports import ModelPort, Param, Tap

ROPE, COS, SIN = "tunix.models.qwen3.model:apply_rope", "jax.numpy:cos", "jax.numpy:sin"
HALF = "B T (Z R) -> B T 1 R"  # Z: what the reference has for both halves of a head, tunix has once


def rope(nth: int, layout: str) -> Tap:
    """Each rotation computes the angles anew. nth: 0 for queries, 1 for keys."""
    cos, sin = (Tap(ATTENTION, function, nth=nth, layout=HALF) for function in (COS, SIN))
    return Tap(ATTENTION, ROPE, nth=nth, layout=layout, takes={"cos": cos, "sin": sin})


COMPONENTS = {
    "rotary_emb.cos": Tap("layers.0.attn", COS, layout=HALF),
    "rotary_emb.sin": Tap("layers.0.attn", SIN, layout=HALF),
    "layers.{n}.self_attn.q_proj": Tap("layers.{n}.attn.q_proj", layout=HEADS),
    "layers.{n}.self_attn.k_proj": Tap("layers.{n}.attn.k_proj", layout=HEADS),
    "layers.{n}.self_attn.v_proj": Tap("layers.{n}.attn.v_proj", layout=HEADS),
    "layers.{n}.self_attn.q_norm": Tap("layers.{n}.attn.q_norm"),
    "layers.{n}.self_attn.k_norm": Tap("layers.{n}.attn.k_norm"),
    "layers.{n}.self_attn.q_rope": rope(0, "B H T D -> B T H D"),
    "layers.{n}.self_attn.k_rope": rope(1, "B K T D -> B T K D"),
}
PARAMETERS = {
    "model.layers.{n}.self_attn.q_norm.weight": Param("layers.{n}.attn.q_norm.w"),
    "model.layers.{n}.self_attn.k_norm.weight": Param("layers.{n}.attn.k_norm.w"),
}


def make(checkpoint: str, *, dtype: str) -> ModelPort:
    in_float32 = ("rotary_emb.cos", "rotary_emb.sin")  # and rounded after that, where no call shows them
    rows = {name: tap for name, tap in COMPONENTS.items() if dtype == "float32" or name not in in_float32}
    return port(load("qwen3", checkpoint, dtype), rows, PARAMETERS)
