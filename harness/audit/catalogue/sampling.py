"""Mistakes in one setting by which logits are made ready for the choice of a token."""

from collections.abc import Callable
from typing import Any

import numpy as np

from harness.audit.catalogue import draws, processing
from harness.audit.catalogue.processing import Own, doing, fault, only, softmax

Array = Any


def _stronger(x: Array, penalty: float) -> Array:
    return np.where(x > 0, x / penalty, x * penalty)


def _token_by_token(
    change: Callable[[Array, float], Array], chosen: Callable[[Array], Array] = np.unique
) -> Own:
    """The penalty goes over the tokens `chosen` of each text, one after another; `change` is what it does to one."""

    def own(x: Array, token_ids: Array, penalty: float) -> Array:
        changed = x.copy()
        for row, ids in zip(changed, token_ids, strict=True):
            for token in chosen(ids):
                row[token] = change(row[token], penalty)
        return changed

    return own


def _of_first_text(x: Array, token_ids: Array, penalty: float) -> Array:
    return _token_by_token(_stronger)(x, np.broadcast_to(token_ids[:1], token_ids.shape), penalty)


def _of_log_probabilities(x: Array, token_ids: Array, penalty: float) -> Array:
    return _token_by_token(_stronger)(np.log(softmax(x)).astype(np.float32), token_ids, penalty)


def _best(count: Callable[[int], int], lowest_id_first: bool = True) -> Own:
    """As many as that and no more; of equal ones those with the lowest ids, or with the highest."""

    def own(x: Array, token_ids: Array, k: int) -> Array:
        ids = np.broadcast_to(np.arange(x.shape[1]), x.shape)
        order = np.lexsort((ids if lowest_id_first else -ids, -x), axis=-1)
        rank = np.empty_like(order)
        np.put_along_axis(rank, order, ids, axis=-1)
        return only(x, rank < count(k))

    return own


def _at_least_ranked(rank: Callable[[int], int]) -> Own:
    """With all that are as large as the one of this rank, counted from 1."""

    def own(x: Array, token_ids: Array, k: int) -> Array:
        return only(x, (x[:, None] > x[..., None]).sum(axis=-1) < rank(k))

    return own


def _least(x: Array, token_ids: Array, k: int) -> Array:
    return only(x, (x[:, None] < x[..., None]).sum(axis=-1) < k)


def _above_kth(x: Array, token_ids: Array, k: int) -> Array:
    return only(x, (x[:, None] >= x[..., None]).sum(axis=-1) < k)


def _of_whole_batch(x: Array, token_ids: Array, k: int) -> Array:
    return only(x, x >= np.sort(x, axis=None)[-k])


def _nucleus(keep: Callable[[Array, float], Array], way: int = -1) -> Own:
    """`keep(probabilities of a text in order, p)` says which stay. way: -1 from the likeliest on, 1 from the least."""

    def own(x: Array, token_ids: Array, p: float) -> Array:
        kept = np.zeros(x.shape, bool)
        for row, stays in zip(x, kept, strict=True):
            order = np.argsort(way * row, kind="stable")
            stays[order] = keep(softmax(row)[order], p)
            stays[order[0]] = True
        return only(x, kept & np.isfinite(x))

    return own


def _in_order_of_ids(x: Array, token_ids: Array, p: float) -> Array:
    probs = softmax(x)
    return only(x, np.cumsum(probs, axis=-1) - probs < p)


def _left_in_order(x: Array, token_ids: Array, p: float) -> Array:
    """As many as are in the nucleus, from token 0 on."""
    ranked = np.sort(softmax(x), axis=-1)[:, ::-1]
    return only(x, np.cumsum(ranked, axis=-1) - ranked < p)


_PENALTY = (
    fault(
        "repetition-penalty-ignored",
        "there is no repetition penalty",
        doing("repetition_penalty", lambda x, ids, penalty: x),
        "repetition_penalty_ignored",
    ),
    fault(
        "repetition-penalty-divides-always",
        "the repetition penalty divides negative logits, which makes their tokens likelier",
        doing("repetition_penalty", _token_by_token(lambda x, penalty: x / penalty)),
        "penalty_divides_negative",
    ),
    fault(
        "repetition-penalty-multiplies-always",
        "the repetition penalty multiplies positive logits, which makes their tokens likelier",
        doing("repetition_penalty", _token_by_token(lambda x, penalty: x * penalty)),
        "penalty_multiplies_positive",
    ),
    fault(
        "repetition-penalty-rewards",
        "the repetition penalty makes what was there already likelier",
        doing("repetition_penalty", _token_by_token(lambda x, penalty: _stronger(x, 1 / penalty))),
        "penalty_inverted",
    ),
    fault(
        "repetition-penalty-subtracted",
        "the repetition penalty is subtracted from logits",
        doing("repetition_penalty", _token_by_token(lambda x, penalty: x - penalty)),
        "penalty_subtracted",
    ),
    fault(
        "repetition-penalty-for-each-occurrence",
        "a token that came three times is penalised three times",
        doing("repetition_penalty", _token_by_token(_stronger, lambda ids: ids)),
        "penalty_per_occurrence",
    ),
    fault(
        "repetition-penalty-squared",
        "the repetition penalty is applied twice",
        doing("repetition_penalty", _token_by_token(lambda x, penalty: _stronger(x, penalty**2))),
    ),
    fault(
        "repetition-penalty-of-eight-tokens",
        "only the last eight tokens are penalised",
        doing("repetition_penalty", _token_by_token(_stronger, lambda ids: np.unique(ids[-8:]))),
    ),
    fault(
        "repetition-penalty-of-last-token",
        "only the last token is penalised",
        doing("repetition_penalty", _token_by_token(_stronger, lambda ids: ids[-1:])),
        "penalty_on_last_token_only",
    ),
    fault(
        "repetition-penalty-one-token-late",
        "the last token is not penalised yet",
        doing("repetition_penalty", _token_by_token(_stronger, lambda ids: np.unique(ids[:-1]))),
        "penalty_without_last_token",
    ),
    fault(
        "repetition-penalty-without-first-token",
        "the first token is not penalised",
        doing("repetition_penalty", _token_by_token(_stronger, lambda ids: np.unique(ids[1:]))),
        "penalty_without_first_token",
    ),
    fault(
        "repetition-penalty-takes-0-for-padding",
        "token 0 is never penalised",
        doing("repetition_penalty", _token_by_token(_stronger, lambda ids: np.unique(ids[ids > 0]))),
        "penalty_without_token_0",
    ),
    fault(
        "repetition-penalty-of-first-text",
        "every text of the batch is penalised for the tokens of the first",
        doing("repetition_penalty", _of_first_text),
        "penalty_of_first_row",
    ),
    fault(
        "repetition-penalty-of-log-probabilities",
        "logits are normalised before the repetition penalty, so that all are negative",
        doing("repetition_penalty", _of_log_probabilities),
        "penalty_on_log_probabilities",
    ),
)

_TEMPERATURE = (
    fault(
        "sampling-temperature-ignored",
        "logits are not divided by the temperature",
        doing("temperature", lambda x, ids, t: x),
        "temperature_ignored",
    ),
    fault(
        "sampling-temperature-multiplied",
        "logits are multiplied by the temperature",
        doing("temperature", lambda x, ids, t: x * t),
        "temperature_multiplied",
    ),
    fault(
        "sampling-temperature-twice",
        "logits are divided by the temperature twice",
        doing("temperature", lambda x, ids, t: x / t / t),
        "temperature_twice",
    ),
    fault(
        "sampling-temperature-added-to-one",
        "logits are divided by one and the temperature",
        doing("temperature", lambda x, ids, t: x / (1 + t)),
    ),
    fault(
        "sampling-temperature-rounded",
        "the temperature is rounded to float16",
        doing("temperature", lambda x, ids, t: x / np.float32(np.float16(t))),
    ),
)

_TOP_K = (
    fault("top-k-ignored", "all tokens are kept", doing("top_k", lambda x, ids, k: x), "top_k_ignored"),
    fault(
        "top-k-without-ties",
        "of tokens as likely as the k-th, those with the highest ids are dropped",
        doing("top_k", _best(lambda k: k)),
        "top_k_drops_ties",
    ),
    fault(
        "top-k-without-ties-from-the-end",
        "of tokens as likely as the k-th, those with the lowest ids are dropped",
        doing("top_k", _best(lambda k: k, lowest_id_first=False)),
        "top_k_drops_ties",
    ),
    fault(
        "top-k-one-too-many",
        "the k+1 likeliest tokens are kept",
        doing("top_k", _at_least_ranked(lambda k: k + 1)),
        "top_k_plus_one",
    ),
    fault(
        "top-k-one-too-few",
        "the k-1 likeliest tokens are kept",
        doing("top_k", _at_least_ranked(lambda k: k - 1)),
        "top_k_minus_one",
    ),
    fault(
        "top-k-without-the-kth",
        "only what is likelier than the k-th is kept",
        doing("top_k", _above_kth),
        "top_k_minus_one",
    ),
    fault(
        "top-k-of-the-least-likely",
        "the k least likely tokens are kept",
        doing("top_k", _least),
        "top_k_keeps_smallest",
    ),
    fault(
        "top-k-of-the-whole-batch",
        "the k likeliest tokens of all texts together are kept",
        doing("top_k", _of_whole_batch),
    ),
)

_TOP_P = (
    fault("top-p-ignored", "all tokens are kept", doing("top_p", lambda x, ids, p: x), "top_p_ignored"),
    fault(
        "top-p-without-the-crossing-token",
        "the token with which top_p is reached is dropped",
        doing("top_p", _nucleus(lambda probs, p: np.cumsum(probs) <= p)),
        "top_p_drops_crossing",
    ),
    fault(
        "top-p-one-too-many",
        "one token behind the one with which top_p is reached is kept",
        doing("top_p", _nucleus(lambda probs, p: np.arange(len(probs)) <= (np.cumsum(probs) < p).sum() + 1)),
        "top_p_plus_one",
    ),
    fault(
        "top-p-in-order-of-ids",
        "probabilities are added up from token 0 on",
        doing("top_p", _in_order_of_ids),
        "top_p_unsorted",
    ),
    fault(
        "top-p-from-the-least-likely",
        "the least likely tokens are kept until top_p is reached",
        doing("top_p", _nucleus(lambda probs, p: np.cumsum(probs) - probs < p, way=1)),
        "top_p_ascending",
    ),
    fault(
        "top-p-complement",
        "the likeliest tokens are kept until 1 - top_p is reached",
        doing("top_p", _nucleus(lambda probs, p: np.cumsum(probs) - probs < 1 - p)),
        "top_p_complement",
    ),
    fault(
        "top-p-left-in-order",
        "the choice is not put back from the order of likelihood into that of ids",
        doing("top_p", _left_in_order),
        "top_p_not_restored",
    ),
    fault(
        "top-p-of-single-probabilities",
        "tokens less likely than 1 - top_p are dropped",
        doing("top_p", lambda x, ids, p: only(x, softmax(x) >= 1 - p)),
        "top_p_absolute",
    ),
    fault(
        "top-p-of-the-number-of-tokens",
        "this share of what is left of the tokens is kept, the likeliest first",
        doing("top_p", _nucleus(lambda probs, p: np.arange(len(probs)) < p * (probs > 0).sum())),
    ),
)

_MIN_P = (
    fault("min-p-ignored", "all tokens are kept", doing("min_p", lambda x, ids, p: x), "min_p_ignored"),
    fault(
        "min-p-absolute",
        "what is less likely than min_p is dropped, however likely the likeliest is",
        doing("min_p", lambda x, ids, p: only(x, softmax(x) >= p)),
        "min_p_absolute",
    ),
    fault(
        "min-p-of-logits",
        "what has less than this share of the largest logit is dropped",
        doing("min_p", lambda x, ids, p: only(x, x >= p * np.max(x, axis=-1, keepdims=True))),
        "min_p_of_logits",
    ),
    fault(
        "min-p-below-the-largest",
        "what is more than min_p less likely than the likeliest is dropped",
        doing("min_p", lambda x, ids, p: only(x, softmax(x).max(-1, keepdims=True) - softmax(x) <= p)),
        "min_p_below_largest",
    ),
    fault(
        "min-p-of-the-whole-batch",
        "the largest probability of the whole batch is taken for that of every text",
        doing("min_p", lambda x, ids, p: only(x, softmax(x) >= p * softmax(x).max())),
    ),
)

FAULTS = (*_PENALTY, *_TEMPERATURE, *_TOP_K, *_TOP_P, *_MIN_P, *processing.FAULTS, *draws.FAULTS)
