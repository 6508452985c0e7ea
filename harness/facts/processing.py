"""Logits processed for the choice of a token, as the reference does it, in float64. numpy only."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

Array = Any


@dataclass(frozen=True)
class Question:
    """logits (B V) float64, the tokens before them (B T), and the settings that are not off."""

    logits: Array
    token_ids: Array
    settings: Mapping[str, float]

    @property
    def seen(self) -> Array:
        """(B V)"""
        return np.stack([np.isin(np.arange(self.logits.shape[1]), row) for row in self.token_ids])

    def with_settings(self, settings: Mapping[str, float]) -> "Question":
        return replace(self, settings=settings)


Stage = Callable[[Array, Question], Array]
"""Logits (B V) -> logits (B V), by one setting of the question."""


def _repetition_penalty(x: Array, q: Question) -> Array:
    penalty = q.settings["repetition_penalty"]
    return np.where(q.seen, np.where(x < 0, x * penalty, x / penalty), x)


def _temperature(x: Array, q: Question) -> Array:
    return x / q.settings["temperature"]


def _top_k(x: Array, q: Question) -> Array:
    return k_largest(x, int(q.settings["top_k"]))


def _top_p(x: Array, q: Question) -> Array:
    return likeliest(x, lambda before, after: before < q.settings["top_p"])


def _min_p(x: Array, q: Question) -> Array:
    probs = softmax(x)
    return kept(x, probs >= q.settings["min_p"] * probs.max(axis=-1, keepdims=True))


STAGES: Mapping[str, Stage] = {
    "repetition_penalty": _repetition_penalty,
    "temperature": _temperature,
    "top_k": _top_k,
    "top_p": _top_p,
    "min_p": _min_p,
}
"""By setting, in the order in which the reference applies them."""


def processed(
    q: Question, order: Sequence[str] = tuple(STAGES), instead: Mapping[str, Stage] | None = None
) -> Array:
    """The logits (B V) after every stage that has a setting, -inf for what may not be chosen."""
    stages = {**STAGES, **(instead or {})}
    x = q.logits
    for name in order:
        if name in q.settings:
            x = stages[name](x, q)
    return x


def softmax(x: Array) -> Array:
    exponentials = np.exp(x - x.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def kept(x: Array, keep: Array) -> Array:
    return np.where(keep, x, -np.inf)


def k_largest(x: Array, k: int) -> Array:
    """With all that are as large as the k-th."""
    last = np.sort(x, axis=-1)[:, -min(max(k, 1), x.shape[1]), None]
    return kept(x, x >= last)


def likeliest(x: Array, keep: Callable[[Array, Array], Array], way: int = -1, restored: bool = True) -> Array:
    """From the likeliest on (`way` 1: from the least likely on), those for which `keep(before, after)` holds.

    before, after: the probability (B V) of all that come before, without and with a token's own. The first is kept
    whatever it has. restored: whether the choice is put back into the order of the vocabulary
    """
    order = np.argsort(way * x, axis=-1, kind="stable")
    after = np.cumsum(np.take_along_axis(softmax(x), order, axis=-1), axis=-1)
    before = np.concatenate([np.zeros_like(after[:, :1]), after[:, :-1]], axis=-1)
    chosen = np.asarray(keep(before, after))
    chosen[:, 0] = True
    if restored:
        np.put_along_axis(chosen, order, chosen.copy(), axis=-1)
    return kept(x, chosen & np.isfinite(x))
