"""tunix's Qwen2 as a port: `--port examples.tunix.qwen2:make`."""

from examples.tunix.common import ATTENTION, HEADS, port
from examples.tunix.load import load
from harness.ports import ModelPort, Param, Tap

ROTATE, SHARD = "tunix.models.qwen2.model:apply_rotary_embedding", "tunix.models.qwen2.model:shard"
HALF = "B T (Z R) -> B T R"  # Z: what the reference has for both halves of a head, tunix has once

COMPONENTS = {
    "rotary_emb.cos": Tap("layers.0.attn", argument="cos", layout=HALF),
    "rotary_emb.sin": Tap("layers.0.attn", argument="sin", layout=HALF),
    # with its bias, which is no part of tunix's q_proj
    "layers.{n}.self_attn.q_proj": Tap(ATTENTION, SHARD, nth=0, argument=0, layout=HEADS),
    "layers.{n}.self_attn.k_proj": Tap(ATTENTION, SHARD, nth=1, argument=0, layout=HEADS),
    "layers.{n}.self_attn.v_proj": Tap(ATTENTION, SHARD, nth=2, argument=0, layout=HEADS),
    "layers.{n}.self_attn.q_rope": Tap(ATTENTION, ROTATE, nth=0, layout="B H T D -> B T H D"),
    "layers.{n}.self_attn.k_rope": Tap(ATTENTION, ROTATE, nth=1, layout="B K T D -> B T K D"),
}
PARAMETERS = {
    "model.layers.{n}.self_attn.q_proj.bias": Param("layers.{n}.attn.q_bias"),
    "model.layers.{n}.self_attn.k_proj.bias": Param("layers.{n}.attn.k_bias"),
    "model.layers.{n}.self_attn.v_proj.bias": Param("layers.{n}.attn.v_bias"),
}


def make(checkpoint: str, *, dtype: str) -> ModelPort:
    return port(load("qwen2", checkpoint, dtype), COMPONENTS, PARAMETERS)
