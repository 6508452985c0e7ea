"""Attention, step by step as the reference's eager mode takes them.

Vaswani et al. 2017, with the key-value heads shared among groups of query heads (Ainslie et al. 2023).
"""

import math

from harness.kinds.step import (
    U32,
    Array,
    Evaluation,
    Step,
    rounding,
    rounding_up_to_one,
    summation,
)


def _keys(e: Evaluation) -> Array:
    """x (B K T D) -> (B H T D)."""
    return e.xp.repeat_heads(e.inputs["x"], e.settings["groups"])


def _values(e: Evaluation) -> Array:
    """x (B T K·D) -> (B H T D)."""
    x = e.inputs["x"]
    heads = x.reshape(*x.shape[:2], -1, e.settings["head_dim"])
    return e.xp.repeat_heads(e.xp.swap(heads, 1, 2), e.settings["groups"])


def _scores(e: Evaluation) -> Array:
    return e.xp.matmul(e.inputs["q"], e.xp.swap(e.inputs["k"], 2, 3)) * e.settings["scaling"]


def _scores_variance(e: Evaluation, output: Array, u: float) -> Array:
    """Summed in any order; rounded before and after scaling, or the queries scaled and rounded first.

    Scaling by a power of two rounds nothing.
    """
    q, k = e.inputs["q"] * e.settings["scaling"], e.inputs["k"]
    squares = e.xp.matmul(q * q, e.xp.swap(k * k, 2, 3))
    summed = summation(k.shape[-1], output, squares) + rounding(e.xp, u, output)
    if math.frexp(e.settings["scaling"])[0] == 0.5:
        return summed
    return summed + rounding(e.xp, u, output) + squares * (u * u / 3)


def _visible(e: Evaluation) -> Array:
    """Which keys each query sees: (B 1 T S)."""
    queries = e.inputs["query_index"][:, None]
    keys = e.xp.indices(e.inputs["attention_mask"].shape[1])[None, :]
    visible = keys <= queries
    window = e.settings["window"]
    if window is not None:
        visible = visible & (keys > queries - window)
    return visible[None, None] & (e.inputs["attention_mask"] != 0)[:, None, None, :]


def _probs(e: Evaluation) -> Array:
    """The mask is added in the model's dtype, the softmax taken in float32, as the reference does."""
    scores = e.inputs["scores"]
    # lowest, not -inf: a row of padding sees nothing, and must not become NaN
    mask = e.xp.narrow(e.xp.where(_visible(e), scores * 0, scores * 0 + e.xp.lowest()))
    return e.xp.narrow(e.xp.softmax(e.xp.wide(scores + mask)))


def _probs_variance(e: Evaluation, output: Array, u: float) -> Array:
    """What exponentials, their sum, the quotient and the last rounding do to a probability p.

    An exponential is off by its argument's rounding (with half of its largest variance, as it is on average over
    many keys) and its own, relatively; a probability moves with its own exponential, as far as it is not all of the
    sum, and against all others. Adding n terms rounds n - 1 times, and terms below the roundoff of the sum not at all.
    """
    visible = _visible(e)
    scores = e.xp.where(visible, e.inputs["scores"], e.xp.lowest())
    distance = e.xp.where(visible, e.xp.greatest(scores) - scores, 0.0)
    exponential = (distance**2 / 6 + 1) * U32**2
    shares = output**2 * exponential
    moved = (1 - output) ** 2 * exponential + e.xp.total(shares) - shares
    additions = _terms(e, output) - 1
    summed = additions * (1 / 9 + e.xp.total(output**2) / 18) * U32**2
    rounded = rounding_up_to_one(e.xp, U32, output) + rounding_up_to_one(e.xp, u, output)
    return output**2 * (moved + summed) + rounded


def _terms(e: Evaluation, probs: Array) -> Array:
    """How many keys of each query have a probability that a float32 sum notices."""
    return e.xp.total(e.xp.where(probs > U32, probs * 0 + 1, 0.0))


def _merged(e: Evaluation, heads: Array) -> Array:
    """(B H T D) -> (B T H·D), heads in order."""
    merged = e.xp.swap(heads, 1, 2)
    return merged.reshape(*merged.shape[:2], -1)


def _context(e: Evaluation) -> Array:
    return _merged(e, e.xp.matmul(e.inputs["probs"], e.inputs["v"]))


def _context_variance(e: Evaluation, output: Array, u: float) -> Array:
    """A sum over the keys whose probability counts."""
    probs, v = e.inputs["probs"], e.inputs["v"]
    summed = summation(_terms(e, probs), e.xp.matmul(probs, v), e.xp.matmul(probs * probs, v * v))
    return _merged(e, summed) + rounding(e.xp, u, output)


KEYS = Step("expand_keys", {"x": "B K T D"}, "B H T D", _keys)
VALUES = Step("expand_values", {"x": "B T I"}, "B H T D", _values)
SCORES = Step("scores", {"q": "B H T D", "k": "B H S D"}, "B H T S", _scores, _scores_variance)
PROBS = Step(
    "probs",
    {"scores": "B H T S", "attention_mask": "B S", "query_index": "T"},
    "B H T S",
    _probs,
    _probs_variance,
)
CONTEXT = Step("context", {"probs": "B H T S", "v": "B H S D"}, "B T I", _context, _context_variance)
