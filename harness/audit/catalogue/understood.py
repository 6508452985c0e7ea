"""A port that tells what it did not load, or did not read: mistakes in what `config` and `parameters` give.

Each is put into the method of the port, so that it is there in any port that offers it, and nowhere else: the forward
pass stays right. What a port misreads and then uses is in `config.py` and `loading.py`.
"""

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

import ml_dtypes
import numpy as np

from harness.audit.catalogue.making import layer_number
from harness.audit.fault import Area, Fault, Method

Array = Any
Settings = dict[str, Any]
Parameters = dict[str, Array]


def _settings(edit: Callable[[Settings], Settings]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`config` tells what `edit` gives beside what the port tells; a setting that it does not tell stays untold."""

    def change(method: Callable[..., Any]) -> Callable[..., Any]:
        def config() -> Settings:
            told = dict(method())
            return told | {name: value for name, value in edit(told).items() if name in told}

        return config

    return change


def _told(
    fault: str, at: tuple[str, ...], says: str, edit: Callable[[Settings], Settings], *names: str
) -> Fault:
    at = tuple(f"config.{name}" for name in at)
    return Fault(fault, Area.CONFIG, says, Method(at, "config", _settings(edit)), frozenset(names))


def _value(name: str, value: Any) -> Callable[[Settings], Settings]:
    return lambda told: {name: value}


def _size_from_hidden(told: Settings) -> Settings:
    size = told["hidden_size"] // told["num_attention_heads"]
    return {"head_dim": size, "scaling": size**-0.5}


def _heads_from_hidden(told: Settings) -> Settings:
    return {"scaling": (told["hidden_size"] / told["num_attention_heads"]) ** -0.5}


def _window_in_layers_without(told: Settings) -> Settings:
    """Where config.json has a window that is switched off, and where some layers see everything."""
    width = next((width for width in told["windows"] if width), 32)
    return {"windows": [width] * len(told["windows"])}


def _opposite(name: str) -> Callable[[Settings], Settings]:
    return lambda told: {name: not told[name]}


def _greedy(told: Settings) -> Settings:
    names = ("repetition_penalty", "temperature", "top_k", "top_p", "min_p")
    return {"generation.do_sample": False, **{f"generation.{name}": None for name in names}}


def _sampling_of_a_sister_model(told: Settings) -> Settings:
    values = {"repetition_penalty": 1.05, "temperature": 0.7, "top_k": 20, "top_p": 0.8, "do_sample": True}
    return {f"generation.{name}": value for name, value in values.items()}


def _parameters(
    edit: Callable[[Parameters], Parameters],
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`parameters` gives what `edit` gives in place of what the port gives; what becomes None is left out."""

    def change(method: Callable[..., Any]) -> Callable[..., Any]:
        def parameters() -> Parameters:
            held = dict(method())
            changed = held | edit(held)
            return {name: value for name, value in changed.items() if value is not None}

        return parameters

    return change


def _held(fault: str, at: str, says: str, edit: Callable[[Parameters], Parameters], *names: str) -> Fault:
    planting = Method((f"parameters.{at}", "parameters"), "parameters", _parameters(edit))
    return Fault(fault, Area.WEIGHTS, says, planting, frozenset(names))


def _each(glob: str, edit: Callable[[Array], Array | None]) -> Callable[[Parameters], Parameters]:
    """Every parameter that is so named, as numpy has it, in its own dtype afterwards."""

    def edited(held: Parameters) -> Parameters:
        found: Parameters = {}
        for name in held:
            if fnmatchcase(name, glob):
                before = np.asarray(held[name])
                after = edit(before)
                found[name] = None if after is None else np.asarray(after).astype(before.dtype)
        return found

    return edited


def _cut_to_bfloat16(x: Array) -> Array:
    """The upper half of each float32, as a cast by bits does it."""
    words = np.ascontiguousarray(x.astype(np.float32)).view(np.uint32)
    return (words & np.uint32(0xFFFF0000)).view(np.float32)


def _cut_to_three_bits(x: Array) -> Array:
    """Three bits of mantissa, four fewer than bfloat16 stores."""
    words = np.ascontiguousarray(x.astype(np.float32)).view(np.uint32)
    return (words & np.uint32(0xFFF00000)).view(np.float32)


def _through_float8(x: Array) -> Array:
    return x.astype(np.float32).astype(ml_dtypes.float8_e4m3fn).astype(np.float32)


def _other_layer(held: Parameters, number: int) -> str:
    """The prefix of the layer after this one; of the last, of the first."""
    numbers = {found for name in held if (found := layer_number(name)) is not None}
    return f"layers.{number + 1 if number + 1 in numbers else 0}."


def _stale(glob: str) -> Callable[[Parameters], Parameters]:
    """The second half of the rows is what the next layer has there: a buffer was filled again too early."""

    def edited(held: Parameters) -> Parameters:
        found: Parameters = {}
        for name in held:
            number = layer_number(name)
            if fnmatchcase(name, glob) and number is not None:
                other = np.asarray(held[name.replace(f"layers.{number}.", _other_layer(held, number))])
                own, half = np.asarray(held[name]), len(other) // 2
                found[name] = np.concatenate([own[:half], other[half:]])
        return found

    return edited


def _of_next_layer(glob: str) -> Callable[[Parameters], Parameters]:
    def edited(held: Parameters) -> Parameters:
        found: Parameters = {}
        for name in held:
            number = layer_number(name)
            if fnmatchcase(name, glob) and number is not None:
                found[name] = held[name.replace(f"layers.{number}.", _other_layer(held, number))]
        return found

    return edited


def _head_of_its_own(held: Parameters) -> Parameters:
    """Where the head is tied, another parameter is handed out under its name; where it is not, none is."""
    if "lm_head.weight" in held:
        return {"lm_head.weight": None}
    return {"lm_head.weight": np.asarray(held["model.embed_tokens.weight"])[::-1]}


FAULTS = (
    _told(
        "told-head-size-from-hidden",
        ("head_dim", "scaling"),
        "head_dim is taken as hidden_size / num_attention_heads",
        _size_from_hidden,
        "head_dim_from_hidden",
    ),
    _told(
        "told-scale-from-hidden",
        ("scaling",),
        "scores are scaled by hidden_size / num_attention_heads, and not by the head size",
        _heads_from_hidden,
        "scale_by_hidden_over_heads",
    ),
    _told(
        "told-scale-missing",
        ("scaling",),
        "scores are not scaled",
        _value("scaling", 1.0),
        "scale_missing",
    ),
    _told(
        "told-attention-bias-otherwise",
        ("qkv_bias",),
        "attention_bias is read where the model does not look at it, or not where it does",
        _opposite("qkv_bias"),
        "bias_missing",
        "bias_added",
    ),
    _told(
        "told-output-bias",
        ("o_bias",),
        "the output projection is given a bias, too",
        _opposite("o_bias"),
        "bias_missing",
        "bias_added",
    ),
    _told(
        "told-head-norms-otherwise",
        ("qk_norm",),
        "the norms of query and key heads are those of the other architecture",
        _opposite("qk_norm"),
        "norm_skipped",
        "norm_added",
    ),
    _told(
        "told-window-although-off",
        ("windows",),
        "sliding_window is read although it is switched off, or only for later layers",
        _window_in_layers_without,
        "window_although_off",
    ),
    _told(
        "told-no-windows",
        ("windows",),
        "layer_types are not read: every layer sees everything",
        lambda told: {"windows": [None] * len(told["windows"])},
        "window_ignored",
    ),
    _told(
        "told-tie-otherwise",
        ("tie_word_embeddings",),
        "tie_word_embeddings is not read, and taken for what a sister model has",
        _opposite("tie_word_embeddings"),
        "tie_ignored",
        "parameters_of_another_component",
    ),
    _told(
        "told-one-end",
        ("eos_token_ids",),
        "of several ids that end a text only the last is known",
        lambda told: {"eos_token_ids": list(told["eos_token_ids"])[-1:]},
        "eos_single",
    ),
    _told(
        "told-no-end",
        ("eos_token_ids",),
        "no id ends a text",
        _value("eos_token_ids", []),
        "eos_missing",
    ),
    _told(
        "told-theta-default",
        ("rope_theta",),
        "rope_theta is looked for where this config.json does not have it",
        _value("rope_theta", 10_000.0),
        "theta_10000",
    ),
    _told(
        "told-eps-of-another-key",
        ("rms_norm_eps",),
        "eps is that of layer norms",
        _value("rms_norm_eps", 1e-5),
        "eps_1e-05",
    ),
    _told(
        "told-no-scaling-of-positions",
        ("rope_scaling",),
        "rope_scaling is not read",
        _value("rope_scaling", None),
        "scaling_ignored",
    ),
    _told(
        "told-as-many-key-heads",
        ("num_key_value_heads",),
        "num_key_value_heads is not read",
        lambda told: {"num_key_value_heads": told["num_attention_heads"]},
        "key_value_heads_as_query_heads",
    ),
    _told(
        "told-gelu",
        ("hidden_act",),
        "hidden_act is not read, and taken for gelu",
        _value("hidden_act", "gelu"),
        "gelu",
    ),
    _told(
        "told-generation-settings-ignored",
        ("generation.*",),
        "generation_config.json is not read: the likeliest token is taken",
        _greedy,
        "settings_ignored",
    ),
    _told(
        "told-generation-settings-inherited",
        ("generation.*",),
        "the generation settings of a sister model are taken without a word",
        _sampling_of_a_sister_model,
        "settings_added",
    ),
    _held(
        "held-cut-to-bfloat16",
        "*",
        "numbers are cut to bfloat16 instead of rounded",
        _each("*", _cut_to_bfloat16),
        "weight_truncated_bfloat16",
    ),
    _held(
        "held-cut-to-three-bits",
        "*_proj.weight",
        "weights of projections are cut to three bits of mantissa",
        _each("*_proj.weight", _cut_to_three_bits),
    ),
    _held(
        "held-through-float8",
        "*_proj.weight",
        "weights of projections went through float8",
        _each("*_proj.weight", _through_float8),
        "quantised_fp8",
    ),
    _held(
        "held-stale-half",
        "*.gate_proj.weight",
        "the second half of the rows of every gate_proj is that of the next layer",
        _stale("*.gate_proj.weight"),
        "stale_shard",
    ),
    _held(
        "held-of-the-next-layer",
        "*.down_proj.weight",
        "every down_proj is that of the next layer",
        _of_next_layer("*.down_proj.weight"),
        "parameters_of_another_layer",
    ),
    _held(
        "held-norms-at-one",
        "*layernorm.weight",
        "the weights of norms are left as they were initialised",
        _each("*layernorm.weight", np.ones_like),
        "weight_missing",
    ),
    _held(
        "held-square-not-transposed",
        "*.o_proj.weight",
        "square output projections are handed out as they lie in the port",
        _each("*.o_proj.weight", lambda weight: weight.T if weight.shape[0] == weight.shape[1] else weight),
        "weight_not_transposed",
    ),
    _held(
        "held-biases-left-out",
        "*.bias",
        "biases are not handed out",
        _each("*.bias", lambda bias: None),
        "bias_missing",
    ),
    _held(
        "held-head-otherwise",
        "lm_head.weight",
        "a head that is tied is handed out as another parameter, and one that is not is left out",
        _head_of_its_own,
        "tie_ignored",
        "parameters_of_another_component",
    ),
)
