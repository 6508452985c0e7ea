"""Mistakes in how RoPE is scaled for texts longer than a model was trained on: left out, another kind, other numbers.

The formulas are written anew here, in turns and waves.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from harness.audit.fault import Answer, Area, Call, Fault
from harness.model import Component

Array = Any
Scaling = Mapping[str, Any] | None

ANGLES = ("*.cos", "*.sin")


def scaling_of(component: Component) -> Scaling:
    found: Scaling = component.settings.get("scaling")
    return found


def frequencies(
    call: Call,
    scaling: Scaling,
    theta: float | None = None,
    exponent: float = 2.0,
    length: Array = None,
) -> Array:
    """Radians a position, (D/2); for lengths (B 1 1) or (B T 1) of each text or token, (B T D/2)."""
    base, size = theta or call.component.settings["theta"], call.component.settings["head_dim"]
    pairs = np.arange(size // 2)
    kind, factor = (scaling["rope_type"], scaling["factor"]) if scaling else ("", 1.0)
    if scaling and kind == "dynamic":
        tokens = call.inputs["positions"].max() + 1 if length is None else length
        beyond = np.maximum(tokens / scaling["max_position_embeddings"] - 1, 0)
        base = base * (1 + factor * beyond) ** (size / (size - 2))
    own = base ** (-exponent * pairs / size)
    if scaling and kind == "linear":
        return own / factor
    if scaling and kind == "yarn":
        return own * _blend(_share_of_yarn(scaling, base, size), factor)
    if scaling and kind == "llama3":
        turns = scaling["original_max_position_embeddings"] * own / (2 * math.pi)
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        return own * _blend(np.interp(turns, [low, high], [0.0, 1.0]), factor)
    return own


def _blend(kept: Array, factor: float) -> Array:
    return kept + (1 - kept) / factor


def _share_of_yarn(scaling: Mapping[str, Any], base: float, size: int) -> Array:
    """How much of each frequency is kept: all of those that turn `beta_fast` times in the original length."""
    longest = scaling["original_max_position_embeddings"] / (2 * math.pi)
    ends = [0.5 * size * math.log(longest / scaling[beta], base) for beta in ("beta_fast", "beta_slow")]
    if scaling["truncate"]:
        ends = [math.floor(ends[0]), math.ceil(ends[1])]
    first, last = max(ends[0], 0), min(ends[1], size - 1)
    return np.interp(np.arange(size // 2), [first, max(last, first + 0.001)], [1.0, 0.0])


def wave(call: Call, angles: Array, scaling: Scaling) -> Array:
    """Angles (B T D/2) -> cosines or sines (B T D), whichever the component is, enlarged where YaRN does."""
    function = np.cos if call.component.kind == "cos" else np.sin
    both = np.concatenate([function(angles), function(angles)], axis=-1)
    return both * (scaling or {}).get("attention_factor", 1.0)


def _put(change: Callable[[Mapping[str, Any]], Scaling], *kinds: str) -> Answer:
    """Another scaling in the place of one of these kinds."""

    def changed(call: Call) -> Array:
        scaling = change(scaling_of(call.component) or {})
        return wave(call, call.inputs["positions"][..., None] * frequencies(call, scaling), scaling)

    return Answer(ANGLES, changed, lambda component: _kind(component) in kinds)


def _with(*kinds: str, **other: Callable[[Mapping[str, Any]], Any]) -> Answer:
    """Some numbers of a scaling replaced."""
    return _put(lambda scaling: {**scaling, **{name: of(scaling) for name, of in other.items()}}, *kinds)


def _kind(component: Component) -> str:
    scaling = scaling_of(component)
    return scaling["rope_type"] if scaling else "plain"


def _by_yarn(factor: float) -> float:
    return 1 + math.log(factor) / 10


def _yarn_on(factor: float) -> Answer:
    return _put(
        lambda _: {
            "rope_type": "yarn",
            "factor": factor,
            "original_max_position_embeddings": 32768,
            "beta_fast": 32,
            "beta_slow": 1,
            "truncate": True,
            "attention_factor": _by_yarn(factor),
        },
        "plain",
    )


def _llama3_on(factor: float) -> Answer:
    return _put(
        lambda _: {
            "rope_type": "llama3",
            "factor": factor,
            "original_max_position_embeddings": 8192,
            "low_freq_factor": 1,
            "high_freq_factor": 4,
        },
        "plain",
    )


def _larger_base(times: float) -> Answer:
    """The base scaled so that the slowest wave is so many times as long."""

    def changed(call: Call) -> Array:
        size, theta = (call.component.settings[name] for name in ("head_dim", "theta"))
        turning = frequencies(call, None, theta * times ** (size / (size - 2)))
        return wave(call, call.inputs["positions"][..., None] * turning, None)

    return Answer(ANGLES, changed)


def _dynamic(length: Callable[[Array], Array]) -> Answer:
    def changed(call: Call) -> Array:
        positions = call.inputs["positions"]
        turning = frequencies(call, scaling_of(call.component), length=length(positions))
        return wave(call, positions[..., None] * turning, None)

    return Answer(ANGLES, changed, lambda component: _kind(component) == "dynamic")


def _dynamic_without_power(call: Call) -> Array:
    scaling = scaling_of(call.component) or {}
    positions = call.inputs["positions"]
    beyond = max((positions.max() + 1) / scaling["max_position_embeddings"] - 1, 0)
    theta = call.component.settings["theta"] * (1 + scaling["factor"] * beyond)
    return wave(call, positions[..., None] * frequencies(call, None, theta), None)


def _ramp_reversed(call: Call) -> Array:
    scaling = scaling_of(call.component) or {}
    size, theta = (call.component.settings[name] for name in ("head_dim", "theta"))
    kept = 1 - _share_of_yarn(scaling, theta, size)
    turning = frequencies(call, None) * _blend(kept, scaling["factor"])
    return wave(call, call.inputs["positions"][..., None] * turning, scaling)


def _quotient(scaling: Mapping[str, Any]) -> float:
    return float(scaling["max_position_embeddings"] / scaling["original_max_position_embeddings"])


def _fault(name: str, says: str, planting: Answer, *named_by: str) -> Fault:
    return Fault(name, Area.ROTARY, says, planting, frozenset(named_by))


FAULTS = (
    _fault(
        "scaling-ignored",
        "RoPE is not scaled, though the checkpoint's is",
        _put(lambda scaling: None, "linear", "dynamic", "yarn", "llama3"),
        "scaling_ignored",
    ),
    _fault(
        "linear-scaling-on",
        "positions are divided by 4 though the checkpoint does not scale them",
        _put(lambda scaling: {"rope_type": "linear", "factor": 4.0}, "plain"),
        "linear_scaling_4",
    ),
    _fault(
        "linear-instead-of-scaling",
        "positions are divided by the factor, where frequencies are to be scaled otherwise",
        _put(
            lambda scaling: {"rope_type": "linear", "factor": scaling["factor"]}, "dynamic", "yarn", "llama3"
        ),
        "linear_instead",
    ),
    _fault(
        "linear-factor-halved",
        "positions are divided by half the factor",
        _with("linear", factor=lambda scaling: scaling["factor"] / 2),
        "linear_scaling_2",
    ),
    _fault(
        "linear-scaling-twice",
        "positions are divided by the factor, and so are the frequencies",
        _with("linear", factor=lambda scaling: scaling["factor"] ** 2),
        "scaling_twice",
    ),
    _fault(
        "scaling-multiplies",
        "frequencies are multiplied by the factor instead of divided",
        _with("linear", "llama3", factor=lambda scaling: 1 / scaling["factor"]),
        "scaling_multiplied",
    ),
    *(
        _fault(
            f"base-enlarged-for-{times}-times-the-length",
            f"the base of RoPE is enlarged for {times} times the length, whatever the checkpoint says",
            _larger_base(times),
            f"ntk_scaling_{times}",
        )
        for times in (2, 4, 8)
    ),
    *(
        _fault(
            f"yarn-on-for-{factor}-times-the-length",
            f"frequencies are YaRN's for {factor} times 32,768 tokens though the checkpoint does not scale them",
            _yarn_on(factor),
            f"yarn_scaling_{factor}",
        )
        for factor in (2, 4)
    ),
    *(
        _fault(
            f"slow-frequencies-scaled-by-{factor}",
            "the slow frequencies are stretched for a longer context, the fast ones are not, as in Llama 3",
            _llama3_on(factor),
            f"llama3_scaling_{factor}",
        )
        for factor in (8, 32)
    ),
    _fault(
        "yarn-attention-factor-missing",
        "cos and sin are not multiplied by YaRN's attention factor",
        _with("yarn", attention_factor=lambda scaling: 1.0),
        "attention_factor_missing",
    ),
    _fault(
        "yarn-attention-factor-twice",
        "cos and sin are multiplied by the attention factor, and so are the angles' cos and sin again",
        _with("yarn", attention_factor=lambda scaling: scaling["attention_factor"] ** 2),
        "attention_factor_twice",
    ),
    _fault(
        "yarn-attention-factor-of-another-length",
        "the attention factor is that of twice the factor",
        _with("yarn", attention_factor=lambda scaling: _by_yarn(2 * scaling["factor"])),
        "attention_factor",
    ),
    _fault(
        "yarn-frequencies-not-scaled",
        "cos and sin are multiplied by the attention factor, and nothing else is done of YaRN",
        _put(
            lambda scaling: {"rope_type": "", "factor": 1, "attention_factor": scaling["attention_factor"]},
            "yarn",
        ),
        "frequencies_not_scaled",
    ),
    _fault(
        "yarn-ramp-missing",
        "YaRN divides every frequency, the fast ones too",
        _with("yarn", rope_type=lambda scaling: "linear"),
        "ramp_missing",
    ),
    _fault(
        "yarn-ramp-reversed",
        "YaRN divides the fast frequencies and keeps the slow ones",
        Answer(ANGLES, _ramp_reversed, lambda component: _kind(component) == "yarn"),
        "ramp_reversed",
    ),
    _fault(
        "yarn-truncates-otherwise",
        "the ends of YaRN's ramp are not rounded to whole pairs, or are though they should not be",
        _with("yarn", truncate=lambda scaling: not scaling["truncate"]),
        "truncation",
    ),
    _fault(
        "yarn-turns-not-read",
        "YaRN's ramp is that of 32 turns and 1, whatever is configured",
        _with("yarn", beta_fast=lambda scaling: 32, beta_slow=lambda scaling: 1),
        "beta_default",
    ),
    _fault(
        "yarn-factor-of-the-lengths",
        "the factor is the longest position over the original length, and the attention factor follows from it",
        _with("yarn", factor=_quotient, attention_factor=lambda scaling: _by_yarn(_quotient(scaling))),
        "factor_from_lengths",
    ),
    _fault(
        "llama3-factor-of-the-lengths",
        "the factor is the longest position over the original length",
        _with("llama3", factor=_quotient),
        "factor_from_lengths",
    ),
    _fault(
        "original-length-mistaken",
        "the longest position is taken for the original length",
        _with(
            "yarn",
            "llama3",
            original_max_position_embeddings=lambda scaling: scaling["max_position_embeddings"],
        ),
        "original_length_of_config",
    ),
    _fault(
        "llama3-smoothing-missing",
        "frequencies between the two ends are kept as they are",
        _with("llama3", high_freq_factor=lambda scaling: scaling["low_freq_factor"] * (1 + 1e-12)),
        "smoothing_missing",
    ),
    _fault(
        "llama3-smoothing-missing-above",
        "frequencies between the two ends are divided like the slow ones",
        _with("llama3", low_freq_factor=lambda scaling: scaling["high_freq_factor"] * (1 - 1e-12)),
        "smoothing_missing",
    ),
    _fault(
        "dynamic-for-each-text",
        "each text of the batch has the frequencies of its own length",
        _dynamic(lambda positions: positions.max(axis=1)[:, None, None] + 1),
        "length_of_each_text",
    ),
    _fault(
        "dynamic-for-each-token",
        "each token has the frequencies of a text that ends with it",
        _dynamic(lambda positions: positions[..., None] + 1),
        "length_of_each_token",
    ),
    _fault(
        "dynamic-one-short",
        "the last position is taken for the length",
        _dynamic(lambda positions: positions.max()),
        "length_one_short",
    ),
    _fault(
        "dynamic-power-missing",
        "the base grows with the length itself, not with a power of it",
        Answer(ANGLES, _dynamic_without_power, lambda component: _kind(component) == "dynamic"),
        "ntk_exponent_missing",
    ),
)
