"""The softmax over what each query sees: causal mask, sliding window and padding are part of it."""

import math
from collections.abc import Callable
from functools import partial

from harness.kinds.shards import SHARDS
from harness.kinds.step import (
    U32,
    Array,
    CastOrder,
    Evaluation,
    Hypothesis,
    Step,
    rounding_up_to_one,
)


def _visible(e: Evaluation) -> Array:
    """Which keys each query sees: (B 1 T S)."""
    queries = e.inputs["query_index"][:, None]
    keys = e.xp.indices(e.inputs["attention_mask"].shape[1])[None, :]
    visible = keys <= queries
    window = e.settings["window"]
    if window is not None:
        visible = visible & (keys > queries - window)
    return visible[None, None] & (e.inputs["attention_mask"] != 0)[:, None, None, :]


Visible = Callable[[Evaluation], Array]
"""Which keys each query sees, (B 1 T S) or broadcast to it."""


def _masked(e: Evaluation, visible: Array) -> Array:
    """The mask is added in the model's dtype."""
    scores = e.inputs["scores"]
    # lowest, not -inf: a row of padding sees nothing, and must not become NaN
    return scores + e.xp.narrow(e.xp.where(visible, scores * 0, scores * 0 + e.xp.lowest()))


def _probs_of(visible: Visible, e: Evaluation) -> Array:
    """The softmax is taken in float32 whatever the model's dtype is, as the reference does."""
    return e.xp.narrow(e.xp.softmax(e.xp.wide(_masked(e, visible(e)))))


def _probs(e: Evaluation) -> Array:
    return _probs_of(_visible, e)


def _probs_variance_of(visible: Visible, e: Evaluation, output: Array, u: float) -> Array:
    """What exponentials, their sum, the quotient and the last rounding do to a probability p.

    An exponential is off by its argument's rounding (with half of its largest variance, as it is on average over
    many keys) and its own, relatively; a probability moves with its own exponential, as far as it is not all of the
    sum, and against all others. Adding n terms rounds n - 1 times, and terms below the roundoff of the sum not at all.
    """
    seen = visible(e)
    scores = e.xp.where(seen, e.inputs["scores"], e.xp.lowest())
    distance = e.xp.where(seen, e.xp.greatest(scores) - scores, 0.0)
    exponential = (distance**2 / 6 + 1) * U32**2
    shares = output**2 * exponential
    moved = (1 - output) ** 2 * exponential + e.xp.total(shares) - shares
    additions = noticed_terms(e, output) - 1
    summed = additions * (1 / 9 + e.xp.total(output**2) / 18) * U32**2
    rounded = rounding_up_to_one(e.xp, U32, output) + rounding_up_to_one(e.xp, u, output)
    return output**2 * (moved + summed) + rounded


def _probs_variance(e: Evaluation, output: Array, u: float) -> Array:
    return _probs_variance_of(_visible, e, output, u)


def noticed_terms(e: Evaluation, probs: Array) -> Array:
    """How many keys of each query have a probability that a float32 sum notices."""
    return e.xp.total(e.xp.where(probs > U32, probs * 0 + 1, 0.0))


def _by_window(window: Callable[[Evaluation], int | None], e: Evaluation) -> Evaluation | None:
    changed = window(e)
    return None if changed == e.settings["window"] else e.with_settings(window=changed)


def _window_and(by: int, e: Evaluation) -> int | None:
    return e.settings["window"] and e.settings["window"] + by


def _places(e: Evaluation) -> tuple[Array, Array, Array]:
    """Queries (T 1), keys (1 S), and which keys are not padding (B 1 1 S)."""
    mask = e.inputs["attention_mask"]
    return (
        e.inputs["query_index"][:, None],
        e.xp.indices(mask.shape[1])[None, :],
        (mask != 0)[:, None, None, :],
    )


def _in_window(e: Evaluation, queries: Array, keys: Array) -> Array:
    window = e.settings["window"]
    return keys > queries - window if window is not None else keys >= 0


def _not_causal(e: Evaluation) -> Array:
    queries, keys, real = _places(e)
    return _in_window(e, queries, keys)[None, None] & real


def _causal_by(ahead: int, e: Evaluation) -> Array:
    queries, keys, real = _places(e)
    return ((keys <= queries + ahead) & _in_window(e, queries, keys))[None, None] & real


def _window_from_zero(e: Evaluation) -> Array:
    queries, keys, real = _places(e)
    rows = e.xp.indices(len(e.inputs["query_index"]))[:, None]
    return ((keys <= queries) & _in_window(e, rows, keys))[None, None] & real


def _everything(e: Evaluation) -> Array:
    return e.inputs["scores"] * 0 == 0


_MASKS: tuple[tuple[str, str, Visible], ...] = (
    ("causal_mask_missing", "no causal mask: queries see the keys after them", _not_causal),
    ("causal_mask_strict", "a query does not see its own key (< instead of <=)", partial(_causal_by, -1)),
    ("causal_mask_one_ahead", "a query sees one key ahead", partial(_causal_by, 1)),
    ("causal_mask_missing", "no mask at all", _everything),
)


def _mask_after_softmax(e: Evaluation) -> Array:
    return e.xp.softmax(e.inputs["scores"]) * _visible(e)


def _softmax_over(axis: int, e: Evaluation) -> Array:
    return e.xp.swap(e.xp.softmax(e.xp.swap(_masked(e, _visible(e)), axis, 3)), axis, 3)


def _off_by_one(e: Evaluation) -> Array:
    """exp(x) / (1 + sum(exp(x)))."""
    masked = _masked(e, _visible(e))
    total = e.xp.log_total_exp(masked)
    return e.xp.exp(masked - total) * e.xp.sigmoid(total)


def _sigmoids(e: Evaluation) -> Array:
    return e.xp.where(_visible(e), e.xp.sigmoid(e.inputs["scores"]), 0.0)


def _scores_times(factor: Callable[[Evaluation], float], e: Evaluation) -> Evaluation:
    return e.with_inputs(scores=e.inputs["scores"] * factor(e))


def _scaled_variance(e: Evaluation, output: Array, u: float) -> Array:
    """The scaled scores may have been rounded before the softmax: each moves its probability, and all others."""
    rounded = e.xp.rounding(u, e.inputs["scores"])
    shares = output**2 * rounded
    moved = (1 - output) ** 2 * rounded + e.xp.total(shares) - shares
    return _probs_variance(e, output, u) + output**2 * moved


def _by_shard(shards: int, e: Evaluation) -> Array:
    """A softmax over each shard of the keys by itself; the last shard may be smaller."""
    masked = _masked(e, _visible(e))
    width = -(-masked.shape[-1] // shards)
    output = masked * 0
    for start in range(0, masked.shape[-1], width):
        output[..., start : start + width] = e.xp.softmax(masked[..., start : start + width])
    return output


_SOFTMAXES = (
    *(
        Hypothesis(
            name, says, evaluate=partial(_probs_of, visible), variance=partial(_probs_variance_of, visible)
        )
        for name, says, visible in _MASKS
    ),
    Hypothesis(
        "padding_ignored",
        "padding is seen as if it were text",
        change=lambda e: e.with_inputs(attention_mask=e.inputs["attention_mask"] * 0 + 1),
    ),
    Hypothesis("window_ignored", "sliding window ignored", change=partial(_by_window, lambda e: None)),
    Hypothesis(
        "window_plus_one",
        "sliding window one key too wide",
        change=partial(_by_window, partial(_window_and, 1)),
    ),
    Hypothesis(
        "window_minus_one",
        "sliding window one key too narrow",
        change=partial(_by_window, partial(_window_and, -1)),
    ),
    Hypothesis(
        "window_although_off",
        "sliding window applied although it is off here",
        change=partial(_by_window, lambda e: e.settings["window"] or e.settings.get("config_window")),
    ),
    Hypothesis(
        "query_index_from_zero",
        "queries counted from 0 in the mask, whatever keys they stand at",
        change=lambda e: e.with_inputs(query_index=e.xp.indices(len(e.inputs["query_index"]))),
    ),
    Hypothesis(
        "window_from_zero",
        "queries counted from 0 in the sliding window alone, whatever keys they stand at",
        evaluate=partial(_probs_of, _window_from_zero),
        variance=partial(_probs_variance_of, _window_from_zero),
        whole=True,
    ),
    Hypothesis("mask_after_softmax", "masked after the softmax, not before", evaluate=_mask_after_softmax),
    Hypothesis(
        "softmax_base_2",
        "softmax with base 2 instead of e",
        change=partial(_scores_times, lambda e: math.log(2)),
        variance=_scaled_variance,
    ),
    Hypothesis(
        "scale_twice",
        "scores scaled once more",
        change=partial(_scores_times, lambda e: e.settings.get("head_dim", 1) ** -0.5),
        variance=_scaled_variance,
    ),
    Hypothesis("softmax_off_by_one", "softmax with 1 added to its sum", evaluate=_off_by_one),
    Hypothesis("sigmoid_for_softmax", "sigmoid instead of softmax", evaluate=_sigmoids),
    Hypothesis(
        "softmax_over_queries", "softmax over the queries", evaluate=partial(_softmax_over, 2), whole=True
    ),
    Hypothesis(
        "softmax_over_heads", "softmax over the heads", evaluate=partial(_softmax_over, 1), whole=True
    ),
    *(
        Hypothesis(
            "softmax_of_shard",
            f"a softmax over each of {shards} shards of the keys by itself, not over all",
            evaluate=partial(_by_shard, shards),
        )
        for shards in SHARDS
    ),
)


def _softmax_narrow(e: Evaluation) -> Array:
    """Every operation of the softmax rounded to the model's dtype."""
    masked = _masked(e, _visible(e))
    exponentials = e.xp.exp(masked - e.xp.greatest(masked))
    return exponentials / e.xp.narrow(e.xp.total(e.xp.wide(exponentials)))


PROBS = Step(
    "probs",
    {"scores": "B H T S", "attention_mask": "B S", "query_index": "T"},
    "B H T S",
    _probs,
    _probs_variance,
    _SOFTMAXES,
    (CastOrder("softmax_narrow", "softmax taken in the model's dtype instead of float32", _softmax_narrow),),
)
