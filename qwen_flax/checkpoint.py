"""From a checkpoint's tensors to the model's parameters, and back, through one table.

The table gives for every parameter its name in the reference, its path in the model and its layout. Nothing
about layout is ever concluded from a shape: a square projection has the same shape either way round.
"""

import enum
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax import Array

from qwen_flax.config import Config
from qwen_flax.model import Model
from qwen_flax.tensor_file import CheckpointError, StoredTensor, tensors_of


class Layout(enum.Enum):
    """How the model stores what the reference stores."""

    AS_IS = "as is"
    TRANSPOSED = "transposed"  # the reference's Linear holds (O I), this model's (I O)


@dataclass(frozen=True)
class Row:
    """`reference` and `path` name a parameter there and here; `{n}` in both is a layer's number."""

    reference: str
    path: str
    layout: Layout


TABLE = (
    Row("model.embed_tokens.weight", "embed_tokens.embedding", Layout.AS_IS),
    Row("model.layers.{n}.input_layernorm.weight", "layers.{n}.input_layernorm.weight", Layout.AS_IS),
    Row("model.layers.{n}.self_attn.q_proj.weight", "layers.{n}.self_attn.q_proj.kernel", Layout.TRANSPOSED),
    Row("model.layers.{n}.self_attn.q_proj.bias", "layers.{n}.self_attn.q_proj.bias", Layout.AS_IS),
    Row("model.layers.{n}.self_attn.k_proj.weight", "layers.{n}.self_attn.k_proj.kernel", Layout.TRANSPOSED),
    Row("model.layers.{n}.self_attn.k_proj.bias", "layers.{n}.self_attn.k_proj.bias", Layout.AS_IS),
    Row("model.layers.{n}.self_attn.v_proj.weight", "layers.{n}.self_attn.v_proj.kernel", Layout.TRANSPOSED),
    Row("model.layers.{n}.self_attn.v_proj.bias", "layers.{n}.self_attn.v_proj.bias", Layout.AS_IS),
    Row("model.layers.{n}.self_attn.q_norm.weight", "layers.{n}.self_attn.q_norm.weight", Layout.AS_IS),
    Row("model.layers.{n}.self_attn.k_norm.weight", "layers.{n}.self_attn.k_norm.weight", Layout.AS_IS),
    Row("model.layers.{n}.self_attn.o_proj.weight", "layers.{n}.self_attn.o_proj.kernel", Layout.TRANSPOSED),
    Row("model.layers.{n}.self_attn.o_proj.bias", "layers.{n}.self_attn.o_proj.bias", Layout.AS_IS),
    Row(
        "model.layers.{n}.post_attention_layernorm.weight",
        "layers.{n}.post_attention_layernorm.weight",
        Layout.AS_IS,
    ),
    Row("model.layers.{n}.mlp.gate_proj.weight", "layers.{n}.mlp.gate_proj.kernel", Layout.TRANSPOSED),
    Row("model.layers.{n}.mlp.up_proj.weight", "layers.{n}.mlp.up_proj.kernel", Layout.TRANSPOSED),
    Row("model.layers.{n}.mlp.down_proj.weight", "layers.{n}.mlp.down_proj.kernel", Layout.TRANSPOSED),
    Row("model.norm.weight", "norm.weight", Layout.AS_IS),
    Row("lm_head.weight", "lm_head.kernel", Layout.TRANSPOSED),
)

# Old versions of the reference saved RoPE's inverse frequencies, which are computed from rope_theta.
_COMPUTED = re.compile(r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq")

ParameterPath = tuple[Any, ...]
State = nnx.State[Any, Any]


@dataclass(frozen=True)
class Assignment:
    """One parameter of one model: where it is, how it lies there, and its shape in the reference's layout."""

    path: ParameterPath
    layout: Layout
    shape: tuple[int, ...]


def assignments(model: State) -> dict[str, Assignment]:
    """For every parameter of a model (or of its shapes alone) its name in the reference, in forward order.

    Raises LookupError for a parameter that is not in the table: nothing could fill it.
    """
    rows = {row.path: row for row in TABLE}
    found = {}
    for path, leaf in nnx.to_flat_state(model):
        numbers = [part for part in path if isinstance(part, int)]
        row = rows.get(".".join("{n}" if isinstance(part, int) else str(part) for part in path))
        if row is None:
            raise LookupError(f"the table of checkpoint.py has no row for the parameter {path}")
        shape = tuple(leaf.shape)
        name = row.reference.format(n=numbers[0]) if numbers else row.reference
        found[name] = Assignment(path, row.layout, shape[::-1] if row.layout is Layout.TRANSPOSED else shape)
    return found


def load(folder: str | Path, config: Config, *, dtype: str) -> Model:
    """The model of the checkpoint in `folder`, its parameters in `dtype`.

    Tensors are read and placed one by one: no more than the model and the tensor at hand is in memory.
    Raises CheckpointError, which lists all missing and surplus tensors and all wrong shapes together.
    """
    graph, shapes = nnx.split(nnx.eval_shape(lambda: Model(config, dtype=dtype)))
    wanted = assignments(shapes)
    stored = {name: t for name, t in tensors_of(folder).items() if not _COMPUTED.fullmatch(name)}
    if config.tie_word_embeddings:
        stored = _without_tied_copy(stored)
    _compare(str(folder), wanted, {name: tensor.shape for name, tensor in stored.items()})

    leaves = {a.path: _placed(stored[name].read(), a.layout, dtype) for name, a in wanted.items()}
    return nnx.merge(graph, _state(shapes, leaves))


def _state(like: State, leaves: Mapping[ParameterPath, Array]) -> State:
    filled: State = nnx.from_flat_state(
        [(path, leaf.replace(leaves[path])) for path, leaf in nnx.to_flat_state(like)]
    )
    return filled


def _without_tied_copy(stored: dict[str, StoredTensor]) -> dict[str, StoredTensor]:
    """Without `lm_head.weight`, which a checkpoint with tied embeddings may hold as a copy.

    Where it is no copy, transformers 4 ties all the same and transformers 5 does not: that is refused.
    """
    head, embedding = stored.get("lm_head.weight"), stored.get("model.embed_tokens.weight")
    if head is None or embedding is None:
        return stored
    if head.shape != embedding.shape or not np.array_equal(head.read(), embedding.read(), equal_nan=True):
        raise CheckpointError(
            f"{head.file}: lm_head.weight is not equal to model.embed_tokens.weight although "
            "config.json ties them; set tie_word_embeddings to false, or take lm_head.weight out"
        )
    return {name: tensor for name, tensor in stored.items() if name != "lm_head.weight"}


def _compare(source: str, wanted: Mapping[str, Assignment], shapes: Mapping[str, tuple[int, ...]]) -> None:
    wrong = [
        f"{name} {list(shapes[name])} instead of {list(a.shape)}"
        for name, a in wanted.items()
        if name in shapes and tuple(shapes[name]) != a.shape
    ]
    findings = [
        _listed("missing", [name for name in wanted if name not in shapes]),
        _listed("surplus", sorted(name for name in shapes if name not in wanted)),
        _listed("of another shape", wrong),
    ]
    if any(findings):
        raise CheckpointError(f"{source} does not fit its config.json: {'; '.join(filter(None, findings))}")


def _listed(what: str, names: Iterable[str]) -> str:
    names = list(names)
    return f"{len(names)} {what}: {', '.join(names)}" if names else ""


def _placed(stored: np.ndarray, layout: Layout, dtype: str) -> Array:
    """On the device, in the model's dtype and layout. float64 is rounded on the host: JAX holds none here.

    Nobody else holds `stored`: its memory may be used as it is instead of copied.
    """
    if stored.dtype == np.float64:
        stored = stored.astype(np.float32)
    placed: Array = _converted(jax.device_put(stored, may_alias=True), layout, dtype)
    return placed.block_until_ready()


@partial(jax.jit, static_argnums=(1, 2))
def _converted(x: Array, layout: Layout, dtype: str) -> Array:
    return (x.T if layout is Layout.TRANSPOSED else x).astype(dtype)
