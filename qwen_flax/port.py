"""How the harness drives this model. The only file that knows the harness."""

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from harness.replay.port import NotOffered
from qwen_flax import cache as caches
from qwen_flax import checkpoint as checkpoints
from qwen_flax import config as configs
from qwen_flax.cache import Cache
from qwen_flax.config import Config
from qwen_flax.model import Model
from qwen_flax.steps import Tap, components, jit

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
    return Port(checkpoints.load(checkpoint, config, dtype=dtype), config, dtype)


class Port:
    """A model to be replayed: traced as a whole, asked for one component, or run through its cache."""

    def __init__(self, model: Model, config: Config, dtype: str):
        self._model, self._config, self._dtype = model, config, dtype
        self._components = components(model)

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

    def init_cache(self, batch: int, capacity: int, fill: float) -> Cache:
        """A cache of `capacity` slots, all holding `fill`."""
        return caches.init(self._config, batch, capacity, self._dtype, fill)

    def step(
        self, cache: Cache, inputs: Mapping[str, Any], names: Collection[str]
    ) -> tuple[dict[str, Array], Cache]:
        """Read `token_ids`, `positions` (B t) into the slots `query_index` (t); `attention_mask` (B capacity).

        Returns those of `names` that there are, and the cache; the one that is given is used up.
        """
        graph, state = nnx.split(self._model)
        stepped: tuple[dict[str, Array], Cache] = _step(
            graph, frozenset(names), state, cache, _arrays(inputs)
        )
        return stepped

    def read_cache(self, cache: Cache) -> dict[str, Array]:
        """Every layer's `k_rope` (B K capacity D) and `v_proj` (B capacity K·D), as they were written."""
        return {
            f"layers.{n}.self_attn.{step}": value
            for n, layer in enumerate(cache)
            for step, value in (("k_rope", layer.k), ("v_proj", layer.v))
        }

    def parameters(self) -> dict[str, np.ndarray]:
        """All parameters by their names and in the layout of the reference."""
        return checkpoints.read_parameters(nnx.split(self._model)[1])

    def with_parameters(self, overrides: Mapping[str, Any]) -> "Port":
        """A port with some parameters replaced, given as `parameters` gives them; it shares the others.

        Raises CheckpointError for names there are not, and for other shapes.
        """
        graph, state = nnx.split(self._model)
        changed = checkpoints.replaced(state, overrides, dtype=self._dtype)
        return Port(nnx.merge(graph, changed), self._config, self._dtype)


def _arrays(inputs: Mapping[str, Any]) -> dict[str, Array]:
    return {name: jnp.asarray(value) for name, value in inputs.items()}


@partial(jit, static_argnums=(0, 1))
def _trace(
    graph: nnx.GraphDef[Any], names: frozenset[str], state: nnx.State[Any, Any], inputs: dict[str, Array]
) -> dict[str, Array]:
    kept: dict[str, Array] = {}
    nnx.merge(graph, state)(**inputs, tap=_keeping(names, kept))
    return kept


@partial(jit, static_argnums=(0, 1), donate_argnames="cache")
def _step(
    graph: nnx.GraphDef[Any],
    names: frozenset[str],
    state: nnx.State[Any, Any],
    cache: Cache,
    inputs: dict[str, Array],
) -> tuple[dict[str, Array], Cache]:
    """Compiles once for each number of tokens and capacity."""
    kept: dict[str, Array] = {}
    tap, model = _keeping(names, kept), nnx.merge(graph, state)
    x, cache = model.hidden(**inputs, cache=cache, tap=tap)
    tap("lm_head", model.lm_head(x))
    return kept, cache


def _keeping(names: frozenset[str], kept: dict[str, Array]) -> Tap:
    """The tap that puts the values of `names` into `kept`."""

    def keep(name: str, value: Array) -> Array:
        if name in names:
            kept[name] = value
        return value

    return keep


@partial(jit, static_argnums=(0, 1))
def _apply(
    graph: nnx.GraphDef[Any], step: str, state: nnx.State[Any, Any], inputs: dict[str, Array]
) -> Array:
    """One compilation for all modules of the same settings and shapes: parameters are arguments."""
    output: Array = getattr(nnx.merge(graph, state), step)(**inputs)
    return output
