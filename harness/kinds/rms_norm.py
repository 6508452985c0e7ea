"""Root-mean-square norm, over the hidden size or over each head.

Zhang and Sennrich 2019, "Root Mean Square Layer Normalization". References compute it in float32. Most round to the
model's dtype and multiply by the weight last; where the setting `weighted` is there, the weight is multiplied in
float32, and the product is rounded:

    wide        weight (OLMo 2)
    plus_one    1 + weight (Gemma)
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from harness.kinds.eps import EPS
from harness.kinds.shards import SHARDS
from harness.kinds.step import U32, Array, CastOrder, Evaluation, Hypothesis, Step


def _split(e: Evaluation) -> Array:
    """x, its heads apart if the norm is over each head: (B T H·D) -> (B T H D)."""
    x, size = e.inputs["x"], e.settings["head_dim"]
    return x if size is None else x.reshape(*x.shape[:2], -1, size)


def _normed(e: Evaluation) -> Array:
    x = e.xp.wide(_split(e))
    return x * e.xp.rsqrt(e.xp.mean_square(x) + e.settings["eps"])


def _weight(e: Evaluation) -> Array:
    """What the reference multiplies by, in exact arithmetic."""
    weight = e.parameters["weight"]
    return 1 + weight if e.settings.get("weighted") == "plus_one" else weight


def _weighted_last(e: Evaluation) -> Array:
    return e.parameters["weight"] * e.xp.narrow(_normed(e))


def _weighted_wide(e: Evaluation) -> Array:
    weight = e.xp.wide(e.parameters["weight"])
    if e.settings.get("weighted") == "plus_one":
        weight = 1.0 + weight
    return e.xp.narrow(weight * _normed(e))


def evaluate(e: Evaluation) -> Array:
    return _weighted_wide(e) if "weighted" in e.settings else _weighted_last(e)


def variance(e: Evaluation, output: Array, u: float) -> Array:
    """The sum of squares enters with half its relative error; then root, product and two roundings."""
    squares = _split(e) ** 2
    power = e.xp.total(squares)
    # A row of zeros has no relative error; eps keeps its norm finite.
    spread = e.xp.total(squares**2) / e.xp.where(power > 0, power**2, 1.0)
    relative = squares.shape[-1] * (1 / 9 + spread / 18) / 4 + 1
    return output**2 * (relative * U32**2) + e.xp.rounding(u, output, output)


def _eps_outside_root(e: Evaluation) -> Array:
    x = _split(e)
    return _weight(e) * x / (e.xp.mean_square(x) ** 0.5 + e.settings["eps"])


def _mean_subtracted(e: Evaluation) -> Array:
    x = _split(e)
    return evaluate(e.with_inputs(x=(x - e.xp.total(x) / x.shape[-1]).reshape(e.inputs["x"].shape)))


def _sum_not_mean(e: Evaluation) -> Array:
    x = _split(e)
    return _weight(e) * x / (e.xp.total(x**2) + e.settings["eps"]) ** 0.5


def _root_missing(e: Evaluation) -> Array:
    x = _split(e)
    return _weight(e) * x / (e.xp.mean_square(x) + e.settings["eps"])


def _over_all_heads(e: Evaluation) -> Array:
    """One mean square for all heads together."""
    x, split = e.inputs["x"], _split(e)
    normed = x / (e.xp.mean_square(x) + e.settings["eps"]) ** 0.5
    return _weight(e) * normed.reshape(split.shape)


def _weighted_by(weight: Callable[[Array], Array], e: Evaluation) -> Evaluation:
    """Multiplied by what `weight` makes of the weight, whatever the reference adds to it."""
    by = weight(e.parameters["weight"])
    settings = {name: value for name, value in e.settings.items() if name != "weighted"}
    return replace(e.with_parameters(weight=by), settings=settings)


def _weight_alone(e: Evaluation) -> Evaluation | None:
    return _weighted_by(lambda w: w, e) if e.settings.get("weighted") == "plus_one" else None


def _weight_plus_one(e: Evaluation) -> Evaluation | None:
    return None if e.settings.get("weighted") == "plus_one" else _weighted_by(lambda w: 1 + w, e)


def _weight_twice(e: Evaluation) -> Evaluation:
    return _weighted_by(lambda w: _weight(e) ** 2, e)


def _heads_dim_major(e: Evaluation) -> Evaluation | None:
    """Heads split as (D H) instead of (H D)."""
    x, size = e.inputs["x"], e.settings["head_dim"]
    if size is None:
        return None
    apart = e.xp.swap(x.reshape(*x.shape[:2], size, -1), 2, 3)
    return e.with_inputs(x=apart.reshape(x.shape))


def _mean_square_by_shard(shards: int, e: Evaluation) -> Array:
    """One mean square for each shard of the channels, or of a head's."""
    x = _split(e)
    parts = x.reshape(*x.shape[:-1], shards, -1)
    normed = parts / (e.xp.mean_square(parts) + e.settings["eps"]) ** 0.5
    return _weight(e) * normed.reshape(x.shape)


def _means_summed(shards: int, e: Evaluation) -> Array:
    x = _split(e)
    return _weight(e) * x / (e.xp.mean_square(x) * shards + e.settings["eps"]) ** 0.5


HYPOTHESES = (
    Hypothesis("heads_dim_major", "heads split as (D H) instead of (H D)", change=_heads_dim_major),
    *EPS,
    Hypothesis("eps_outside_root", "eps added to the root instead of under it", evaluate=_eps_outside_root),
    Hypothesis(
        "weight_plus_one",
        "multiplied by 1 + weight (as Gemma does) instead of weight",
        change=_weight_plus_one,
    ),
    Hypothesis(
        "weight_without_one",
        "multiplied by weight instead of 1 + weight",
        change=_weight_alone,
    ),
    Hypothesis(
        "weight_missing",
        "not multiplied by its weight",
        change=partial(_weighted_by, lambda w: w * 0 + 1),
    ),
    Hypothesis("weight_twice", "multiplied by its weight twice", change=_weight_twice),
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
    *(
        Hypothesis(name, says.format(shards), evaluate=partial(evaluate_split, shards))
        for shards in SHARDS
        for name, says, evaluate_split in (
            ("norm_of_shard", "a norm over each of {} shards by itself, not over all", _mean_square_by_shard),
            ("sum_for_mean", "mean squares of {} shards summed instead of averaged", _means_summed),
        )
    ),
)


def _weighted_after(e: Evaluation) -> Array:
    """Where the reference rounds last."""
    return e.xp.narrow(_weight(e)) * e.xp.narrow(_normed(e))


CAST_ORDERS = (
    CastOrder("weight_before_rounding", "weight multiplied in float32, and rounded once", _weighted_wide),
    CastOrder("weight_after_rounding", "rounded, and then multiplied by the weight", _weighted_after),
)

RMS_NORM = Step("rms_norm", {"x": "B T C"}, "B T C", evaluate, variance, HYPOTHESES, CAST_ORDERS)
HEAD_NORM = Step("head_norm", {"x": "B T I"}, "B T H D", evaluate, variance, HYPOTHESES, CAST_ORDERS)
