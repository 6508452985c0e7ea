"""Layer norm: the mean subtracted, the spread divided by, then weight and bias, where there are any.

Ba, Kiros and Hinton 2016. With the setting `wide`, everything is computed in float32 operation by operation and rounded
once, as Cohere has it; without it, by the one call that a library has for it.
"""

from functools import partial

from harness.kinds.eps import EPS
from harness.kinds.step import U32, Array, Evaluation, Hypothesis, Step


def evaluate(e: Evaluation) -> Array:
    weight, bias = e.parameters.get("weight"), e.parameters.get("bias")
    if not e.settings.get("wide"):
        return e.xp.layer_norm(e.inputs["x"], weight, bias, e.settings["eps"])
    x = e.xp.wide(e.inputs["x"])
    centred = x - e.xp.mean(x)
    normed = centred * e.xp.rsqrt(e.xp.mean_square(centred) + e.settings["eps"])
    weighted = normed if weight is None else e.xp.wide(weight) * normed
    return e.xp.narrow(weighted if bias is None else weighted + bias)


def variance(e: Evaluation, output: Array, u: float) -> Array:
    """As a root-mean-square norm, of what is left of x when a mean is subtracted that was itself summed and rounded.

    Rounded to the dtype before weight and bias, or after them.
    """
    x, weight, bias = e.inputs["x"], e.parameters.get("weight"), e.parameters.get("bias")
    size = x.shape[-1]
    mean = e.xp.mean(x)
    squares = (x - mean) ** 2
    power = e.xp.total(squares)
    spread = e.xp.total(squares**2) / e.xp.where(power > 0, power**2, 1.0)
    relative = size * (1 / 9 + spread / 18) / 4 + 1
    product = output if bias is None else output - bias
    root = (power / size + e.settings["eps"]) ** -0.5
    summed = size * (mean**2 / 9 + e.xp.total(x * x) / (18 * size**2))
    moved = (summed + mean**2 / 3 + x**2 / 3) * (root * (1 if weight is None else weight)) ** 2
    return (product**2 * relative + moved) * U32**2 + e.xp.rounding(u, product, output)


def _mean_kept(e: Evaluation) -> Array:
    x, weight, bias = e.inputs["x"], e.parameters.get("weight"), e.parameters.get("bias")
    normed = x * e.xp.rsqrt(e.xp.mean_square(x) + e.settings["eps"])
    weighted = normed if weight is None else normed * weight
    return weighted if bias is None else weighted + bias


def _without(role: str, e: Evaluation) -> Evaluation | None:
    return e.without_parameter(role) if role in e.parameters else None


def _plus_one(e: Evaluation) -> Evaluation | None:
    weight = e.parameters.get("weight")
    return None if weight is None else e.with_parameters(weight=1 + weight)


HYPOTHESES = (
    *EPS,
    Hypothesis("mean_kept", "mean not subtracted (RMSNorm)", evaluate=_mean_kept),
    Hypothesis("weight_plus_one", "multiplied by 1 + weight instead of weight", change=_plus_one),
    Hypothesis("weight_missing", "not multiplied by its weight", change=partial(_without, "weight")),
    Hypothesis("bias_missing", "bias not added", change=partial(_without, "bias")),
    Hypothesis("norm_skipped", "its input handed on: no norm at all", evaluate=lambda e: e.inputs["x"]),
)

LAYER_NORM = Step("layer_norm", {"x": "B T C"}, "B T C", evaluate, variance, HYPOTHESES)
