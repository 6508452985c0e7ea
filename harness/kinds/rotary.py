"""Rotary position embedding: the cosines and sines of a token's position, and turning heads by them.

Su et al. 2021, "RoFormer", in the half-split layout: channel i turns together with channel i + D/2.
"""

import math

from harness.kinds.step import U32, Array, Evaluation, Step, rounding, rounding_up_to_one


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


def _halves_turned(e: Evaluation) -> tuple[Array, Array]:
    """The two products whose sum is the turned head, each (B H T D)."""
    x, cos, sin = e.inputs["x"], e.inputs["cos"], e.inputs["sin"]
    size = cos.shape[-1]
    x = e.xp.swap(x.reshape(*x.shape[:2], -1, size), 1, 2)
    crossed = e.xp.concat((-x[..., size // 2 :], x[..., : size // 2]), -1)
    return x * cos[:, None], crossed * sin[:, None]


def _rope(e: Evaluation) -> Array:
    straight, crossed = _halves_turned(e)
    return straight + crossed


def _rope_variance(e: Evaluation, output: Array, u: float) -> Array:
    return rounding(e.xp, u, *_halves_turned(e), output)


COS = Step("cos", {"positions": "B T"}, "B T D", _cos, _cos_variance)
SIN = Step("sin", {"positions": "B T"}, "B T D", _sin, _sin_variance)
ROPE = Step("rope", {"x": "B T I", "cos": "B T D", "sin": "B T D"}, "B H T D", _rope, _rope_variance)
