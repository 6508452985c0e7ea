"""Rotary position embedding: the cosines and sines of a token's position.

Su et al. 2021, "RoFormer". In the half-split layout, both halves of a head have the same angles.
"""

import math
from collections.abc import Callable
from functools import partial

from harness.kinds.precision import rounded
from harness.kinds.step import (
    U32,
    Array,
    Evaluation,
    Hypothesis,
    Step,
    Variance,
    rounding,
    rounding_up_to_one,
)


def _angles(e: Evaluation) -> Array:
    """positions (B T) -> angles (B T D), wide; the second half of the channels repeats the first."""
    frequencies = e.xp.inverse_frequencies(e.settings["theta"], e.settings["head_dim"])
    angles = e.xp.wide(e.inputs["positions"])[..., None] * frequencies
    return e.xp.concat((angles, angles), -1)


def _cos(e: Evaluation) -> Array:
    return e.xp.narrow(e.xp.cos(_angles(e)))


def _sin(e: Evaluation) -> Array:
    return e.xp.narrow(e.xp.sin(_angles(e)))


def _angle_variance(e: Evaluation) -> Array:
    """The variance of an angle computed in float32.

    A frequency theta ** -x, taken as exp(-x ln theta), carries the rounding of x ln(theta), and those of power and
    quotient; the product with the position one more: each with half of its largest variance, as it is on average
    over many channels. At position 30,000 this is what limits cos and sin, not their own rounding.
    """
    size = e.settings["head_dim"]
    exponents = e.xp.wide(e.xp.indices(size // 2)) * (2 / size)
    exponents = e.xp.concat((exponents, exponents), -1)
    relative = ((exponents * math.log(e.settings["theta"])) ** 2 + 3) * (U32**2 / 6)
    return _angles(e) ** 2 * relative


def _cos_variance(e: Evaluation, output: Array, u: float) -> Array:
    own = rounding_up_to_one(e.xp, U32, output) + rounding_up_to_one(e.xp, u, output)
    return _angle_variance(e) * (1 - output**2) + own


def _sin_variance(e: Evaluation, output: Array, u: float) -> Array:
    return _cos_variance(e, output, u)


def _position(by: int, e: Evaluation) -> Evaluation:
    return e.with_inputs(positions=e.inputs["positions"] + by)


def _positions_from_zero(e: Evaluation) -> Evaluation:
    """Every row counted from its first column, padding too."""
    columns = e.xp.indices(e.inputs["positions"].shape[1])
    return e.with_inputs(positions=e.inputs["positions"] * 0 + columns)


def _theta(value: float, e: Evaluation) -> Evaluation | None:
    return None if value == e.settings["theta"] else e.with_settings(theta=value)


Frequencies = Callable[[Evaluation], Array]
"""The frequency of each channel, (D), both halves."""


def _halves(e: Evaluation, half: Array) -> Array:
    return e.xp.concat((half, half), -1)


def _right(e: Evaluation) -> Array:
    return e.xp.inverse_frequencies(e.settings["theta"], e.settings["head_dim"])


def _interleaved(e: Evaluation) -> Array:
    return _right(e).repeat(2)


def _reversed(e: Evaluation) -> Array:
    return _halves(e, _right(e)[::-1])


def _exponent_times(factor: float, e: Evaluation) -> Array:
    return _halves(e, _right(e) ** factor)


def _divided(factor: float, e: Evaluation) -> Array:
    return _halves(e, _right(e) / factor)


def _partial(e: Evaluation) -> Array:
    """The first half of each head turns, with frequencies of a head of that size; the rest stands still."""
    size = e.settings["head_dim"]
    turning = e.xp.inverse_frequencies(e.settings["theta"], size // 2)
    still = turning * 0
    return e.xp.concat((turning, still, turning, still), -1)


def _of_hidden(e: Evaluation) -> Array:
    size, hidden = e.settings["head_dim"], e.settings.get("hidden_size", e.settings["head_dim"])
    return _halves(e, e.xp.inverse_frequencies(e.settings["theta"], hidden)[: size // 2])


def _low_precision(precision: str, e: Evaluation) -> Array:
    return _halves(e, rounded(_right(e), precision))


def _of(function: str, angles: Callable[[Evaluation], Array], e: Evaluation) -> Array:
    return e.xp.narrow(getattr(e.xp, function)(angles(e)))


def _of_longer(function: str, factor: int, e: Evaluation) -> Array:
    return _of(function, _angles, e) * (1 + 0.1 * math.log(factor))


def _by(frequencies: Frequencies, e: Evaluation) -> Array:
    return e.xp.wide(e.inputs["positions"])[..., None] * frequencies(e)


def _variance_of(angles: Callable[[Evaluation], Array]) -> Variance:
    """The rounding of other angles: theirs, relatively as large as the right ones' may be, and the function's."""

    def variance(e: Evaluation, output: Array, u: float) -> Array:
        relative = (math.log(e.settings["theta"]) ** 2 + 3) * (U32**2 / 6)
        own = rounding(e.xp, U32, output) + rounding(e.xp, u, output)
        return angles(e) ** 2 * relative * abs(1 - output**2) + own

    return variance


def _angles_rounded(precision: str, e: Evaluation) -> Array:
    return rounded(_angles(e), precision)


def _positions_rounded(precision: str, e: Evaluation) -> Array:
    positions = rounded(e.inputs["positions"], precision)
    return positions[..., None] * _halves(e, _right(e))


def _angle_hypotheses(function: str, other: str) -> tuple[Hypothesis, ...]:
    """function: `cos` or `sin`; other: the other one."""
    angles: tuple[tuple[str, str, Frequencies], ...] = (
        (
            "frequencies_interleaved",
            "frequencies interleaved (a a b b), where heads are split in halves",
            _interleaved,
        ),
        ("frequencies_reversed", "frequencies in reverse order", _reversed),
        (
            "frequency_exponent_halved",
            "frequencies theta^(-i/D) instead of theta^(-2i/D)",
            partial(_exponent_times, 0.5),
        ),
        (
            "frequency_exponent_doubled",
            "frequencies theta^(-4i/D) instead of theta^(-2i/D)",
            partial(_exponent_times, 2),
        ),
        *(
            (
                f"linear_scaling_{factor}",
                f"positions divided by {factor} (linear scaling)",
                partial(_divided, factor),
            )
            for factor in (2, 4, 8)
        ),
        ("partial_rotary", "only half of each head turns (partial rotary)", _partial),
        ("frequencies_of_hidden", "frequencies of the hidden size instead of the head size", _of_hidden),
        *(
            (
                "frequencies_low_precision",
                f"frequencies rounded to {precision}",
                partial(_low_precision, precision),
            )
            for precision in ("bfloat16", "float16")
        ),
    )
    found = [(name, says, partial(_by, frequencies)) for name, says, frequencies in angles]
    for precision in ("bfloat16", "float16"):
        found.append(
            ("angles_low_precision", f"angles rounded to {precision}", partial(_angles_rounded, precision))
        )
        found.append(
            (
                "positions_low_precision",
                f"positions rounded to {precision}, which has no whole numbers beyond "
                f"{'256' if precision == 'bfloat16' else '2048'}",
                partial(_positions_rounded, precision),
            )
        )
    return (
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
        *(
            Hypothesis(
                "attention_factor",
                f"scaled by {1 + 0.1 * math.log(factor):.4g}, YaRN's attention factor for {factor} times the length",
                evaluate=partial(_of_longer, function, factor),
            )
            for factor in (2, 4, 8, 16, 32)
        ),
        Hypothesis(
            "sign_flipped",
            f"-{function} instead of {function}",
            evaluate=lambda e: -_of(function, _angles, e),
        ),
        *(
            Hypothesis(name, says, evaluate=partial(_of, function, turned), variance=_variance_of(turned))
            for name, says, turned in found
        ),
    )


COS = Step("cos", {"positions": "B T"}, "B T D", _cos, _cos_variance, _angle_hypotheses("cos", "sin"))
SIN = Step("sin", {"positions": "B T"}, "B T D", _sin, _sin_variance, _angle_hypotheses("sin", "cos"))
