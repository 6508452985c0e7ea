"""From a checkpoint's tensors to the model's parameters, and back, through one table.

The table gives for every parameter its name in the reference and its path in the model. All lie as the reference
stores them; nothing is transposed, so that a parameter is read straight into its place.
"""

import math
import os
import re
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.sharding import Mesh

from qwen_flax import sharding
from qwen_flax.config import Config
from qwen_flax.model import Model
from qwen_flax.tensor_file import CheckpointError, StoredTensor, tensors_of


@dataclass(frozen=True)
class Row:
    """`reference` and `path` name a parameter there and here; `{n}` in both is a layer's number."""

    reference: str
    path: str


TABLE = (
    Row("model.embed_tokens.weight", "embed_tokens.embedding"),
    Row("model.layers.{n}.input_layernorm.weight", "layers.{n}.input_layernorm.weight"),
    Row("model.layers.{n}.self_attn.q_proj.weight", "layers.{n}.self_attn.q_proj.kernel"),
    Row("model.layers.{n}.self_attn.q_proj.bias", "layers.{n}.self_attn.q_proj.bias"),
    Row("model.layers.{n}.self_attn.k_proj.weight", "layers.{n}.self_attn.k_proj.kernel"),
    Row("model.layers.{n}.self_attn.k_proj.bias", "layers.{n}.self_attn.k_proj.bias"),
    Row("model.layers.{n}.self_attn.v_proj.weight", "layers.{n}.self_attn.v_proj.kernel"),
    Row("model.layers.{n}.self_attn.v_proj.bias", "layers.{n}.self_attn.v_proj.bias"),
    Row("model.layers.{n}.self_attn.q_norm.weight", "layers.{n}.self_attn.q_norm.weight"),
    Row("model.layers.{n}.self_attn.k_norm.weight", "layers.{n}.self_attn.k_norm.weight"),
    Row("model.layers.{n}.self_attn.o_proj.weight", "layers.{n}.self_attn.o_proj.kernel"),
    Row("model.layers.{n}.self_attn.o_proj.bias", "layers.{n}.self_attn.o_proj.bias"),
    Row(
        "model.layers.{n}.post_attention_layernorm.weight",
        "layers.{n}.post_attention_layernorm.weight",
    ),
    Row("model.layers.{n}.mlp.gate_proj.weight", "layers.{n}.mlp.gate_proj.kernel"),
    Row("model.layers.{n}.mlp.up_proj.weight", "layers.{n}.mlp.up_proj.kernel"),
    Row("model.layers.{n}.mlp.down_proj.weight", "layers.{n}.mlp.down_proj.kernel"),
    Row("model.norm.weight", "norm.weight"),
    Row("lm_head.weight", "lm_head.kernel"),
)

# Old versions of the reference saved RoPE's inverse frequencies, which are computed from rope_theta.
_COMPUTED = re.compile(r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq")

ParameterPath = tuple[Any, ...]
State = nnx.State[Any, Any]


@dataclass(frozen=True)
class Assignment:
    """One parameter of one model: where it is, and its shape."""

    path: ParameterPath
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
        name = row.reference.format(n=numbers[0]) if numbers else row.reference
        found[name] = Assignment(path, tuple(leaf.shape))
    return found


def load(folder: str | Path, config: Config, *, dtype: str, mesh: Mesh | None = None) -> Model:
    """The model of the checkpoint in `folder`, its parameters in `dtype`, spread over `mesh` if there is one.

    No more than the model is in memory: tensors are read into their place.
    Raises CheckpointError, as `opened` does.
    """
    model, parameters = opened(folder, config, dtype=dtype, mesh=mesh)
    graph, shapes = nnx.split(model)
    return nnx.merge(graph, _filled(shapes, parameters))


def opened(
    folder: str | Path, config: Config, *, dtype: str, mesh: Mesh | None = None
) -> tuple[Model, "Parameters"]:
    """The model of the checkpoint in `folder` by its shapes alone, and its parameters, of which none is read yet.

    Raises CheckpointError, which lists all missing and surplus tensors and all wrong shapes together.
    """
    model = nnx.eval_shape(lambda: Model(config, dtype=dtype))
    _, shapes = nnx.split(model)
    wanted = assignments(shapes)
    stored = {name: t for name, t in tensors_of(folder).items() if not _COMPUTED.fullmatch(name)}
    if config.tie_word_embeddings:
        stored = _without_tied_copy(stored)
    _compare(str(folder), wanted, {name: tensor.shape for name, tensor in stored.items()})

    def placed(path: ParameterPath, tensor: np.ndarray) -> Array:
        leaf = jax.device_put(tensor, may_alias=True)  # nobody else holds it
        return leaf if mesh is None else sharding.placed(path, leaf, mesh, config)

    return model, Parameters(
        {named(a.path): (a.path, stored[name]) for name, a in wanted.items()}, jnp.dtype(dtype), placed
    )


def named(path: ParameterPath) -> str:
    """A parameter's path, written: `layers.0.self_attn.q_proj.kernel`."""
    return ".".join(map(str, path))


class Parameters(Mapping[str, Array]):
    """A checkpoint's parameters by their paths in the model, in its dtype, each read when it is asked for.

    The files stay open, so that they may be gone by then.
    """

    def __init__(
        self,
        stored: Mapping[str, tuple[ParameterPath, StoredTensor]],
        dtype: np.dtype,
        placed: Callable[[ParameterPath, np.ndarray], Array],
    ) -> None:
        self._stored, self._dtype, self._placed = stored, dtype, placed
        self._files = {file: file.open("rb") for file in {tensor.file for _, tensor in stored.values()}}
        for file in self._files.values():
            weakref.finalize(self, file.close)

    def __getitem__(self, path: str) -> Array:
        where, tensor = self._stored[path]
        return self._placed(where, tensor.read_from(self._files[tensor.file], self._dtype))

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)


def _filled(like: State, parameters: Mapping[str, Array]) -> State:
    """Read by several threads at once: reading and converting hold no lock of the interpreter.

    The largest first, so that no thread is left alone with the embedding at the end.
    """
    leaves = sorted(nnx.to_flat_state(like), key=lambda leaf: -math.prod(leaf[1].shape))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        values = list(pool.map(lambda leaf: parameters[named(leaf[0])], leaves))
    filled: State = nnx.from_flat_state(
        [(path, leaf.replace(value)) for (path, leaf), value in zip(leaves, values, strict=True)]
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
