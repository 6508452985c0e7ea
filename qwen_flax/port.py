"""How the harness drives this model. The only file that knows the harness."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from harness.ports import Cache, CachedPort, Param, Tap, nnx_model
from harness.replay.port import NotOffered
from qwen_flax import cache as caches
from qwen_flax import checkpoint as checkpoints
from qwen_flax import config as configs
from qwen_flax import sampling, sharding
from qwen_flax.compiled import OPTIONS
from qwen_flax.config import Config, ConfigError
from qwen_flax.generate import generate
from qwen_flax.model import Model
from qwen_flax.settings import settings
from qwen_flax.tokenizer import Tokenizer

_DTYPES = ("float32", "bfloat16", "float16")
_STEPS = (
    "embed_tokens",
    "rotary_emb.cos",
    "rotary_emb.sin",
    "layers.{n}.input_layernorm",
    "layers.{n}.self_attn.q_proj",
    "layers.{n}.self_attn.k_proj",
    "layers.{n}.self_attn.v_proj",
    "layers.{n}.self_attn.q_norm",
    "layers.{n}.self_attn.k_norm",
    "layers.{n}.self_attn.q_rope",
    "layers.{n}.self_attn.k_rope",
    "layers.{n}.self_attn.k_expanded",
    "layers.{n}.self_attn.v_expanded",
    "layers.{n}.self_attn.scores",
    "layers.{n}.self_attn.probs",
    "layers.{n}.self_attn.context",
    "layers.{n}.self_attn.o_proj",
    "layers.{n}.attn_residual",
    "layers.{n}.post_attention_layernorm",
    "layers.{n}.mlp.gate_proj",
    "layers.{n}.mlp.up_proj",
    "layers.{n}.mlp.act",
    "layers.{n}.mlp.gated",
    "layers.{n}.mlp.down_proj",
    "layers.{n}.mlp",
    "layers.{n}.mlp_residual",
    "norm",
    "lm_head",
)
COMPONENTS = {
    **{step: Tap(step) for step in _STEPS},  # modules and methods have the components' names
    "layers.{n}.self_attn": Tap("layers.{n}.self_attn", result=0),
    "layers.{n}": Tap("layers.{n}", result=0),
}
PARAMETERS = {row.reference: Param(row.path) for row in checkpoints.TABLE}


def make(checkpoint: str, *, dtype: str, mesh: Mesh | None = None) -> "Port":
    """The port of the checkpoint in a folder, run in `dtype` ("float32", "bfloat16" or "float16").

    mesh: with axes `dp` and `tp`, to split it over
    Raises ConfigError, CheckpointError or MeshError, all ValueErrors, with one sentence.
    """
    if dtype not in _DTYPES:
        raise ValueError(f"dtype is {dtype!r}, but one of {', '.join(_DTYPES)} was expected")
    config = configs.read(checkpoint)
    if mesh is not None:
        sharding.check(mesh, config)
    model, parameters = checkpoints.opened(checkpoint, config, dtype=dtype, mesh=mesh)
    return Port(model, config, dtype, parameters=parameters, folder=Path(checkpoint), mesh=mesh)


class Port(CachedPort):
    """The whole model, its components and its cache, and what it does from text to text.

    parameters: the model's, by their paths in it, if it has only their shapes
    folder: the checkpoint's, without which there is nothing to make tokens with
    mesh: that the model's parameters are spread over
    """

    def __init__(
        self,
        model: Model,
        config: Config,
        dtype: str,
        *,
        parameters: Mapping[str, Array] | None = None,
        folder: Path | None = None,
        mesh: Mesh | None = None,
    ):
        run_cached = partial(_run_cached, mesh)
        cache = Cache(init=partial(_init_cache, config, dtype), run=run_cached, read=_read_cache)
        super().__init__(
            nnx_model(model, parameters),
            partial(_run, mesh),
            COMPONENTS,
            parameters=PARAMETERS,
            cache=cache,
            compiler_options=OPTIONS,
        )
        self._config, self._folder, self._mesh = config, folder, mesh
        self._made_tokenizer: Tokenizer | None = None

    def config(self) -> dict[str, Any]:
        """What was understood of the checkpoint's configuration, as `settings.settings` has it.

        Without the settings of generation where this port cannot generate by them.
        """
        try:
            chosen = None if self._folder is None else sampling.read(self._folder)
        except ConfigError:
            chosen = None
        return settings(self._config, chosen)

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
        with sharding.on(self._mesh):
            written = generate(
                self.model,
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


def _run(mesh: Mesh | None, model: Model, **inputs: Array) -> Array:
    with sharding.on(mesh):
        return model(**inputs)


def _init_cache(config: Config, dtype: str, batch: int, capacity: int, fill: float) -> caches.Cache:
    return caches.init(config, batch, capacity, dtype, fill)


def _run_cached(mesh: Mesh | None, model: Model, cache: caches.Cache, **inputs: Array) -> tuple[Array, Any]:
    with sharding.on(mesh):
        x, written = model.hidden(**inputs, cache=cache)
        return model.lm_head(x), written


def _read_cache(cache: caches.Cache) -> dict[str, Array]:
    """Every layer's `k_rope` (B K capacity D) and `v_proj` (B capacity K·D), as they were written."""
    return {
        f"layers.{n}.self_attn.{step}": value
        for n, layer in enumerate(cache)
        for step, value in (("k_rope", layer.k), ("v_proj", layer.v))
    }
