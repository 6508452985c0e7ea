"""Root-mean-square norm, over the hidden size or over each head.

Zhang and Sennrich 2019, "Root Mean Square Layer Normalization". The reference computes in float32, rounds to the
model's dtype, and multiplies by the weight last.
"""

from functools import partial

from harness.kinds.step import U32, Array, CastOrder, Evaluation, Hypothesis, Step, rounding


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


def _eps(value: float, e: Evaluation) -> Evaluation | None:
    return None if value == e.settings["eps"] else e.with_settings(eps=value)


def _eps_outside_root(e: Evaluation) -> Array:
    x = _split(e)
    return e.parameters["weight"] * x / (e.xp.mean_square(x) ** 0.5 + e.settings["eps"])


def _mean_subtracted(e: Evaluation) -> Array:
    x = _split(e)
    return evaluate(e.with_inputs(x=(x - e.xp.total(x) / x.shape[-1]).reshape(e.inputs["x"].shape)))


def _sum_not_mean(e: Evaluation) -> Array:
    x = _split(e)
    return e.parameters["weight"] * x / (e.xp.total(x**2) + e.settings["eps"]) ** 0.5


def _root_missing(e: Evaluation) -> Array:
    x = _split(e)
    return e.parameters["weight"] * x / (e.xp.mean_square(x) + e.settings["eps"])


def _over_all_heads(e: Evaluation) -> Array:
    """One mean square for all heads together."""
    x, split = e.inputs["x"], _split(e)
    normed = x / (e.xp.mean_square(x) + e.settings["eps"]) ** 0.5
    return e.parameters["weight"] * normed.reshape(split.shape)


def _heads_dim_major(e: Evaluation) -> Evaluation | None:
    """Heads split as (D H) instead of (H D)."""
    x, size = e.inputs["x"], e.settings["head_dim"]
    if size is None:
        return None
    apart = e.xp.swap(x.reshape(*x.shape[:2], size, -1), 2, 3)
    return e.with_inputs(x=apart.reshape(x.shape))


HYPOTHESES = (
    Hypothesis("heads_dim_major", "heads split as (D H) instead of (H D)", change=_heads_dim_major),
    *(
        Hypothesis(
            f"eps_{value:g}",
            f"eps is {f'{value:g}' if value else '0, or next to it'}",
            change=partial(_eps, value),
        )
        for value in (0.0, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3)
    ),
    Hypothesis("eps_outside_root", "eps added to the root instead of under it", evaluate=_eps_outside_root),
    Hypothesis(
        "weight_plus_one",
        "multiplied by 1 + weight (as Gemma does) instead of weight",
        change=lambda e: e.with_parameters(weight=1 + e.parameters["weight"]),
    ),
    Hypothesis(
        "weight_missing",
        "not multiplied by its weight",
        change=lambda e: e.with_parameters(weight=e.parameters["weight"] * 0 + 1),
    ),
    Hypothesis(
        "weight_twice",
        "multiplied by its weight twice",
        change=lambda e: e.with_parameters(weight=e.parameters["weight"] ** 2),
    ),
    Hypothesis(
        "parameters_zero",
        "weight is zero: never loaded",
        change=lambda e: e.with_parameters(weight=e.parameters["weight"] * 0),
    ),
    Hypothesis("mean_subtracted", "mean subtracted first (LayerNorm)", evaluate=_mean_subtracted),
    Hypothesis("norm_skipped", "its input handed on: no norm at all", evaluate=_split),
    Hypothesis(
        "sum_not_mean", "divided by the root of the sum of squares, not of their mean", evaluate=_sum_not_mean
    ),
    Hypothesis("root_missing", "divided by the mean square, not by its root", evaluate=_root_missing),
    Hypothesis("norm_over_all_heads", "one norm over all heads, not one over each", evaluate=_over_all_heads),
)


def _weight_before_rounding(e: Evaluation) -> Array:
    x = e.xp.wide(_split(e))
    normed = x * e.xp.rsqrt(e.xp.mean_square(x) + e.settings["eps"])
    return e.xp.narrow(e.xp.wide(e.parameters["weight"]) * normed)


CAST_ORDERS = (
    CastOrder(
        "weight_before_rounding", "weight multiplied in float32, and rounded once", _weight_before_rounding
    ),
)

RMS_NORM = Step("rms_norm", {"x": "B T C"}, "B T C", evaluate, variance, HYPOTHESES, CAST_ORDERS)
HEAD_NORM = Step("head_norm", {"x": "B T I"}, "B T H D", evaluate, variance, HYPOTHESES, CAST_ORDERS)
