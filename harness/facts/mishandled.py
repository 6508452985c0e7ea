"""What ports make of logits instead of what the reference makes of them: hypotheses, in float64. numpy only."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.facts.processing import STAGES, Question, Stage, k_largest, kept, likeliest, processed, softmax
from harness.kinds.precision import rounded

Array = Any


@dataclass(frozen=True)
class Mistake:
    """What a port may have made of the logits instead. says: in words, behind "explained by:"."""

    name: str
    says: str
    answer: Array


def mistakes(q: Question) -> Iterator[Mistake]:
    """Everything that is looked for, whether or not it makes a difference here."""
    for setting in q.settings:
        yield Mistake(f"{setting}_ignored", f"{setting} is not applied", processed(_without(q, setting)))
    if len(q.settings) > 1:
        yield settings_ignored(q)
    for setting, name, says, stage in _OTHER_STAGES:
        if setting in q.settings:
            yield Mistake(name, says, processed(q, instead={setting: stage}))
    for first, second in _ORDERS:
        if first in q.settings and second in q.settings:
            for order in _exchanged(first, second):
                yield Mistake(
                    f"{first}_after_{second}", f"{first} is applied after {second}", processed(q, order)
                )
    for precision in ("bfloat16", "float16"):
        for answer in _in_low_precision(q, precision):
            yield Mistake(f"low_precision_{precision}", f"logits are processed in {precision}", answer)
    for name, says, change in _OTHER_ANSWERS:
        yield Mistake(name, says, change(processed(q)))


def settings_ignored(q: Question) -> Mistake:
    return Mistake("settings_ignored", "no setting is applied: logits are handed on as they are", q.logits)


def _only_k(last_first: bool) -> Stage:
    """k and no more, of equal ones those with the lowest ids, or with the highest."""

    def stage(x: Array, q: Question) -> Array:
        turned = x[:, ::-1] if last_first else x
        order = np.argsort(-turned, axis=-1, kind="stable")[:, : int(q.settings["top_k"])]
        keep = np.zeros(x.shape, bool)
        np.put_along_axis(keep, order, True, axis=-1)
        return kept(x, keep[:, ::-1] if last_first else keep)

    return stage


def _smallest(x: Array, q: Question) -> Array:
    return kept(x, np.isfinite(k_largest(-x, int(q.settings["top_k"]))))


def _above_kth(x: Array, q: Question) -> Array:
    last = np.sort(x, axis=-1)[:, -min(int(q.settings["top_k"]), x.shape[1]), None]
    return kept(x, x > last)


def _one_past_the_crossing(x: Array, q: Question) -> Array:
    p = q.settings["top_p"]
    return likeliest(
        x, lambda before, after: np.concatenate([before[:, :1] < p, before[:, :-1] < p], axis=-1)
    )


def _in_order_of_ids(x: Array, q: Question) -> Array:
    after = np.cumsum(softmax(x), axis=-1)
    return kept(x, after - softmax(x) < q.settings["top_p"])


def _penalised(
    where: Callable[[Question], Array], by: Callable[[Array, float], Array] | None = None
) -> Stage:
    """The penalty on other tokens, or done otherwise."""

    def stage(x: Array, q: Question) -> Array:
        penalty = q.settings["repetition_penalty"]
        changed = np.where(x < 0, x * penalty, x / penalty) if by is None else by(x, penalty)
        return np.where(where(q), changed, x)

    return stage


def _counts(q: Question) -> Array:
    """How often each token is in each text (B V)."""
    counts = [Counter(row.tolist()) for row in q.token_ids]
    return np.asarray([[count[token] for token in range(q.logits.shape[1])] for count in counts])


def _per_occurrence(x: Array, q: Question) -> Array:
    factor = q.settings["repetition_penalty"] ** _counts(q)
    return np.where(x < 0, x * factor, x / factor)


def _seen_in(q: Question, part: slice) -> Array:
    return replace(q, token_ids=q.token_ids[:, part]).seen


def _seen(q: Question) -> Array:
    return q.seen


_OTHER_STAGES: tuple[tuple[str, str, str, Stage], ...] = (
    (
        "repetition_penalty",
        "penalty_divides_negative",
        "the repetition penalty divides negative logits too, which makes their tokens likelier",
        _penalised(_seen, lambda x, penalty: x / penalty),
    ),
    (
        "repetition_penalty",
        "penalty_multiplies_positive",
        "the repetition penalty multiplies positive logits too, which makes their tokens likelier",
        _penalised(_seen, lambda x, penalty: x * penalty),
    ),
    (
        "repetition_penalty",
        "penalty_inverted",
        "the repetition penalty multiplies positive logits and divides negative ones",
        _penalised(_seen, lambda x, penalty: np.where(x < 0, x / penalty, x * penalty)),
    ),
    (
        "repetition_penalty",
        "penalty_subtracted",
        "the repetition penalty is subtracted",
        _penalised(_seen, lambda x, penalty: x - penalty),
    ),
    (
        "repetition_penalty",
        "penalty_per_occurrence",
        "the repetition penalty is applied as often as a token occurs",
        _per_occurrence,
    ),
    (
        "repetition_penalty",
        "penalty_on_all_tokens",
        "the repetition penalty is applied to the whole vocabulary",
        _penalised(lambda q: np.ones(q.logits.shape, bool)),
    ),
    (
        "repetition_penalty",
        "penalty_on_last_token_only",
        "only the last token of the text is penalised",
        _penalised(lambda q: _seen_in(q, slice(-1, None))),
    ),
    (
        "repetition_penalty",
        "penalty_without_last_token",
        "the last token of the text is not penalised",
        _penalised(lambda q: _seen_in(q, slice(None, -1))),
    ),
    (
        "repetition_penalty",
        "penalty_without_first_token",
        "the first token of the text is not penalised",
        _penalised(lambda q: _seen_in(q, slice(1, None))),
    ),
    (
        "repetition_penalty",
        "penalty_without_token_0",
        "token 0 is not penalised",
        _penalised(lambda q: q.seen & (np.arange(q.logits.shape[1]) > 0)),
    ),
    (
        "repetition_penalty",
        "penalty_of_first_row",
        "the tokens of the batch's first text are penalised in every text",
        _penalised(lambda q: np.broadcast_to(q.seen[:1], q.logits.shape)),
    ),
    (
        "repetition_penalty",
        "penalty_of_any_row",
        "the tokens of all texts of the batch are penalised in every text",
        _penalised(lambda q: np.broadcast_to(q.seen.any(axis=0), q.logits.shape)),
    ),
    (
        "repetition_penalty",
        "penalty_on_log_probabilities",
        "the repetition penalty is applied to log probabilities, which are all negative",
        lambda x, q: STAGES["repetition_penalty"](np.log(softmax(x)), q),
    ),
    (
        "temperature",
        "temperature_multiplied",
        "logits are multiplied by the temperature",
        lambda x, q: x * q.settings["temperature"],
    ),
    (
        "temperature",
        "temperature_twice",
        "logits are divided by the temperature twice",
        lambda x, q: x / q.settings["temperature"] ** 2,
    ),
    ("top_k", "top_k_drops_ties", "of tokens as likely as the k-th only k are kept in all", _only_k(False)),
    ("top_k", "top_k_drops_ties", "of tokens as likely as the k-th only k are kept in all", _only_k(True)),
    (
        "top_k",
        "top_k_plus_one",
        "top_k keeps one too many",
        lambda x, q: k_largest(x, int(q.settings["top_k"]) + 1),
    ),
    (
        "top_k",
        "top_k_minus_one",
        "top_k keeps one too few",
        lambda x, q: k_largest(x, int(q.settings["top_k"]) - 1),
    ),
    (
        "top_k",
        "top_k_minus_one",
        "top_k drops the k-th, and what is as likely",
        _above_kth,
    ),
    (
        "top_k",
        "top_k_keeps_smallest",
        "top_k keeps the least likely",
        _smallest,
    ),
    (
        "top_p",
        "top_p_drops_crossing",
        "top_p drops the token with which top_p is reached",
        lambda x, q: likeliest(x, lambda before, after: after <= q.settings["top_p"]),
    ),
    (
        "top_p",
        "top_p_plus_one",
        "top_p keeps one token behind the one with which it is reached",
        _one_past_the_crossing,
    ),
    (
        "top_p",
        "top_p_unsorted",
        "probabilities are added up in the order of the token ids instead of from the likeliest on",
        _in_order_of_ids,
    ),
    (
        "top_p",
        "top_p_ascending",
        "probabilities are added up from the least likely on, and these are kept",
        lambda x, q: likeliest(x, lambda before, after: before < q.settings["top_p"], way=1),
    ),
    (
        "top_p",
        "top_p_complement",
        "1 - top_p is taken for top_p",
        lambda x, q: likeliest(x, lambda before, after: before < 1 - q.settings["top_p"]),
    ),
    (
        "top_p",
        "top_p_not_restored",
        "what top_p keeps, by rank, is not put back into the order of the token ids",
        lambda x, q: likeliest(x, lambda before, after: before < q.settings["top_p"], restored=False),
    ),
    (
        "top_p",
        "top_p_absolute",
        "what is less likely than 1 - top_p is dropped, one by one",
        lambda x, q: kept(x, softmax(x) >= 1 - q.settings["top_p"]),
    ),
    (
        "min_p",
        "min_p_absolute",
        "min_p is compared with probabilities, not with their share of the largest",
        lambda x, q: kept(x, softmax(x) >= q.settings["min_p"]),
    ),
    (
        "min_p",
        "min_p_of_logits",
        "min_p is a share of the largest logit, not of the largest probability",
        lambda x, q: kept(x, x >= q.settings["min_p"] * x.max(axis=-1, keepdims=True)),
    ),
    (
        "min_p",
        "min_p_below_largest",
        "what is up to min_p less likely than the likeliest is kept",
        lambda x, q: kept(x, softmax(x) >= softmax(x).max(axis=-1, keepdims=True) - q.settings["min_p"]),
    ),
)
"""What ports do at one setting: the setting, the mistake, what it is in words, what is done instead."""

_ORDERS = (
    ("repetition_penalty", "top_k"),
    ("repetition_penalty", "top_p"),
    ("repetition_penalty", "min_p"),
    ("temperature", "top_p"),
    ("temperature", "min_p"),
    ("top_k", "top_p"),
    ("top_p", "min_p"),
)
"""Settings whose order makes a difference. The others commute: penalty and temperature both multiply, a temperature
keeps the order of logits, and both top_k and min_p keep the likeliest."""

_OTHER_ANSWERS: tuple[tuple[str, str, Callable[[Array], Array]], ...] = (
    (
        "first_row_for_all",
        "every text of the batch has the logits of the first",
        lambda x: np.broadcast_to(x[:1], x.shape),
    ),
    ("softmax_applied", "probabilities are handed out, not logits", softmax),
    (
        "log_softmax",
        "log probabilities are handed out, not logits",
        lambda x: np.where(np.isfinite(x), x - _log_sum(x), x),
    ),
    ("left_sorted", "logits are left in the order of their size", lambda x: np.sort(x, axis=-1)[:, ::-1]),
    ("left_sorted", "logits are left in the order of their size", lambda x: np.sort(x, axis=-1)),
)
"""What ports do with what is right up to there."""


def _log_sum(x: Array) -> Array:
    largest = x.max(axis=-1, keepdims=True)
    return largest + np.log(np.exp(x - largest).sum(axis=-1, keepdims=True))


def _without(q: Question, setting: str) -> Question:
    return q.with_settings({name: value for name, value in q.settings.items() if name != setting})


def _exchanged(first: str, second: str) -> Iterator[list[str]]:
    """Orders in which `first` comes after `second`: it is put behind that, or that is put before it."""
    others = [name for name in STAGES if name != first]
    place = others.index(second) + 1
    yield [*others[:place], first, *others[place:]]
    others = [name for name in STAGES if name != second]
    place = others.index(first)
    yield [*others[:place], second, *others[place:]]


def _in_low_precision(q: Question, precision: str) -> Iterator[Array]:
    """Only the logits are rounded; what each stage makes of them, too; and the settings."""

    def rounding(stage: Stage) -> Stage:
        return lambda x, q: rounded(stage(x, q), precision)

    start = replace(q, logits=rounded(q.logits, precision))
    every = {name: rounding(stage) for name, stage in STAGES.items()}
    coarse = {name: float(rounded(value, precision)) for name, value in q.settings.items()}
    yield processed(start)
    yield processed(start, instead=every)
    yield processed(start.with_settings(coarse), instead=every)
