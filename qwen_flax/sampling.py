"""How the next token is chosen: what generation_config.json asks for, logits processed as it says, and a draw.

Every key of generation_config.json is accounted for: it is read, it does not change which token is chosen, or it must
have the value under which it does nothing. Anything else is refused by name, since a setting that is silently ignored
writes other texts.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from qwen_flax.compiled import jit
from qwen_flax.config import ConfigError, read_json

_DEFAULT_TOP_K = 50
"""The reference's, for a checkpoint that samples and does not say how many of the likeliest tokens it keeps."""

# fmt: off
_OFF: dict[str, tuple[Any, ...]] = {
    # processors and warpers other than those below, each with the values under which it does nothing
    "no_repeat_ngram_size": (0,), "encoder_no_repeat_ngram_size": (0,), "encoder_repetition_penalty": (1,),
    "typical_p": (1,), "epsilon_cutoff": (0,), "eta_cutoff": (0,), "top_h": (), "sequence_bias": (),
    "bad_words_ids": (), "suppress_tokens": (), "begin_suppress_tokens": (), "forced_bos_token_id": (),
    "forced_eos_token_id": (), "min_length": (0,), "min_new_tokens": (0,), "guidance_scale": (1,),
    "exponential_decay_length_penalty": (), "renormalize_logits": (False,), "watermarking_config": (),
    # other ways of searching
    "num_beams": (1,), "num_beam_groups": (1,), "diversity_penalty": (0,), "penalty_alpha": (0,), "dola_layers": (),
    "constraints": (), "force_words_ids": (), "token_healing": (False,), "stop_strings": (),
}

_WITHOUT_EFFECT = frozenset(
    {
        # where a text ends, which the configuration of the model knows, and how long it may get
        "eos_token_id", "bos_token_id", "pad_token_id", "decoder_start_token_id", "max_length", "max_new_tokens",
        "max_time",
        # of beams, which there are not, and of numbers that are not finite
        "length_penalty", "early_stopping", "remove_invalid_values",
        # how the reference is run and what it hands out; guessing ahead changes no choice
        "use_cache", "cache_implementation", "cache_config", "max_cache_len", "compile_config", "disable_compile",
        "continuous_batching_config", "low_memory", "prefill_chunk_size", "num_return_sequences", "output_attentions",
        "output_hidden_states", "output_logits", "output_scores", "return_dict_in_generate", "use_mtp",
        "is_assistant", "num_assistant_tokens", "num_assistant_tokens_schedule", "assistant_confidence_threshold",
        "assistant_early_exit", "assistant_ensemble_weight", "assistant_lookbehind", "target_lookbehind",
        "prompt_lookup_num_tokens", "max_matching_ngram_size", "speculation_type",
        # where it comes from
        "transformers_version", "_from_model_config", "_commit_hash",
    }
)
# fmt: on


@dataclass(frozen=True)
class Settings:
    """How logits become a choice, in the order in which it is done. None is off, and so is a neutral value.

    do_sample: draw; otherwise take the likeliest, after the repetition penalty and nothing else
    repetition_penalty: tokens of the text so far are made less likely by this factor; neutral at 1
    temperature: logits are divided by it; neutral at 1
    top_k: only the k likeliest are kept, and what is as likely as the k-th; neutral at 0
    top_p: of the likeliest, as many are kept as it takes to exceed this probability together; neutral at 1
    min_p: only what has at least this share of the largest probability is kept; neutral at 0
    Raises ConfigError for a value that no probability can come of; those of sampling count only where it is done.
    """

    do_sample: bool = False
    repetition_penalty: float | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.do_sample, bool):
            raise ConfigError(f"do_sample is {self.do_sample!r}, but true or false was expected")
        _positive("repetition_penalty", self.repetition_penalty)
        if self.do_sample:
            _positive("temperature", self.temperature)
            _share("top_p", self.top_p)
            _share("min_p", self.min_p)
            if self.top_k is not None and (not _is_number(self.top_k, int) or self.top_k < 0):
                raise ConfigError(f"top_k is {self.top_k!r}, but a whole number, or 0 for all, was expected")


NAMES = tuple(field.name for field in fields(Settings) if field.name != "do_sample")
"""What a caller may set for a draw, in the order in which it is applied."""


def read(folder: str | Path) -> Settings:
    """What the checkpoint in `folder` asks for.

    Without a generation_config.json, the reference takes the settings of generation in config.json, where files of old
    have them. Raises ConfigError for a file that cannot be read, and for every setting that is not implemented.
    """
    path = Path(folder) / "generation_config.json"
    if path.is_file():
        return parse(read_json(path))
    of_old = read_json(Path(folder) / "config.json")
    return parse({key: value for key, value in of_old.items() if key in (*_OFF, *NAMES, "do_sample")})


def parse(raw: Mapping[str, Any]) -> Settings:
    """What a generation_config.json's content means: null is as good as absent. Raises ConfigError, naming the key."""
    given = {key: value for key, value in raw.items() if value is not None}
    for key, value in given.items():
        if key in _OFF:
            if value not in _OFF[key]:
                raise ConfigError(
                    f"{key} is {value!r} in the generation settings, but it is not implemented: "
                    "remove it to generate without"
                )
        elif key not in _WITHOUT_EFFECT and key not in NAMES and key != "do_sample":
            raise ConfigError(
                f"{key} is a generation setting this port does not know (here {value!r}): it may change what is "
                "written, so remove it only if it does not"
            )
    settings = Settings(**{key: given[key] for key in ("do_sample", *NAMES) if key in given})
    if not settings.do_sample:
        return Settings(repetition_penalty=settings.repetition_penalty)
    return settings if "top_k" in given else Settings(**{**vars(settings), "top_k": _DEFAULT_TOP_K})


def sampled(settings: Mapping[str, Any]) -> Settings:
    """To draw by these of `NAMES`; what is absent is off. Raises ConfigError for others."""
    for name in settings:
        if name not in NAMES:
            raise ConfigError(f"{name} is no setting of sampling: there are {', '.join(NAMES)}")
    return Settings(do_sample=True, **settings)


def seen(token_ids: Array, counted: Array, vocab_size: int) -> Array:
    """Which tokens are in each text (B V), of `token_ids` (B T) those that are `counted` (B T).

    The reference counts a text from its first token that is no padding.
    """
    ids = jnp.where(counted, token_ids, vocab_size)
    rows = jnp.arange(len(ids))[:, None]
    return jnp.zeros((len(ids), vocab_size), bool).at[rows, ids].set(True, mode="drop")


def choices(logits: Array, seen: Array, settings: Settings) -> Array:
    """Logits (B V) float32 after the tokens `seen` (B V) -> (B V), -inf for what may not be chosen.

    To be used under `jit`, with `settings` static.
    """
    if settings.repetition_penalty is not None:
        logits = _penalised(logits, seen, settings.repetition_penalty)
    if not settings.do_sample:
        return logits
    if settings.temperature is not None:
        logits = logits / settings.temperature
    if settings.top_k:
        logits = _top_k(logits, settings.top_k)
    if settings.top_p is not None and settings.top_p < 1:
        logits = _top_p(logits, settings.top_p)
    return _min_p(logits, settings.min_p) if settings.min_p else logits


@partial(jit, static_argnames="settings")
def process(logits: Array, token_ids: Array, settings: Settings, counted: Array | None = None) -> Array:
    """Logits (B V), after the tokens `token_ids` (B T) of which `counted` (B T; by default all) -> as `choices`.

    Compiles once for each shape and each settings.
    """
    counted = jnp.ones(token_ids.shape, bool) if counted is None else counted
    return choices(logits.astype(jnp.float32), seen(token_ids, counted, logits.shape[-1]), settings)


@jit
def draw(key: Array, logits: Array) -> Array:
    """A token (B) for each row of processed logits (B V), by its probability."""
    return jax.random.categorical(key, logits).astype(jnp.int32)


def _penalised(logits: Array, seen: Array, penalty: float) -> Array:
    return jnp.where(seen, jnp.where(logits < 0, logits * penalty, logits / penalty), logits)


def _top_k(logits: Array, k: int) -> Array:
    # The least of the k, not the last one: to get at that, XLA sorts the whole vocabulary, a hundred times slower.
    last = lax.top_k(logits, min(k, logits.shape[-1]))[0].min(axis=-1, keepdims=True)
    return jnp.where(logits < last, -jnp.inf, logits)


def _top_p(logits: Array, p: float) -> Array:
    """Dropped from the least likely on, while all that is dropped has a probability of 1 - p or less together."""
    order = jnp.argsort(logits, axis=-1)
    probs = jax.nn.softmax(jnp.take_along_axis(logits, order, axis=-1), axis=-1)
    dropped = (jnp.cumsum(probs, axis=-1) <= 1 - p).at[..., -1].set(False)
    dropped = jnp.put_along_axis(jnp.zeros_like(dropped), order, dropped, axis=-1, inplace=False)
    return jnp.where(dropped, -jnp.inf, logits)


def _min_p(logits: Array, share: float) -> Array:
    probs = jax.nn.softmax(logits, axis=-1)
    return jnp.where(probs < share * probs.max(axis=-1, keepdims=True), -jnp.inf, logits)


def _is_number(value: Any, *kinds: type) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


def _positive(name: str, value: Any) -> None:
    if value is not None and not (_is_number(value, int, float) and 0 < value < float("inf")):
        raise ConfigError(f"{name} is {value!r}, but a positive number was expected")


def _share(name: str, value: Any) -> None:
    if value is not None and not (_is_number(value, int, float) and 0 <= value <= 1):
        raise ConfigError(f"{name} is {value!r}, but a number from 0 to 1 was expected")
