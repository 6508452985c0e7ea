"""A port that is run through its own cache, too."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from harness.ports.gathered import gathered
from harness.ports.port import Arrays, ModelPort, Traced

Array = Any


@dataclass(frozen=True)
class Cache:
    """A model's cache, any pytree of arrays.

    init: called as `init(batch, capacity, fill)`, makes one whose slots all hold `fill`
    run: called as `run(model, cache, token_ids=, positions=, attention_mask=, query_index=)`, gives the logits (B t V)
        and the cache with the tokens in the slots `query_index` (t); `attention_mask` (B capacity)
    read: what a cache holds, in the reference's axes, by the component that it was put out by:
        `layers.0.self_attn.k_rope` (B K capacity D), `layers.0.self_attn.v_proj` (B capacity K·D)
    """

    init: Callable[[int, int, float], Any]
    run: Callable[..., tuple[Array, Any]]
    read: Callable[[Any], Mapping[str, Array]]


class CachedPort(ModelPort):
    """A `ModelPort` with decode."""

    def __init__(self, *arguments: Any, cache: Cache, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._cache = cache

    def init_cache(self, batch: int, capacity: int, fill: float) -> Any:
        return self._cache.init(batch, capacity, fill)

    def read_cache(self, cache: Any) -> Mapping[str, Array]:
        return {name: gathered(value) for name, value in self._cache.read(cache).items()}

    def step(self, cache: Any, inputs: Arrays, names: Collection[str]) -> tuple[dict[str, Array], Any]:
        """The next tokens; those of `names` that the table has, and the cache with the tokens in it."""
        leaves, tree = jax.tree.flatten(cache)
        held = {f"cache.{number:06}": leaf for number, leaf in enumerate(leaves)}
        given = {**{name: jnp.asarray(value) for name, value in inputs.items()}, **held}

        def run(model: Any, **inputs: Array) -> Any:
            own = {name: value for name, value in inputs.items() if name not in held}
            return self._cache.run(model, jax.tree.unflatten(tree, [inputs[name] for name in held]), **own)

        shapes = tuple((name, np.shape(value), str(value.dtype)) for name, value in given.items())
        traced: Traced = self.traced(run, given, ("step", shapes))
        handed_out, rest = self.values(traced, names, given, also=traced.program.outputs[1:])
        return handed_out, jax.tree.unflatten(tree, rest)
