"""Attention, step by step as the reference's eager mode takes them.

Vaswani et al. 2017, with the key-value heads shared among groups of query heads (Ainslie et al. 2023).
"""

import math
from collections.abc import Callable, Iterator
from functools import partial

from harness.kinds.precision import PRODUCTS
from harness.kinds.step import (
    U32,
    Array,
    CastOrder,
    Evaluation,
    Hypothesis,
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
    additions = _terms(e, output) - 1
    summed = additions * (1 / 9 + e.xp.total(output**2) / 18) * U32**2
    rounded = rounding_up_to_one(e.xp, U32, output) + rounding_up_to_one(e.xp, u, output)
    return output**2 * (moved + summed) + rounded


def _probs_variance(e: Evaluation, output: Array, u: float) -> Array:
    return _probs_variance_of(_visible, e, output, u)


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


def _split_heads(e: Evaluation, of: str) -> Array:
    """(B K T D): what is expanded, its heads apart."""
    x = e.inputs["x"]
    if of == "k":
        return x
    return e.xp.swap(x.reshape(*x.shape[:2], -1, e.settings["head_dim"]), 1, 2)


def _expanded_by(order: Callable[[Evaluation, int], Array], of: str, e: Evaluation) -> Array:
    """Heads of the output taken from the key-value heads that `order` lists."""
    heads = _split_heads(e, of)
    return heads[:, order(e, heads.shape[1])]


def _tiled(e: Evaluation, heads: int) -> Array:
    return e.xp.indices(heads * e.settings["groups"]) % heads


def _backwards(e: Evaluation, heads: int) -> Array:
    return (e.xp.indices(heads * e.settings["groups"]) // e.settings["groups"])[::-1]


def _first(e: Evaluation, heads: int) -> Array:
    return e.xp.indices(heads * e.settings["groups"]) * 0


def _values_dim_major(e: Evaluation) -> Array:
    x, size = e.inputs["x"], e.settings["head_dim"]
    heads = x.reshape(*x.shape[:2], size, -1).transpose(0, 3, 1, 2)
    return e.xp.repeat_heads(heads, e.settings["groups"])


def _expansions(of: str) -> tuple[Hypothesis, ...]:
    return tuple(
        Hypothesis(name, says, evaluate=partial(_expanded_by, order, of))
        for name, says, order in (
            ("tiled", "heads tiled (0 1 0 1) instead of repeated (0 0 1 1)", _tiled),
            ("heads_reversed", "heads in reverse order", _backwards),
            ("first_head_for_all", "first key-value head for all query heads", _first),
        )
    )


def _scaled_by(scale: Callable[[Evaluation], float], e: Evaluation) -> Evaluation:
    return e.with_settings(scaling=scale(e))


def _head_dim(e: Evaluation) -> int:
    return int(e.inputs["q"].shape[-1])


_SCALES: tuple[tuple[str, str, Callable[[Evaluation], float]], ...] = (
    ("scale_missing", "not scaled", lambda e: 1.0),
    ("scale_inverse", "multiplied by sqrt(head size) instead of divided", lambda e: _head_dim(e) ** 0.5),
    (
        "scale_by_head_dim",
        "divided by the head size instead of its root (scaled twice)",
        lambda e: 1 / _head_dim(e),
    ),
    (
        "scale_by_hidden",
        "divided by sqrt(hidden size) instead of sqrt(head size)",
        lambda e: _hidden(e) ** -0.5,
    ),
    (
        "scale_by_hidden_over_heads",
        "divided by sqrt(hidden size / heads) instead of sqrt(head size)",
        lambda e: (_hidden(e) / e.inputs["q"].shape[1]) ** -0.5,
    ),
)


def _hidden(e: Evaluation) -> float:
    return float(e.settings.get("hidden_size", _head_dim(e)))


def _keys_tiled(e: Evaluation) -> Evaluation | None:
    """Keys that were repeated (0 0 1 1) met in the order of tiled ones (0 1 0 1)."""
    k, groups = e.inputs["k"], e.settings.get("groups", 1)
    if groups == 1:
        return None
    order = e.xp.indices(k.shape[1]).reshape(-1, groups).swapaxes(0, 1).reshape(-1)
    return e.with_inputs(k=k[:, order])


def _in_low_precision(left: str, right: str) -> Iterator[Hypothesis]:
    def of_rounded(precise: Callable[[Array], Array], e: Evaluation) -> Evaluation:
        return e.with_inputs(**{name: precise(e.inputs[name]) for name in (left, right)})

    for name, says, precise in PRODUCTS:
        yield Hypothesis(name, f"operands of the product {says}", change=partial(of_rounded, precise))


def _softcapped(e: Evaluation) -> Array:
    return e.xp.tanh(_scores(e) / 50) * 50


_SCORES = (
    *(Hypothesis(name, says, change=partial(_scaled_by, scale)) for name, says, scale in _SCALES),
    Hypothesis("softcapped_50", "soft-capped: 50 tanh(x / 50)", evaluate=_softcapped),
    Hypothesis("heads_tiled", "key heads met in tiled order", change=_keys_tiled),
    *_in_low_precision("q", "k"),
)


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
    rounded = rounding(e.xp, u, e.inputs["scores"])
    shares = output**2 * rounded
    moved = (1 - output) ** 2 * rounded + e.xp.total(shares) - shares
    return _probs_variance(e, output, u) + output**2 * moved


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
)


def _context_by(heads: Callable[[Array], Array], e: Evaluation) -> Array:
    product = e.xp.matmul(e.inputs["probs"], e.inputs["v"])
    batch, count, tokens, size = product.shape
    return heads(product).reshape(batch, tokens, count * size)


def _values_tiled(e: Evaluation) -> Evaluation | None:
    tiled = _keys_tiled(e.with_inputs(k=e.inputs["v"]))
    return None if tiled is None else e.with_inputs(v=tiled.inputs["k"])


def _probs_transposed(e: Evaluation) -> Evaluation | None:
    probs = e.inputs["probs"]
    return e.with_inputs(probs=e.xp.swap(probs, 2, 3)) if probs.shape[2] == probs.shape[3] else None


def _context_spread(heads: Callable[[Array], Array], e: Evaluation, output: Array, u: float) -> Array:
    probs, v = e.inputs["probs"], e.inputs["v"]
    summed = summation(_terms(e, probs), e.xp.matmul(probs, v), e.xp.matmul(probs * probs, v * v))
    return heads(summed).reshape(output.shape) + rounding(e.xp, u, output)


_MERGES: tuple[tuple[str, str, Callable[[Array], Array], bool], ...] = (
    ("merged_without_transposing", "heads merged without moving them behind the tokens", lambda x: x, True),
    ("heads_dim_major", "heads merged as (D H) instead of (H D)", lambda x: x.transpose(0, 2, 3, 1), False),
)

_CONTEXTS = (
    *(
        Hypothesis(
            name,
            says,
            evaluate=partial(_context_by, heads),
            variance=partial(_context_spread, heads),
            whole=whole,
        )
        for name, says, heads, whole in _MERGES
    ),
    Hypothesis(
        "probs_transposed",
        "probabilities used with queries and keys exchanged",
        change=_probs_transposed,
        whole=True,
    ),
    Hypothesis("heads_tiled", "value heads met in tiled order", change=_values_tiled),
    *_in_low_precision("probs", "v"),
)


def _softmax_narrow(e: Evaluation) -> Array:
    """Every operation of the softmax rounded to the model's dtype."""
    masked = _masked(e, _visible(e))
    exponentials = e.xp.exp(masked - e.xp.greatest(masked))
    return exponentials / e.xp.narrow(e.xp.total(e.xp.wide(exponentials)))


KEYS = Step("expand_keys", {"x": "B K T D"}, "B H T D", _keys, hypotheses=_expansions("k"))
VALUES = Step(
    "expand_values",
    {"x": "B T I"},
    "B H T D",
    _values,
    hypotheses=(
        *_expansions("v"),
        Hypothesis("heads_dim_major", "heads split as (D H) instead of (H D)", evaluate=_values_dim_major),
    ),
)
SCORES = Step("scores", {"q": "B H T D", "k": "B H S D"}, "B H T S", _scores, _scores_variance, _SCORES)
PROBS = Step(
    "probs",
    {"scores": "B H T S", "attention_mask": "B S", "query_index": "T"},
    "B H T S",
    _probs,
    _probs_variance,
    _SOFTMAXES,
    (CastOrder("softmax_narrow", "softmax taken in the model's dtype instead of float32", _softmax_narrow),),
)
CONTEXT = Step(
    "context", {"probs": "B H T S", "v": "B H S D"}, "B T I", _context, _context_variance, _CONTEXTS
)
