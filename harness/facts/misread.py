"""Why a port tells another value for a setting: the mistakes that are made in reading configurations."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from harness.facts.mistake import Mistake


@dataclass(frozen=True)
class Misread:
    """A setting that is told wrongly, as JSON has it.

    settings: all that the port tells; reference: all that the reference uses; raw: config.json as it was recorded
    The last two are empty where no golden file is at hand.
    """

    name: str
    told: Any
    expected: Any
    settings: Mapping[str, Any]
    reference: Mapping[str, Any]
    raw: Mapping[str, Any]

    def right(self, name: str) -> Any:
        """What the reference has for another setting; the port's own word for it where that is not known."""
        return self.reference.get(name, self.settings.get(name))


Look = Callable[[Misread], Mistake | None]


def misread(m: Misread) -> Mistake | None:
    """None for a value that no known mistake gives."""
    if m.name.startswith("generation."):
        return _generation(m)
    look = _LOOKS.get(m.name)
    return None if look is None else look(m)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _is_about(a: float | None, b: float | None) -> bool:
    return a is not None and b is not None and math.isclose(a, b, rel_tol=2.0**-20)


def _head_dim(m: Misread) -> Mistake | None:
    hidden, heads = _number(m.right("hidden_size")), _number(m.right("num_attention_heads"))
    if not hidden or not heads or m.told != hidden // heads:
        return None
    if _number(m.settings.get("num_attention_heads")) not in (None, heads):
        return None
    text = "taken as hidden_size / num_attention_heads, although config.json has head_dim"
    return Mistake(("head_dim_from_hidden",), text)


def _scaling(m: Misread) -> Mistake | None:
    told, size = _number(m.told), _number(m.right("head_dim"))
    hidden, heads = _number(m.right("hidden_size")), _number(m.right("num_attention_heads"))
    told_size = _number(m.settings.get("head_dim"))
    if told is None or size is None:
        return None
    if told_size and told_size != size and _is_about(told, told_size**-0.5):
        cause = _head_dim(replace(m, name="head_dim", told=int(told_size), expected=int(size)))
        text = f"follows from head_dim, which the port tells as {told_size:g}"
        return Mistake(cause.names if cause else (), text)
    candidates = (
        ("scale_missing", "scores not scaled", 1.0),
        ("scale_inverse", "multiplied by sqrt(head size) instead of divided", size**0.5),
        ("scale_by_head_dim", "divided by the head size, not by its root", 1 / size),
        ("scale_by_hidden", "divided by the root of the hidden size", hidden**-0.5 if hidden else None),
        (
            "scale_by_hidden_over_heads",
            "divided by the root of hidden size / heads, which is not the head size",
            (heads / hidden) ** 0.5 if heads and hidden else None,
        ),
    )
    return next((Mistake((name,), text) for name, text, value in candidates if _is_about(told, value)), None)


_THETAS = (1e4, 1e5, 5e5, 1e6, 5e6, 1e7)
_EPSILONS = (0.0, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3)
"""Those that models have: a port may have taken another's."""


def _theta(m: Misread) -> Mistake | None:
    told = _number(m.told)
    if told not in _THETAS:
        return None
    text = f"theta is {told:g}"
    if told == 1e4:
        text = "rope_theta was not found where config.json has it, and 10000 is the default"
    return Mistake((f"theta_{told:g}",), text)


def _eps(m: Misread) -> Mistake | None:
    told = _number(m.told)
    return Mistake((f"eps_{told:g}",), f"eps is {told:g}") if told in _EPSILONS else None


def _rope_scaling(m: Misread) -> Mistake | None:
    if m.told is None or (isinstance(m.told, Mapping) and m.told.get("rope_type") == "default"):
        return Mistake(
            ("scaling_ignored",), "rope_scaling ignored: frequencies as if nothing were configured"
        )
    if not isinstance(m.told, Mapping):
        return None
    kind, factor = m.told.get("rope_type"), _number(m.told.get("factor"))
    if m.expected is None and kind in ("linear", "yarn", "llama3") and factor:
        text = f"{kind} scaling by {factor:g}, though nothing is to be scaled"
        return Mistake((f"{kind}_scaling_{factor:g}",), text)
    if m.expected is not None and kind == "linear" and m.expected["rope_type"] != "linear":
        text = "every frequency divided by the factor, as linear scaling does"
        return Mistake(("linear_instead",), text)
    return None


def _windows(m: Misread) -> Mistake | None:
    """Each wrong layer by itself: what is wrong with it has to have a name in all of them."""
    if not isinstance(m.told, list) or len(m.told) != len(m.expected):
        return None
    layers: dict[str, list[int]] = {}
    for layer, (told, right) in enumerate(zip(m.told, m.expected, strict=True)):
        if told != right:
            layers.setdefault(_window(told, right), []).append(layer)
    if "" in layers:
        return None
    text = "; ".join(
        f"{_WINDOWS[name]} in {_told_layers(at, len(m.expected))}" for name, at in layers.items()
    )
    if list(layers) == ["window_although_off"] and m.raw.get("use_sliding_window") is False:
        text += ": sliding_window is read, and use_sliding_window, which is false, is not"
    return Mistake(tuple(layers), text)


_WINDOWS = {
    "window_ignored": "sliding window ignored",
    "window_although_off": "sliding window applied, although it is off,",
    "window_plus_one": "sliding window one key too wide",
    "window_minus_one": "sliding window one key too narrow",
}


def _window(told: Any, right: int | None) -> str:
    if right is None:
        return "window_although_off" if _number(told) else ""
    if told is None:
        return "window_ignored"
    return {1: "window_plus_one", -1: "window_minus_one"}.get(told - right, "") if _number(told) else ""


def _told_layers(layers: list[int], count: int) -> str:
    if len(layers) == count:
        return "all layers"
    more = f" and {len(layers) - 4} more" if len(layers) > 4 else ""
    return f"layer{'s' if len(layers) > 1 else ''} {', '.join(map(str, layers[:4]))}{more}"


_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_tanh": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "relu2": "relu_squared",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
    "softplus": "softplus",
    "mish": "mish",
    "linear": "act_missing",
}


def _activation(m: Misread) -> Mistake | None:
    name = _ACTIVATIONS.get(m.told) if isinstance(m.told, str) else None
    return None if name is None else Mistake((name,), f"{m.told} instead of {m.expected}")


def _switch(missing: tuple[str, str], added: tuple[str, str]) -> Look:
    """A setting that is true or false: its mistakes, where it should be true and where it should be false."""

    def look(m: Misread) -> Mistake | None:
        if not isinstance(m.told, bool):
            return None
        name, text = missing if m.expected else added
        return Mistake((name,), text)

    return look


_BIAS = _switch(
    ("bias_missing", "biases that the reference has are left out"),
    ("bias_added", "biases that the reference has not"),
)
_NORM = _switch(
    ("norm_skipped", "the norms of query and key heads are left out"),
    ("norm_added", "norms of query and key heads that the reference has not"),
)
_TIED = _switch(
    ("tie_ignored", "tie_word_embeddings ignored: the head has a parameter of its own"),
    ("parameters_of_another_component", "tied wrongly: the reference's head is not its embedding"),
)


def _eos(m: Misread) -> Mistake | None:
    ids = m.told if isinstance(m.told, list) else [m.told]
    if not ids or ids == [None]:
        return Mistake(("eos_missing",), "no id ends a text: eos_token_id was not read")
    if not set(map(str, ids)) < set(map(str, m.expected)):
        return None
    text = f"{len(ids)} of the {len(m.expected)} ids that end a text"
    if m.raw.get("eos_token_id") in (ids, ids[0]):
        text += ": those of config.json, which generation_config.json overrules"
    return Mistake(("eos_single",), text)


def _key_value_heads(m: Misread) -> Mistake | None:
    if m.told != m.settings.get("num_attention_heads"):
        return None
    text = "num_key_value_heads was not read: as many as query heads"
    return Mistake(("key_value_heads_as_query_heads",), text)


def _dtype(m: Misread) -> Mistake | None:
    if m.told is not None:
        return None
    return Mistake(("dtype_not_found",), "not found: config.json has it as `dtype` or as `torch_dtype`")


def _generation(m: Misread) -> Mistake | None:
    """Settings that are null, or do nothing, on one side."""
    if m.expected in (None, False):
        text = "set, although the checkpoint does not set it: brought in from elsewhere"
        return Mistake(("settings_added",), text)
    if m.told in (None, False, 0, 1) and not (m.told == 1 and m.name == "generation.top_k"):
        text = "not brought in: the reference takes it from generation_config.json, or by its own default"
        return Mistake(("settings_ignored",), text)
    return None


_LOOKS: dict[str, Look] = {
    "head_dim": _head_dim,
    "scaling": _scaling,
    "rope_theta": _theta,
    "rms_norm_eps": _eps,
    "rope_scaling": _rope_scaling,
    "windows": _windows,
    "hidden_act": _activation,
    "qkv_bias": _BIAS,
    "o_bias": _BIAS,
    "mlp_bias": _BIAS,
    "qk_norm": _NORM,
    "tie_word_embeddings": _TIED,
    "eos_token_ids": _eos,
    "num_key_value_heads": _key_value_heads,
    "dtype": _dtype,
}
