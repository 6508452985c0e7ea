"""Root-mean-square norm, over the hidden size or over each head.

Zhang and Sennrich 2019, "Root Mean Square Layer Normalization". The reference computes in float32, rounds to the
model's dtype, and multiplies by the weight last.
"""

from harness.kinds.step import U32, Array, Evaluation, Step, rounding


def _split(e: Evaluation) -> Array:
    """x, its heads apart if the norm is over each head: (B T H·D) -> (B T H D)."""
    x, size = e.inputs["x"], e.settings["head_dim"]
    return x if size is None else x.reshape(*x.shape[:2], -1, size)


def evaluate(e: Evaluation) -> Array:
    x = e.xp.wide(_split(e))
    normed = x * e.xp.rsqrt(e.xp.mean_square(x) + e.settings["eps"])
    return e.parameters["weight"] * e.xp.narrow(normed)


def variance(e: Evaluation, output: Array, u: float) -> Array:
    """The sum of squares enters with half its relative error; then root, product and two roundings."""
    squares = _split(e) ** 2
    power = e.xp.total(squares)
    # A row of zeros has no relative error; eps keeps its norm finite.
    spread = e.xp.total(squares**2) / e.xp.where(power > 0, power**2, 1.0)
    relative = squares.shape[-1] * (1 / 9 + spread / 18) / 4 + 1
    return output**2 * (relative * U32**2) + rounding(e.xp, u, output, output)


RMS_NORM = Step("rms_norm", {"x": "B T C"}, "B T C", evaluate, variance)
HEAD_NORM = Step("head_norm", {"x": "B T I"}, "B T H D", evaluate, variance)
