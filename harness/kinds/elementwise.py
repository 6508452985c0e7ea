"""Steps that take each element by itself: activation, gate, residual sum."""

from harness.kinds.step import U32, Array, Evaluation, Step, rounding


def _silu(e: Evaluation) -> Array:
    """x · sigmoid(x). Elfwing et al. 2018."""
    return e.xp.silu(e.inputs["x"])


def _silu_variance(e: Evaluation, output: Array, u: float) -> Array:
    """exp and sum in float32; the sigmoid, and then the product, may be rounded to the model's dtype."""
    return rounding(e.xp, U32, output, output) + rounding(e.xp, u, output, output)


def _gated(e: Evaluation) -> Array:
    return e.inputs["act"] * e.inputs["up"]


def _residual(e: Evaluation) -> Array:
    return e.inputs["residual"] + e.inputs["branch"]


def _rounded_once(e: Evaluation, output: Array, u: float) -> Array:
    return rounding(e.xp, u, output)


SILU = Step("silu", {"x": "B T F"}, "B T F", _silu, _silu_variance)
GATED = Step("gated", {"act": "B T F", "up": "B T F"}, "B T F", _gated, _rounded_once)
RESIDUAL = Step("residual", {"residual": "B T C", "branch": "B T C"}, "B T C", _residual, _rounded_once)
