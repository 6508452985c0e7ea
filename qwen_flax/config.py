"""The model's shape and switches, read from a checkpoint's config.json as transformers 4 and 5 write it.

Every key of config.json is accounted for: it is read, it is known not to change results, or it must have
the one value that this model implements. Anything else is refused by name, because a setting that is
silently ignored is a wrong model that loads.

A key that is absent means what it means in the reference. In particular an absent `rope_theta` is 10000.0:
`transformers` documents that default, in version 4 as `Qwen2Config.rope_theta` and in version 5 as
`default_theta`. A `rope_theta` that is there but is no positive number is refused.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# fmt: off
_READ = frozenset(
    {
        "model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
        "num_attention_heads", "num_key_value_heads", "head_dim", "rms_norm_eps", "rope_theta",
        "rope_parameters", "rope_scaling", "max_position_embeddings", "original_max_position_embeddings",
        "tie_word_embeddings", "attention_bias", "layer_types",
        "use_sliding_window", "sliding_window", "max_window_layers", "eos_token_id", "dtype", "torch_dtype",
    }
)

_MUST_BE: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu", "swish"),  # two names of one function
    "use_mrope": (False, None),
    "partial_rotary_factor": (1.0, None),
    "quantization_config": (None,),
    "is_encoder_decoder": (False, None),
    "is_decoder": (False, None),
    "add_cross_attention": (False, None),
    "tie_encoder_decoder": (False, None),
    "mlp_bias": (False, None),
    "per_layer_config": (None, {}),
    "pruned_heads": (None, {}),
    "auto_map": (None, {}),
}

_WITHOUT_EFFECT = frozenset(
    {
        # where it comes from
        "_name_or_path", "_model_name_or_path", "architectures", "transformers_version", "_commit_hash",
        "name_or_path", "tokenizer_class", "finetuning_task", "task_specific_params", "unsloth_fixed",
        "unsloth_version",
        # training
        "attention_dropout", "initializer_range", "output_router_logits", "problem_type", "id2label",
        "label2id", "num_labels", "gradient_checkpointing",
        # how the reference is run and what it hands out
        "use_cache", "output_hidden_states", "output_attentions", "return_dict", "torchscript",
        "chunk_size_feed_forward", "use_bfloat16", "tf_legacy_loss", "attn_implementation",
        "_attn_implementation", "_attn_implementation_autoset", "_flash_attn_2_enabled",
        "tie_last_hidden_states", "cross_attention_hidden_size",
        # ids and settings of generation: none of them reaches the forward pass
        "bos_token_id", "pad_token_id", "sep_token_id", "decoder_start_token_id", "prefix", "max_length",
        "min_length", "do_sample", "early_stopping", "num_beams", "num_beam_groups", "diversity_penalty",
        "temperature", "top_k", "top_p", "typical_p", "repetition_penalty", "length_penalty",
        "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids", "num_return_sequences",
        "output_scores", "return_dict_in_generate", "forced_bos_token_id", "forced_eos_token_id",
        "remove_invalid_values", "exponential_decay_length_penalty", "suppress_tokens",
        "begin_suppress_tokens",
    }
)

# What an object of RoPE settings may hold beside the base, for each rope type; `type` is the older name of `rope_type`.
_ROPE_KEYS: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor", "original_max_position_embeddings"),
    "yarn": (
        "factor", "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow",
        "mscale", "mscale_all_dim", "truncate",
    ),
    "llama3": ("factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor"),
}
# fmt: on
_ROPE_COMMON = ("rope_type", "rope_theta", "partial_rotary_factor")

_DEFAULT_THETA = 10_000.0
_DEFAULT_LONGEST = 32_768
_YARN_NUMBERS = ("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim")
_DEFAULT_QWEN3_HEAD_DIM = 128
_DEFAULT_MAX_WINDOW_LAYERS = 28


class ConfigError(ValueError):
    """A config.json that this model does not implement: one sentence names the setting."""


@dataclass(frozen=True)
class RopeScaling:
    """How frequencies are made slower for texts longer than `original_max_position_embeddings`.

    rope_type: `linear`, `dynamic`, `yarn` or `llama3`; what a type does not use is as it stands here
    original_max_position_embeddings: of `linear` and `dynamic`, the configuration's `max_position_embeddings`
    attention_factor: what cos and sin are multiplied by; `mscale` and `mscale_all_dim` have gone into it
    """

    rope_type: str
    factor: float
    original_max_position_embeddings: int
    attention_factor: float = 1.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0


@dataclass(frozen=True)
class Config:
    """What the forward pass depends on.

    rope_scaling: None for frequencies as they follow from `rope_theta`
    windows: for each layer how many keys a query sees, its own among them; None sees all before it
    qk_norm: Qwen3's norms over the heads of queries and keys
    eos_token_ids: generation stops at any of them
    dtype: the dtype that the checkpoint says it is in, if it says so; loading does not depend on it
    """

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float
    rope_theta: float
    windows: tuple[int | None, ...]
    qkv_bias: bool
    o_bias: bool
    qk_norm: bool
    tie_word_embeddings: bool
    eos_token_ids: tuple[int, ...] = ()
    dtype: str | None = None
    rope_scaling: RopeScaling | None = None


def read(folder: str | Path) -> Config:
    """The configuration of the checkpoint in `folder`.

    The ids that end a text are those of generation_config.json where there are any, as in the reference.
    Raises ConfigError for a file that cannot be read and for every setting that is not implemented.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ConfigError(
            f"no checkpoint folder {folder}: give a folder that holds config.json and safetensors files"
        )
    config = read_json(folder / "config.json")
    generation = folder / "generation_config.json"
    if generation.is_file():
        eos = read_json(generation).get("eos_token_id")
        config = config if eos is None else {**config, "eos_token_id": eos}
    return parse(config)


def parse(raw: Mapping[str, Any]) -> Config:
    """The configuration that a config.json's content means. Raises ConfigError, naming the setting."""
    model_type = raw.get("model_type")
    if model_type not in ("qwen2", "qwen3"):
        raise ConfigError(f"model_type is {model_type!r}, but only 'qwen2' and 'qwen3' are implemented")
    _refuse_what_is_not_implemented(raw)

    layers = _positive_int(raw, "num_hidden_layers")
    hidden, heads = _positive_int(raw, "hidden_size"), _positive_int(raw, "num_attention_heads")
    kv_heads = heads if raw.get("num_key_value_heads") is None else _positive_int(raw, "num_key_value_heads")
    if heads % kv_heads:
        raise ConfigError(
            f"num_attention_heads is {heads}, which is no multiple of num_key_value_heads, {kv_heads}: "
            "every key-value head must serve the same number of query heads"
        )
    qwen3 = model_type == "qwen3"
    # Qwen2 always has these biases: the reference does not look at attention_bias there.
    attention_bias = _boolean(raw, "attention_bias") if qwen3 else False
    rope = _rope_settings(raw)
    return Config(
        model_type=model_type,
        vocab_size=_positive_int(raw, "vocab_size"),
        hidden_size=hidden,
        intermediate_size=_positive_int(raw, "intermediate_size"),
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=_head_dim(raw, _DEFAULT_QWEN3_HEAD_DIM if qwen3 else hidden // heads),
        rms_norm_eps=_positive_float("rms_norm_eps", raw.get("rms_norm_eps")),
        rope_theta=_positive_float("rope_theta", rope.get("rope_theta", _DEFAULT_THETA)),
        windows=_windows(raw, layers),
        qkv_bias=attention_bias if qwen3 else True,
        o_bias=attention_bias,
        qk_norm=qwen3,
        tie_word_embeddings=_boolean(raw, "tie_word_embeddings"),
        eos_token_ids=_eos_token_ids(raw.get("eos_token_id")),
        dtype=raw.get("dtype", raw.get("torch_dtype")),
        rope_scaling=_rope_scaling(raw, rope),
    )


def read_json(path: Path) -> dict[str, Any]:
    """The settings in a file. Raises ConfigError for one that is not there, or holds none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"no file {path}: a checkpoint folder holds config.json beside its safetensors"
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds a {type(content).__name__} where an object of settings was expected")
    return content


def _refuse_what_is_not_implemented(raw: Mapping[str, Any]) -> None:
    for key, value in raw.items():
        if key in _MUST_BE:
            # 0 == False and 1 == 1.0, so a value only counts as allowed when it is of that type, too
            if not any(value == allowed and type(value) is type(allowed) for allowed in _MUST_BE[key]):
                raise ConfigError(f"{key} is {value!r}, but only {_MUST_BE[key][0]!r} is implemented")
        elif key not in _READ and key not in _WITHOUT_EFFECT:
            raise ConfigError(
                f"{key} is a setting this model does not know (here {value!r}): it may change results, "
                "so remove it from config.json only if it does not"
            )


def _head_dim(raw: Mapping[str, Any], default: int) -> int:
    size = _positive_int(raw, "head_dim") if raw.get("head_dim") is not None else default
    if size % 2:
        raise ConfigError(f"head_dim is {size}, but RoPE turns pairs, so it must be even")
    return size


def _rope_settings(raw: Mapping[str, Any]) -> dict[str, Any]:
    """From `rope_parameters` (transformers 5), `rope_scaling` (4) and beside them; all must agree."""
    given = {"rope_theta": raw["rope_theta"]} if "rope_theta" in raw else {}
    for key in ("rope_parameters", "rope_scaling"):
        given |= {f"{key}.{name}": value for name, value in _rope_object(raw, key).items()}
    found: dict[str, Any] = {}
    places: dict[str, str] = {}
    for place, value in given.items():
        name = place.rpartition(".")[2]
        name = "rope_type" if name == "type" else name
        if name in found and found[name] != value:
            raise ConfigError(
                f"{places[name]} = {found[name]!r} and {place} = {value!r} contradict each other; keep one"
            )
        found[name], places[name] = value, place
    rope_type = found.setdefault("rope_type", "default")
    if not isinstance(rope_type, str) or rope_type not in _ROPE_KEYS:
        raise ConfigError(
            f"{places['rope_type']} is {rope_type!r}, but only {', '.join(map(repr, _ROPE_KEYS))} are implemented"
        )
    for name in found.keys() - {*_ROPE_COMMON, *_ROPE_KEYS[rope_type]}:
        raise ConfigError(
            f"{places[name]} is a setting this model does not know for rope_type {rope_type!r} (here {found[name]!r})"
        )
    if found.get("partial_rotary_factor") not in (None, 1, 1.0):
        raise ConfigError(
            f"{places['partial_rotary_factor']} is {found['partial_rotary_factor']!r}, but only 1.0 is implemented"
        )
    return found


def _rope_object(raw: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = raw.get(key)
    if found is not None and not isinstance(found, Mapping):
        raise ConfigError(f"{key} is {found!r}, but an object of settings or null was expected")
    return found or {}


def _rope_scaling(raw: Mapping[str, Any], rope: Mapping[str, Any]) -> RopeScaling | None:
    """rope: as `_rope_settings` gives it."""
    rope_type = rope["rope_type"]
    if rope_type == "default":
        return None
    longest = _positive_int({"max_position_embeddings": _DEFAULT_LONGEST, **raw}, "max_position_embeddings")
    original = longest if rope_type in ("linear", "dynamic") else _original_length(raw, rope, longest)
    if rope_type == "dynamic" and rope.get("original_max_position_embeddings", longest) != longest:
        raise ConfigError(
            f"original_max_position_embeddings is {rope['original_max_position_embeddings']!r}, but rope_type "
            f"'dynamic' scales from max_position_embeddings, {longest}: leave it out"
        )
    factor = rope.get("factor")
    if rope_type == "yarn" and "factor" in rope and factor is None:
        factor = longest / original
    factor = _positive_float("factor of rope_parameters or rope_scaling", factor)
    if rope_type == "yarn":
        return _yarn(rope, factor, original)
    if rope_type == "llama3":
        low = _positive_float("low_freq_factor", rope.get("low_freq_factor"))
        high = _positive_float("high_freq_factor", rope.get("high_freq_factor"))
        if high <= low:
            raise ConfigError(
                f"high_freq_factor is {high}, but more than low_freq_factor, {low}, was expected"
            )
        return RopeScaling(rope_type, factor, original, low_freq_factor=low, high_freq_factor=high)
    return RopeScaling(rope_type, factor, original)


def _original_length(raw: Mapping[str, Any], rope: Mapping[str, Any], longest: int) -> int:
    """Beside the object of RoPE settings or in it, as some models have it; else the longest position."""
    key = "original_max_position_embeddings"
    given = [_positive_int(place, key) for place in (raw, rope) if key in place]
    if len(set(given)) > 1:
        raise ConfigError(f"{key} is {given[0]} in one place and {given[1]} in another; keep one")
    return given[0] if given else longest


def _yarn(rope: Mapping[str, Any], factor: float, original: int) -> RopeScaling:
    """A setting that is null is as if it were absent, as in the reference."""
    given = {name: _positive_float(name, rope[name]) for name in _YARN_NUMBERS if rope.get(name) is not None}
    mscale, all_dim = given.pop("mscale", None), given.pop("mscale_all_dim", None)
    inferred = _enlargement(factor)
    if mscale is not None and all_dim is not None:
        inferred = _enlargement(factor, mscale) / _enlargement(factor, all_dim)
    truncate = _boolean({"truncate": True, **rope}, "truncate")
    return RopeScaling("yarn", factor, original, **{"attention_factor": inferred, **given}, truncate=truncate)


def _enlargement(factor: float, mscale: float = 1.0) -> float:
    """By how much YaRN enlarges cos and sin for `factor` times the length."""
    return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1 else 1.0


def _windows(raw: Mapping[str, Any], layers: int) -> tuple[int | None, ...]:
    window = _positive_int(raw, "sliding_window") if _uses_window(raw) else None
    types = raw.get("layer_types")
    if types is None:
        first = raw.get("max_window_layers", _DEFAULT_MAX_WINDOW_LAYERS)
        if window is not None and (isinstance(first, bool) or not isinstance(first, int)):
            raise ConfigError(f"max_window_layers is {first!r}, but a whole number was expected")
        return tuple(window if window is not None and n >= first else None for n in range(layers))

    if not isinstance(types, list) or len(types) != layers:
        raise ConfigError(
            f"layer_types must list one type for each of the {layers} layers of num_hidden_layers"
        )
    for n, kind in enumerate(types):
        if kind not in ("full_attention", "sliding_attention"):
            raise ConfigError(
                f"layer_types[{n}] is {kind!r}, "
                "but only 'full_attention' and 'sliding_attention' are implemented"
            )
        if kind == "sliding_attention" and window is None:
            raise ConfigError(
                f"layer_types[{n}] is 'sliding_attention', but there is no window: "
                "use_sliding_window is not true or sliding_window is null"
            )
    return tuple(window if kind == "sliding_attention" else None for kind in types)


def _uses_window(raw: Mapping[str, Any]) -> bool:
    """`use_sliding_window: false` means no window, whatever `sliding_window` says; so does a null window.

    An absent `sliding_window` is refused where it is used: the reference's default, 4096, is nobody's intent.
    """
    return _boolean(raw, "use_sliding_window") and raw.get("sliding_window", "absent") is not None


def _positive_int(raw: Mapping[str, Any], key: str) -> int:
    value = raw.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        found = f"is {value!r}" if key in raw else "is missing from config.json"
        raise ConfigError(f"{key} {found}, but a whole number of 1 or more was expected")
    return value


def _positive_float(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise ConfigError(f"{name} is {value!r}, but a positive number was expected")
    return float(value)


def _boolean(raw: Mapping[str, Any], key: str) -> bool:
    value = raw.get(key, False)
    if not isinstance(value, bool):
        raise ConfigError(f"{key} is {value!r}, but true or false was expected")
    return value


def _eos_token_ids(value: Any) -> tuple[int, ...]:
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if any(isinstance(i, bool) or not isinstance(i, int) for i in ids):
        raise ConfigError(f"eos_token_id is {value!r}, but a token id or a list of them was expected")
    return tuple(ids)
