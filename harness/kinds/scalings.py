"""Mistakes in how frequencies are stretched for longer texts, each as other settings of the same step.

`settings["scaling"]` is None where a reference stretches nothing: there the mistake is to stretch all the same.
"""

from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Any

from harness.kinds.frequencies import enlargement, for_length, is_plain
from harness.kinds.step import Evaluation

Scaling = dict[str, Any]
Change = Callable[[Evaluation], Evaluation | None]
_FACTORS = (2, 4, 8)
_SCALED = ("linear", "dynamic", "yarn", "llama3")
_NOT_LINEAR = ("dynamic", "yarn", "llama3")
_OF_ORIGINAL = ("yarn", "llama3")


def _linear(factor: float, attention_factor: float = 1.0) -> Scaling:
    return {"rope_type": "linear", "factor": factor, "attention_factor": attention_factor}


def _yarn(factor: float) -> Scaling:
    """As sister models of long contexts have it."""
    return {
        "rope_type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": 32_768,
        "attention_factor": enlargement(factor),
        "beta_fast": 32,
        "beta_slow": 1,
        "truncate": True,
    }


def _llama3(factor: float) -> Scaling:
    return {
        "rope_type": "llama3",
        "factor": factor,
        "original_max_position_embeddings": 8_192,
        "low_freq_factor": 1,
        "high_freq_factor": 4,
    }


def _instead(
    change: Callable[[Scaling], Scaling | None], types: Collection[str], e: Evaluation
) -> Evaluation | None:
    """Another scaling in the place of one of these types; None where there is none, or it is the same."""
    scaling = e.settings.get("scaling")
    if scaling is None or scaling["rope_type"] not in types:
        return None
    other = change(scaling)
    return None if other is None or other == scaling else e.with_settings(scaling=other)


def _although_plain(scaling: Scaling, e: Evaluation) -> Evaluation | None:
    return e.with_settings(scaling=scaling) if is_plain(e.settings) else None


def _ignored(e: Evaluation) -> Evaluation | None:
    return None if is_plain(e.settings) else e.with_settings(scaling=None)


def _divided(factor: float, e: Evaluation) -> Evaluation | None:
    scaling = e.settings.get("scaling") or {}
    return None if scaling.get("factor") == factor else e.with_settings(scaling=_linear(factor))


def _larger_base(factor: float, e: Evaluation) -> Evaluation:
    size = e.settings["head_dim"]
    return e.with_settings(theta=e.settings["theta"] * factor ** (size / (size - 2)), scaling=None)


def _enlarged(factor: float, e: Evaluation) -> Evaluation | None:
    """Cos and sin enlarged for `factor` times the length."""
    scaling, enlarged = e.settings.get("scaling") or _linear(1), enlargement(factor)
    if scaling.get("attention_factor", 1.0) == enlarged:
        return None
    return e.with_settings(scaling={**scaling, "attention_factor": enlarged})


def _enlarged_by_default(scaling: Scaling) -> Scaling:
    return {**scaling, "attention_factor": enlargement(scaling["factor"])}


def _squared(scaling: Scaling) -> Scaling | None:
    """Only where no factor of `_FACTORS` says the same."""
    factor = scaling["factor"] ** 2
    return None if factor in _FACTORS else {**scaling, "factor": factor}


def _without_ramp(scaling: Scaling) -> Scaling | None:
    enlarged = scaling["attention_factor"]
    return None if enlarged == 1 else _linear(scaling["factor"], enlarged)


def _only_enlarged(scaling: Scaling) -> Scaling | None:
    enlarged = scaling["attention_factor"]
    return None if enlarged == 1 else _linear(1, enlarged)


def _of_lengths(enlarged_too: bool, scaling: Scaling) -> Scaling | None:
    factor = scaling["max_position_embeddings"] / scaling["original_max_position_embeddings"]
    if factor <= 1 or factor == scaling["factor"]:
        return None
    more = {"attention_factor": enlargement(factor)} if enlarged_too else {}
    return {**scaling, "factor": factor, **more}


def _original_of_config(scaling: Scaling) -> Scaling:
    return {**scaling, "original_max_position_embeddings": scaling["max_position_embeddings"]}


def _turns_by_default(scaling: Scaling) -> Scaling:
    return {**scaling, "beta_fast": 32, "beta_slow": 1}


def _at_one_end(kept: str, scaling: Scaling) -> Scaling:
    """Nothing between: a frequency is kept or divided, and which of both is decided at one of the two ends."""
    return {**scaling, "low_freq_factor": scaling[kept], "high_freq_factor": scaling[kept]}


def _of_each_text(e: Evaluation) -> Evaluation | None:
    lengths = e.inputs["positions"].max(axis=1) + 1
    return _dynamic(e, lengths[:, None, None]) if len(lengths) > 1 else None


def _of_last_position(e: Evaluation) -> Evaluation | None:
    return _dynamic(e, e.inputs["positions"].max())


def _dynamic(e: Evaluation, length: Any) -> Evaluation | None:
    is_dynamic = not is_plain(e.settings) and e.settings["scaling"]["rope_type"] == "dynamic"
    return for_length(e, length) if is_dynamic else None


def _base_times(e: Evaluation) -> Evaluation | None:
    """The base times what it should be multiplied by a power of."""
    changed = _dynamic(e, e.inputs["positions"].max() + 1)
    if changed is None:
        return None
    scaling = changed.settings["scaling"]
    factor, longest = scaling["factor"], scaling["max_position_embeddings"]
    times = factor * float(scaling["length"]) / longest - (factor - 1)
    return e.with_settings(theta=e.settings["theta"] * times, scaling=None)


def _scalings() -> Iterator[tuple[str, str, Change]]:
    for n in _FACTORS:
        yield f"linear_scaling_{n}", f"positions divided by {n} (linear scaling)", partial(_divided, n)
        yield f"ntk_scaling_{n}", f"base enlarged for {n} times the length (NTK)", partial(_larger_base, n)
    for n in (2, 4):
        says = f"frequencies as YaRN has them for {n} times 32,768 tokens, though nothing is to be scaled"
        yield f"yarn_scaling_{n}", says, partial(_although_plain, _yarn(n))
    for n in (8, 32):
        says = f"frequencies as Llama 3 has them for {n} times 8,192 tokens, though nothing is to be scaled"
        yield f"llama3_scaling_{n}", says, partial(_although_plain, _llama3(n))
    for n in (2, 4, 8, 16, 32):
        says = f"scaled by {enlargement(n):.4g}, YaRN's attention factor for {n} times the length"
        yield "attention_factor", says, partial(_enlarged, n)
    yield "scaling_ignored", "frequencies as if no scaling were configured", _ignored
    for name, says, change, types in _OTHERWISE:
        yield name, says, partial(_instead, change, types)
    yield "length_of_each_text", "dynamic frequencies of each text's length, not the longest's", _of_each_text
    yield "length_one_short", "dynamic frequencies of the last position, not of the length", _of_last_position
    yield "ntk_exponent_missing", "base enlarged without the power D / (D - 2)", _base_times


_OTHERWISE: tuple[tuple[str, str, Callable[[Scaling], Scaling | None], Collection[str]], ...] = (
    (
        "linear_instead",
        "every frequency divided by the factor, as linear scaling does",
        lambda scaling: _linear(scaling["factor"]),
        _NOT_LINEAR,
    ),
    ("scaling_twice", "frequencies divided by the factor twice", _squared, ("linear",)),
    (
        "scaling_multiplied",
        "frequencies multiplied by the factor instead of divided",
        lambda scaling: {**scaling, "factor": 1 / scaling["factor"]},
        ("linear", "llama3"),
    ),
    (
        "attention_factor_missing",
        "cos and sin are not multiplied by YaRN's attention factor",
        lambda scaling: {**scaling, "attention_factor": 1.0},
        ("yarn",),
    ),
    (
        "attention_factor_twice",
        "cos and sin are multiplied by YaRN's attention factor twice",
        lambda scaling: {**scaling, "attention_factor": scaling["attention_factor"] ** 2},
        ("yarn",),
    ),
    (
        "attention_factor",
        "scaled by the attention factor that follows from the factor, though another is configured",
        _enlarged_by_default,
        ("yarn",),
    ),
    ("ramp_missing", "every frequency divided by the factor: YaRN's ramp left out", _without_ramp, ("yarn",)),
    (
        "frequencies_not_scaled",
        "YaRN's attention factor, and frequencies that are not scaled",
        _only_enlarged,
        ("yarn",),
    ),
    (
        "truncation",
        "the ends of YaRN's ramp rounded to whole channels or not, other than configured",
        lambda scaling: {**scaling, "truncate": not scaling["truncate"]},
        ("yarn",),
    ),
    (
        "beta_default",
        "YaRN's ramp from 32 turns to 1, though others are configured",
        _turns_by_default,
        ("yarn",),
    ),
    *(
        (
            "factor_from_lengths",
            "the factor taken as max_position_embeddings / original_max_position_embeddings",
            partial(_of_lengths, enlarged_too),
            ("yarn",) if enlarged_too else _OF_ORIGINAL,
        )
        for enlarged_too in (False, True)
    ),
    (
        "original_length_of_config",
        "original_max_position_embeddings taken for max_position_embeddings",
        _original_of_config,
        _OF_ORIGINAL,
    ),
    *(
        (
            "smoothing_missing",
            f"Llama 3's smoothing left out: frequencies between the ends are {what}",
            partial(_at_one_end, kept),
            ("llama3",),
        )
        for kept, what in (("low_freq_factor", "kept"), ("high_freq_factor", "divided"))
    ),
)
"""Name, words, the scaling that a port has instead, and the types that it can be instead of."""

SCALINGS = tuple(_scalings())
