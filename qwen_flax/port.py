"""How the harness drives this model. The only file that knows the harness."""

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from harness.replay.port import NotOffered
from qwen_flax import checkpoint as checkpoints
from qwen_flax import config as configs
from qwen_flax.model import Model
from qwen_flax.steps import components, jit

_DTYPES = ("float32", "bfloat16", "float16")


def make(checkpoint: str, *, dtype: str, mesh: Any = None) -> "Port":
    """The port of the checkpoint in a folder, run in `dtype` ("float32", "bfloat16" or "float16").

    Raises ConfigError or CheckpointError, both ValueErrors, with one sentence.
    """
    if dtype not in _DTYPES:
        raise ValueError(f"dtype is {dtype!r}, but one of {', '.join(_DTYPES)} was expected")
    if mesh is not None:
        raise ValueError(f"mesh is {mesh!r}, but this port runs on one device: leave it out")
    config = configs.read(checkpoint)
    return Port(checkpoints.load(checkpoint, config, dtype=dtype), dtype)


class Port:
    """A model to be replayed: traced as a whole, or asked for one component."""

    def __init__(self, model: Model, dtype: str):
        self._model, self._dtype, self._components = model, dtype, components(model)

    def trace(self, inputs: Mapping[str, Any], names: Collection[str]) -> dict[str, Array]:
        """Run on `token_ids`, `positions` (B T), `attention_mask` (B S), `query_index` (T), without a cache.

        Returns those of `names` that there are, composites too.
        """
        graph, state = nnx.split(self._model)
        traced: dict[str, Array] = _trace(graph, frozenset(names), state, _arrays(inputs))
        return traced

    def apply(self, name: str, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """Run component `name` on its named inputs, by the code that the forward pass runs.

        Raises NotOffered for composites, and for names there are not.
        """
        if name not in self._components:
            raise NotOffered(name)
        owner, step = self._components[name]
        graph, state = nnx.split(owner)
        return {name: _apply(graph, step, state, _arrays(inputs))}

    def parameters(self) -> dict[str, np.ndarray]:
        """All parameters by their names and in the layout of the reference."""
        return checkpoints.read_parameters(nnx.split(self._model)[1])

    def with_parameters(self, overrides: Mapping[str, Any]) -> "Port":
        """A port with some parameters replaced, given as `parameters` gives them; it shares the others.

        Raises CheckpointError for names there are not, and for other shapes.
        """
        graph, state = nnx.split(self._model)
        return Port(nnx.merge(graph, checkpoints.replaced(state, overrides, dtype=self._dtype)), self._dtype)


def _arrays(inputs: Mapping[str, Any]) -> dict[str, Array]:
    return {name: jnp.asarray(value) for name, value in inputs.items()}


@partial(jit, static_argnums=(0, 1))
def _trace(
    graph: nnx.GraphDef[Any], names: frozenset[str], state: nnx.State[Any, Any], inputs: dict[str, Array]
) -> dict[str, Array]:
    kept: dict[str, Array] = {}

    def keep(name: str, value: Array) -> Array:
        if name in names:
            kept[name] = value
        return value

    nnx.merge(graph, state)(**inputs, tap=keep)
    return kept


@partial(jit, static_argnums=(0, 1))
def _apply(
    graph: nnx.GraphDef[Any], step: str, state: nnx.State[Any, Any], inputs: dict[str, Array]
) -> Array:
    """One compilation for all modules of the same settings and shapes: parameters are arguments."""
    output: Array = getattr(nnx.merge(graph, state), step)(**inputs)
    return output
