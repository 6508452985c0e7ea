"""Rotary position embedding: the cosines and sines of a token's position.

Su et al. 2021, "RoFormer". In the half-split layout, both halves of a head have the same angles.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from harness.kinds import frequencies
from harness.kinds.precision import rounded
from harness.kinds.scalings import SCALINGS
from harness.kinds.step import (
    U32,
    Array,
    Evaluation,
    Hypothesis,
    Step,
    Variance,
    rounding_up_to_one,
)

Angles = Callable[[Evaluation], Array]
Frequencies = Callable[[Evaluation], Array]
"""The frequency of each channel, (D), both halves; or of each text or token, (B T D)."""


def _angles(e: Evaluation) -> Array:
    """positions (B T) -> angles (B T D), wide; the second half of the channels repeats the first."""
    angles = e.xp.wide(e.inputs["positions"])[..., None] * frequencies.frequencies(e)
    return e.xp.concat((angles, angles), -1)


def _of(function: str, angles: Angles, e: Evaluation) -> Array:
    """cos or sin (B T D); YaRN enlarges them."""
    return e.xp.narrow(getattr(e.xp, function)(angles(e)) * frequencies.attention_factor(e.settings))


def _angle_variance(e: Evaluation) -> Array:
    """The variance of an angle computed in float32.

    The frequency's, and one rounding for the product with the position: half of its largest variance, as it is on
    average over many channels. At position 30,000 this is what limits cos and sin, not their own rounding.
    """
    half = frequencies.relative_variance(e) + 1
    return _angles(e) ** 2 * e.xp.concat((half, half), -1) * (U32**2 / 6)


def _wave_variance(e: Evaluation, output: Array, u: float) -> Array:
    enlarged = frequencies.attention_factor(e.settings)
    turned = _angle_variance(e) * (enlarged**2 - output**2)
    if enlarged == 1:
        return turned + rounding_up_to_one(e.xp, U32, output) + rounding_up_to_one(e.xp, u, output)
    # The factor and the product with it are rounded as well, and nothing ends at one any more.
    own = rounding_up_to_one(e.xp, U32, output / enlarged) * enlarged**2 + e.xp.rounding(U32, output, output)
    return abs(turned) + own + e.xp.rounding(u, output)


def _position(by: int, e: Evaluation) -> Evaluation:
    return e.with_inputs(positions=e.inputs["positions"] + by)


def _positions_from_zero(e: Evaluation) -> Evaluation:
    """Every row counted from its first column, padding too."""
    columns = e.xp.indices(e.inputs["positions"].shape[1])
    return e.with_inputs(positions=e.inputs["positions"] * 0 + columns)


def _theta(value: float, e: Evaluation) -> Evaluation | None:
    return None if value == e.settings["theta"] else e.with_settings(theta=value)


def _exponents_times(factor: float, e: Evaluation) -> Evaluation:
    return e.with_settings(exponents_times=factor)


def _halves(e: Evaluation, half: Array) -> Array:
    return e.xp.concat((half, half), -1)


def _right(e: Evaluation) -> Array:
    return frequencies.frequencies(e)


def _interleaved(e: Evaluation) -> Array:
    return _right(e).repeat(2)


def _reversed(e: Evaluation) -> Array:
    return _halves(e, _right(e)[::-1])


def _partial(e: Evaluation) -> Array:
    """The first half of each head turns, with frequencies of a head of that size; the rest stands still."""
    turning = _right(e.with_settings(head_dim=e.settings["head_dim"] // 2))
    still = turning * 0
    return e.xp.concat((turning, still, turning, still), -1)


def _of_hidden(e: Evaluation) -> Array:
    size = e.settings["head_dim"]
    return _halves(e, _right(e.with_settings(head_dim=e.settings.get("hidden_size", size)))[: size // 2])


def _low_precision(precision: str, e: Evaluation) -> Array:
    return _halves(e, rounded(_right(e), precision))


def _by(found: Frequencies, e: Evaluation) -> Array:
    return e.xp.wide(e.inputs["positions"])[..., None] * found(e)


def _variance_of(angles: Angles) -> Variance:
    """The rounding of other angles: theirs, relatively as large as the right ones' may be, and the function's."""

    def variance(e: Evaluation, output: Array, u: float) -> Array:
        largest = max(math.log(e.settings["theta"]) ** 2 + 2, frequencies.relative_variance(e).max())
        own = e.xp.rounding(U32, output) + e.xp.rounding(u, output)
        left = abs(frequencies.attention_factor(e.settings) ** 2 - output**2)
        return angles(e) ** 2 * ((largest + 1) * U32**2 / 6) * left + own

    return variance


def _angles_rounded(precision: str, e: Evaluation) -> Array:
    return rounded(_angles(e), precision)


def _positions_rounded(precision: str, e: Evaluation) -> Array:
    positions = rounded(e.inputs["positions"], precision)
    return positions[..., None] * _halves(e, _right(e))


def _ramp_reversed(e: Evaluation) -> Array:
    """YaRN with fast frequencies divided and slow ones kept."""
    factor = e.settings["scaling"]["factor"]
    return _halves(e, frequencies.plain(e) * (1 + 1 / factor) - _right(e))


def _of_each_token(e: Evaluation) -> Evaluation:
    """Each token's frequencies are those of a call that ends with it."""
    return frequencies.for_length(e, e.inputs["positions"][..., None] + 1)


def _only(rope_type: str, e: Evaluation) -> Evaluation | None:
    return e if (e.settings.get("scaling") or {}).get("rope_type") == rope_type else None


def _of_whole_call(hypothesis: Hypothesis) -> Hypothesis:
    """With the frequencies of the whole call when a part of it is looked at."""

    def change(e: Evaluation) -> Evaluation | None:
        changed = hypothesis.change(e) if hypothesis.change else e
        return None if changed is None else frequencies.for_length(changed)

    return replace(hypothesis, change=change)


_TURNED_OTHERWISE: tuple[
    tuple[str, str, Frequencies, Callable[[Evaluation], Evaluation | None] | None], ...
] = (
    (
        "frequencies_interleaved",
        "frequencies interleaved (a a b b), where heads are split in halves",
        _interleaved,
        None,
    ),
    ("frequencies_reversed", "frequencies in reverse order", _reversed, None),
    ("partial_rotary", "only half of each head turns (partial rotary)", _partial, None),
    ("frequencies_of_hidden", "frequencies of the hidden size instead of the head size", _of_hidden, None),
    *(
        (
            "frequencies_low_precision",
            f"frequencies rounded to {precision}",
            partial(_low_precision, precision),
            None,
        )
        for precision in ("bfloat16", "float16")
    ),
    (
        "ramp_reversed",
        "YaRN's ramp the wrong way round: fast frequencies are divided, slow ones kept",
        _ramp_reversed,
        partial(_only, "yarn"),
    ),
)
"""Name, words, frequencies, and where the mistake can be made."""


def _angle_hypotheses(function: str, other: str) -> tuple[Hypothesis, ...]:
    """function: `cos` or `sin`; other: the other one."""

    def turned(name: str, says: str, angles: Angles, change: Any = None) -> Hypothesis:
        return Hypothesis(name, says, change, partial(_of, function, angles), _variance_of(angles))

    found = (
        *(
            Hypothesis(f"theta_{value:g}", f"theta is {value:g}", change=partial(_theta, value))
            for value in (1e4, 1e5, 5e5, 1e6, 5e6, 1e7)
        ),
        Hypothesis("position_plus_one", "positions are one too far", change=partial(_position, 1)),
        Hypothesis("position_minus_one", "positions are one too early", change=partial(_position, -1)),
        Hypothesis(
            "positions_from_zero",
            "positions are columns: padding counted, start ignored",
            change=_positions_from_zero,
        ),
        Hypothesis(
            "position_zero",
            "every position is 0",
            change=lambda e: e.with_inputs(positions=e.inputs["positions"] * 0),
        ),
        Hypothesis(
            "cos_and_sin_exchanged",
            f"{other} instead of {function}",
            evaluate=partial(_of, other, _angles),
            variance=_variance_of(_angles),
        ),
        Hypothesis(
            "sign_flipped",
            f"-{function} instead of {function}",
            evaluate=lambda e: -_of(function, _angles, e),
        ),
        Hypothesis(
            "frequency_exponent_halved",
            "frequencies theta^(-i/D) instead of theta^(-2i/D)",
            change=partial(_exponents_times, 0.5),
        ),
        Hypothesis(
            "frequency_exponent_doubled",
            "frequencies theta^(-4i/D) instead of theta^(-2i/D)",
            change=partial(_exponents_times, 2),
        ),
        *(turned(name, says, partial(_by, f), change) for name, says, f, change in _TURNED_OTHERWISE),
        *(
            turned(
                "angles_low_precision", f"angles rounded to {precision}", partial(_angles_rounded, precision)
            )
            for precision in ("bfloat16", "float16")
        ),
        *(
            turned(
                "positions_low_precision",
                f"positions rounded to {precision}, which has no whole numbers beyond {whole}",
                partial(_positions_rounded, precision),
            )
            for precision, whole in (("bfloat16", 256), ("float16", 2048))
        ),
        *(Hypothesis(name, says, change) for name, says, change in SCALINGS),
        Hypothesis(
            "length_of_each_token",
            "dynamic frequencies of each token's own position, where those of the longest hold for all",
            change=partial(_only, "dynamic"),
            evaluate=lambda e: _of(function, _angles, _of_each_token(e)),
            variance=lambda e, output, u: _wave_variance(_of_each_token(e), output, u),
            whole=True,
        ),
    )
    return tuple(h if h.name == "length_of_each_token" else _of_whole_call(h) for h in found)


COS = Step(
    "cos",
    {"positions": "B T"},
    "B T D",
    partial(_of, "cos", _angles),
    _wave_variance,
    _angle_hypotheses("cos", "sin"),
)
SIN = Step(
    "sin",
    {"positions": "B T"},
    "B T D",
    partial(_of, "sin", _angles),
    _wave_variance,
    _angle_hypotheses("sin", "cos"),
)
