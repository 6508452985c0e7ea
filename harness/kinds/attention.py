"""Attention, step by step as the reference's eager mode takes them.

Vaswani et al. 2017, with the key-value heads shared among groups of query heads (Ainslie et al. 2023).
"""

import math
from collections.abc import Callable, Iterator
from functools import partial

from harness.kinds.precision import PRODUCTS
from harness.kinds.shards import heads_in_shards, partial_sums
from harness.kinds.softmax import noticed_terms
from harness.kinds.step import (
    Array,
    Evaluation,
    Hypothesis,
    Step,
    summation,
)


def _part(e: Evaluation) -> Array:
    """x (B T I) -> (B T O), its channels from `start` to `stop`."""
    return e.inputs["x"][..., e.settings["start"] : e.settings["stop"]]


def _heads(e: Evaluation) -> Array:
    """x (B T H·D) or (B T H D) -> (B H T D)."""
    x = e.inputs["x"]
    return e.xp.swap(x.reshape(*x.shape[:2], -1, e.settings["head_dim"]), 1, 2)


def _keys(e: Evaluation) -> Array:
    """x (B K T D) -> (B H T D)."""
    return e.xp.repeat_heads(e.inputs["x"], e.settings["groups"])


def _values(e: Evaluation) -> Array:
    """x (B T K·D) -> (B H T D)."""
    return e.xp.repeat_heads(_heads(e), e.settings["groups"])


def _scores(e: Evaluation) -> Array:
    return e.xp.matmul(e.inputs["q"], e.xp.swap(e.inputs["k"], 2, 3)) * e.settings["scaling"]


def _scores_variance(e: Evaluation, output: Array, u: float) -> Array:
    """Summed in any order; rounded before and after scaling, or the queries scaled and rounded first.

    Scaling by a power of two rounds nothing.
    """
    q, k = e.inputs["q"] * e.settings["scaling"], e.inputs["k"]
    squares = e.xp.matmul(q * q, e.xp.swap(k * k, 2, 3))
    summed = summation(k.shape[-1], output, squares) + e.xp.rounding(u, output)
    if math.frexp(e.settings["scaling"])[0] == 0.5:
        return summed
    return summed + e.xp.rounding(u, output) + squares * (u * u / 3)


def _merged(e: Evaluation, heads: Array) -> Array:
    """(B H T D) -> (B T H·D), heads in order."""
    merged = e.xp.swap(heads, 1, 2)
    return merged.reshape(*merged.shape[:2], -1)


def _context(e: Evaluation) -> Array:
    return _merged(e, e.xp.matmul(e.inputs["probs"], e.inputs["v"]))


def _context_variance(e: Evaluation, output: Array, u: float) -> Array:
    """A sum over the keys whose probability counts."""
    probs, v = e.inputs["probs"], e.inputs["v"]
    summed = summation(noticed_terms(e, probs), e.xp.matmul(probs, v), e.xp.matmul(probs * probs, v * v))
    return _merged(e, summed) + e.xp.rounding(u, output)


def _split_heads(e: Evaluation, of: str) -> Array:
    """(B K T D): what is expanded, its heads apart."""
    return e.inputs["x"] if of == "k" else _heads(e)


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
    *heads_in_shards(("q", "k")),
    *_in_low_precision("q", "k"),
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
    summed = summation(noticed_terms(e, probs), e.xp.matmul(probs, v), e.xp.matmul(probs * probs, v * v))
    return heads(summed).reshape(output.shape) + e.xp.rounding(u, output)


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
    *heads_in_shards(("probs", "v")),
    *partial_sums("probs", "the keys"),
    *_in_low_precision("probs", "v"),
)


def _other_part(e: Evaluation, last: bool) -> Array:
    size = e.settings["stop"] - e.settings["start"]
    return e.inputs["x"][..., -size:] if last else e.inputs["x"][..., :size]


def _every_other(e: Evaluation) -> Array:
    """Parts that lie channel by channel beside each other, where they lie one behind another."""
    size, channels = e.settings["stop"] - e.settings["start"], e.inputs["x"].shape[-1]
    return e.inputs["x"][..., e.settings["start"] // size :: channels // size][..., :size]


PART = Step(
    "part",
    {"x": "B T I"},
    "B T O",
    _part,
    hypotheses=(
        Hypothesis(
            "first_part", "the first part instead of its own", evaluate=partial(_other_part, last=False)
        ),
        Hypothesis("last_part", "the last part instead of its own", evaluate=partial(_other_part, last=True)),
        Hypothesis("parts_interleaved", "parts taken channel by channel in turn", evaluate=_every_other),
    ),
)


def _heads_dim_major(e: Evaluation) -> Array:
    x = e.inputs["x"]
    return x.reshape(*x.shape[:2], e.settings["head_dim"], -1).transpose(0, 3, 1, 2)


HEADS = Step(
    "heads",
    {"x": "B T I"},
    "B H T D",
    _heads,
    hypotheses=(
        Hypothesis("heads_dim_major", "heads split as (D H) instead of (H D)", evaluate=_heads_dim_major),
    ),
)


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


CONTEXT = Step(
    "context", {"probs": "B H T S", "v": "B H S D"}, "B T I", _context, _context_variance, _CONTEXTS
)
