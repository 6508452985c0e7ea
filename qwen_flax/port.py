"""How the harness drives this model. The only file that knows the harness."""

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from harness.replay.port import NotOffered
from qwen_flax import cache as caches
from qwen_flax import checkpoint as checkpoints
from qwen_flax import config as configs
from qwen_flax import sampling
from qwen_flax.cache import Cache
from qwen_flax.config import Config, ConfigError
from qwen_flax.generate import generate
from qwen_flax.model import Model
from qwen_flax.settings import settings
from qwen_flax.steps import Tap, components, jit
from qwen_flax.tokenizer import Tokenizer

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
    model = checkpoints.load(checkpoint, config, dtype=dtype)
    return Port(model, config, dtype, folder=Path(checkpoint))


class Port:
    """A model to be replayed: traced as a whole, asked for one component, or run through its cache.

    folder: the checkpoint's, without which there is nothing to make tokens with
    """

    def __init__(self, model: Model, config: Config, dtype: str, *, folder: Path | None = None):
        self._model, self._config, self._dtype, self._folder = model, config, dtype, folder
        self._components = components(model)
        self._made_tokenizer: Tokenizer | None = None

    @cached_property
    def _split(self) -> tuple[nnx.GraphDef[Model], nnx.State[Any, Any]]:
        """Once: taking a model of 24 layers apart costs as much as running it on one token."""
        graph, state = nnx.split(self._model)
        return graph, state

    def trace(self, inputs: Mapping[str, Any], names: Collection[str]) -> dict[str, Array]:
        """Run on `token_ids`, `positions` (B T), `attention_mask` (B S), `query_index` (T), without a cache.

        Returns those of `names` that there are, composites too.
        """
        graph, state = self._split
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
        graph, state = self._split
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

    def config(self) -> dict[str, Any]:
        """What was understood of the checkpoint's configuration, as `settings.settings` has it.

        Without the settings of generation where this port cannot generate by them.
        """
        try:
            chosen = None if self._folder is None else sampling.read(self._folder)
        except ConfigError:
            chosen = None
        return settings(self._config, chosen)

    def parameters(self) -> dict[str, np.ndarray]:
        """All parameters by their names and in the layout of the reference."""
        return checkpoints.read_parameters(self._split[1])

    def with_parameters(self, overrides: Mapping[str, Any]) -> "Port":
        """A port with some parameters replaced, given as `parameters` gives them; it shares the others.

        Raises CheckpointError for names there are not, and for other shapes.
        """
        graph, state = self._split
        changed = checkpoints.replaced(state, overrides, dtype=self._dtype)
        return Port(nnx.merge(graph, changed), self._config, self._dtype, folder=self._folder)

    def tokenize(self, text: str) -> list[int]:
        """The token ids of a text. Raises ValueError where the checkpoint has no tokenizer."""
        return self._tokenizer().encode(text)

    def render_chat(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> str:
        """The text of a chat, with `tools`, `add_generation_prompt` and variables of the template.

        Raises ValueError where the checkpoint has no chat template, and where it refuses the chat.
        """
        return self._tokenizer().render_chat(messages, **options)

    def process_logits(self, logits: Any, token_ids: Any, settings: Mapping[str, Any] | None) -> Array:
        """Logits (B V) after the tokens (B T), by these settings, and no others; None for the checkpoint's own.

        Raises ConfigError for settings that are not implemented.
        """
        chosen = self._sampling() if settings is None else sampling.sampled(settings)
        return sampling.process(jnp.asarray(logits), jnp.asarray(token_ids), chosen)

    def draw(self, logits: Any, settings: Mapping[str, Any] | None, count: int, seed: int) -> Array:
        """Independent draws (count) from logits (V) by settings, as `process_logits` takes them."""
        processed = self.process_logits(np.asarray(logits)[None], np.zeros((1, 0), np.int32), settings)
        return sampling.draw(jax.random.key(seed), jnp.broadcast_to(processed, (count, processed.shape[1])))

    def generate(self, token_ids: Any, attention_mask: Any, max_new_tokens: int) -> dict[str, np.ndarray]:
        """The likeliest text after prompts (B T), padded on the left, processed as the checkpoint's settings say.

        Returns `tokens` (B N), `lengths` and `stop` (B), as `Generation` has them.
        """
        penalty = self._sampling().repetition_penalty
        written = generate(
            self._model,
            self._config,
            token_ids,
            attention_mask,
            max_new_tokens=max_new_tokens,
            settings=sampling.Settings(repetition_penalty=penalty),
        )
        return {"tokens": written.tokens, "lengths": written.lengths, "stop": written.stop}

    def _sampling(self) -> sampling.Settings:
        if self._folder is None:
            raise NotOffered(
                "the port was made without a checkpoint folder, so it has no generation settings"
            )
        return sampling.read(self._folder)

    def _tokenizer(self) -> Tokenizer:
        """Read when it is first asked for: a real one takes a second."""
        if self._folder is None:
            raise NotOffered("the port was made without a checkpoint folder, so it has no tokenizer")
        if self._made_tokenizer is None:
            self._made_tokenizer = Tokenizer.read(self._folder)
        return self._made_tokenizer


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
