"""Mistakes in the mask, and in turning scores into probabilities."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from harness.audit.catalogue.making import setting
from harness.audit.fault import Answer, Area, Call, Fault

Array = Any

_PROBS = ("*.probs",)
_UNSEEN = -1e30
_WINDOWED = setting("window", lambda window: window is not None)


def _causal(call: Call, ahead: int = 0) -> Array:
    """(T S): keys at or before a query, or `ahead` later."""
    keys = np.arange(call.inputs["scores"].shape[-1])
    return keys <= call.inputs["query_index"][:, None] + ahead


def _windowed(call: Call, wider: int | None = 0) -> Array:
    """(T S): keys within the window, made `wider`; all of them without a window, or where `wider` is None."""
    window, queries = call.component.settings["window"], call.inputs["query_index"][:, None]
    keys = np.arange(call.inputs["scores"].shape[-1])
    if window is None or wider is None:
        return np.ones((len(queries), len(keys)), dtype=bool)
    return keys > queries - window - wider


def _real(call: Call) -> Array:
    """(B 1 1 S): keys that are no padding."""
    return (call.inputs["attention_mask"] != 0)[:, None, None]


def _seen(call: Call) -> Array:
    return _causal(call) & _windowed(call) & _real(call)


def _softmax(scores: Array, seen: Array, axis: int = -1) -> Array:
    masked = np.where(seen, scores, _UNSEEN)
    exponentials = np.exp(masked - masked.max(axis=axis, keepdims=True))
    return exponentials / exponentials.sum(axis=axis, keepdims=True)


def _masked_by(seen: Callable[[Call], Array]) -> Callable[[Call], Array]:
    return lambda call: _softmax(call.inputs["scores"], seen(call))


def _over(axis: int) -> Callable[[Call], Array]:
    return lambda call: _softmax(call.inputs["scores"], _seen(call), axis)


def _mask_behind(call: Call) -> Array:
    return _softmax(call.inputs["scores"], np.True_) * _seen(call)


def _unseen_score_zero(call: Call) -> Array:
    """Scores times the mask: what is not seen has the score 0."""
    return _softmax(call.inputs["scores"] * _seen(call), np.True_)


def _unseen_ten_less(call: Call) -> Array:
    return _softmax(call.inputs["scores"] - 10 * ~_seen(call), np.True_)


def _backwards(call: Call) -> Array:
    keys = np.arange(call.inputs["scores"].shape[-1])
    return (keys >= call.inputs["query_index"][:, None]) & _real(call)


def _first_text_mask(call: Call) -> Array:
    mask = call.inputs["attention_mask"]
    return call.run(attention_mask=np.broadcast_to(mask[:1], mask.shape))


def _sigmoid(call: Call) -> Array:
    with np.errstate(over="ignore"):
        return _seen(call) / (1 + np.exp(-call.inputs["scores"]))


def _off_by_one(call: Call) -> Array:
    """One more key with the score 0 and the value 0."""
    scores = call.inputs["scores"]
    padded = np.concatenate([scores, np.zeros((*scores.shape[:-1], 1))], axis=-1)
    seen = np.broadcast_to(_seen(call), scores.shape)
    return _softmax(padded, np.concatenate([seen, np.ones((*scores.shape[:-1], 1), bool)], axis=-1))[..., :-1]


def _dropout(call: Call) -> Array:
    """A tenth of the probabilities dropped, the others enlarged."""
    probs = call.output
    return probs * (np.random.default_rng(0).random(probs.shape) >= 0.1) / 0.9


def _only_the_eight_largest(call: Call) -> Array:
    probs = call.output
    if probs.shape[-1] <= 8:
        return probs
    return np.where(probs >= np.sort(probs, axis=-1)[..., -8, None], probs, 0)


FAULTS = (
    Fault(
        "causal-mask-missing",
        Area.MASK,
        "a query sees the keys behind it",
        Answer(_PROBS, _masked_by(lambda call: _windowed(call) & _real(call))),
        frozenset({"causal_mask_missing"}),
    ),
    Fault(
        "causal-mask-strict",
        Area.MASK,
        "a query does not see its own key",
        Answer(_PROBS, _masked_by(lambda call: _causal(call, -1) & _windowed(call) & _real(call))),
        frozenset({"causal_mask_strict"}),
    ),
    Fault(
        "causal-mask-one-ahead",
        Area.MASK,
        "a query sees the next key",
        Answer(_PROBS, _masked_by(lambda call: _causal(call, 1) & _windowed(call) & _real(call))),
        frozenset({"causal_mask_one_ahead"}),
    ),
    Fault(
        "causal-mask-one-ahead-in-one-layer",
        Area.MASK,
        "a query of the second layer sees the next key",
        Answer(
            ("layers.1.self_attn.probs",),
            _masked_by(lambda call: _causal(call, 1) & _windowed(call) & _real(call)),
        ),
        frozenset({"causal_mask_one_ahead"}),
    ),
    Fault(
        "causal-mask-backwards",
        Area.MASK,
        "a query sees the keys at or behind its own instead of before",
        Answer(_PROBS, _masked_by(_backwards)),
    ),
    Fault(
        "padding-seen",
        Area.MASK,
        "padding is seen like any token",
        Answer(_PROBS, lambda call: call.run(attention_mask=np.ones_like(call.inputs["attention_mask"]))),
        frozenset({"padding_ignored"}),
    ),
    Fault(
        "padding-mask-inverted",
        Area.MASK,
        "padding is seen, and what is no padding is not",
        Answer(_PROBS, lambda call: call.run(attention_mask=1 - call.inputs["attention_mask"])),
    ),
    Fault(
        "first-text-mask-for-all",
        Area.MASK,
        "every text of the batch has the padding of the first",
        Answer(_PROBS, _first_text_mask),
        frozenset({"first_row_for_all"}),
    ),
    Fault(
        "window-ignored",
        Area.MASK,
        "layers with a sliding window see all keys",
        Answer(_PROBS, _masked_by(lambda call: _causal(call) & _real(call)), _WINDOWED),
        frozenset({"window_ignored"}),
    ),
    Fault(
        "window-one-wider",
        Area.MASK,
        "the sliding window holds one key more",
        Answer(_PROBS, _masked_by(lambda call: _causal(call) & _windowed(call, 1) & _real(call)), _WINDOWED),
        frozenset({"window_plus_one"}),
    ),
    Fault(
        "window-one-narrower",
        Area.MASK,
        "the sliding window holds one key less",
        Answer(_PROBS, _masked_by(lambda call: _causal(call) & _windowed(call, -1) & _real(call)), _WINDOWED),
        frozenset({"window_minus_one"}),
    ),
    Fault(
        "mask-after-softmax",
        Area.MASK,
        "the mask is multiplied to probabilities, which then do not sum to one",
        Answer(_PROBS, _mask_behind),
        frozenset({"mask_after_softmax"}),
    ),
    Fault(
        "mask-multiplied-to-scores",
        Area.MASK,
        "scores are multiplied by the mask: what is not seen has the score 0",
        Answer(_PROBS, _unseen_score_zero),
    ),
    Fault(
        "mask-too-small",
        Area.MASK,
        "what is not seen has its score lowered by 10 only",
        Answer(_PROBS, _unseen_ten_less),
    ),
    Fault(
        "softmax-over-queries",
        Area.SOFTMAX,
        "softmax runs over queries",
        Answer(_PROBS, _over(-2)),
        frozenset({"softmax_over_queries"}),
    ),
    Fault(
        "softmax-over-heads",
        Area.SOFTMAX,
        "softmax runs over heads",
        Answer(_PROBS, _over(1)),
        frozenset({"softmax_over_heads"}),
    ),
    Fault(
        "softmax-base-2",
        Area.SOFTMAX,
        "softmax takes powers of 2, and scores were not prepared for it",
        Answer(_PROBS, lambda call: call.run(scores=call.inputs["scores"] * math.log(2))),
        frozenset({"softmax_base_2"}),
    ),
    Fault(
        "softmax-off-by-one",
        Area.SOFTMAX,
        "softmax adds one to the sum, as with an attention sink",
        Answer(_PROBS, _off_by_one),
        frozenset({"softmax_off_by_one"}),
    ),
    Fault(
        "sigmoid-for-softmax",
        Area.SOFTMAX,
        "each score goes through a sigmoid by itself",
        Answer(_PROBS, _sigmoid),
        frozenset({"sigmoid_for_softmax"}),
    ),
    Fault(
        "temperature-of-0.9",
        Area.SOFTMAX,
        "scores are divided by 0.9 before softmax",
        Answer(_PROBS, lambda call: call.run(scores=call.inputs["scores"] / 0.9)),
    ),
    Fault(
        "dropout-left-on",
        Area.SOFTMAX,
        "a tenth of the probabilities is dropped, as in training",
        Answer(_PROBS, _dropout),
    ),
    Fault(
        "eight-largest-only",
        Area.SOFTMAX,
        "only the eight largest probabilities of a query are kept",
        Answer(_PROBS, _only_the_eight_largest),
    ),
)
