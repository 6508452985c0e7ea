"""Faults in writing text: when it ends, what is handed out, and whose text is whose."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from harness.audit.fault import Area, Fault, Method

Written = dict[str, Any]
"""tokens (B N), lengths (B) and stop (B), as `generate` gives them."""
Generate = Callable[..., Mapping[str, Any]]
_LIMIT = -1
"""The `stop` of a text that no token ended."""


def _fault(name: str, says: str, change: Callable[[Generate], Generate], *named_by: str) -> Fault:
    return Fault(
        name=f"generation-{name}",
        area=Area.GENERATION,
        says=says,
        planting=Method(("generation",), "generate", change),
        named_by=frozenset(named_by),
    )


def _afterwards(change: Callable[[Written, Any], Mapping[str, Any]]) -> Callable[[Generate], Generate]:
    """What is written is changed before it is handed out: `change(written, prompt)`."""

    def around(generate: Generate) -> Generate:
        def changed(token_ids: Any, attention_mask: Any, max_new_tokens: int) -> Mapping[str, Any]:
            found = generate(token_ids, attention_mask, max_new_tokens)
            written = {name: np.array(found[name]) for name in ("tokens", "lengths", "stop")}
            return change(written, np.asarray(token_ids))

        return changed

    return around


def _asked_for(count: Callable[[int], int]) -> Callable[[Generate], Generate]:
    """Another number of new tokens is written."""

    def around(generate: Generate) -> Generate:
        def changed(token_ids: Any, attention_mask: Any, max_new_tokens: int) -> Mapping[str, Any]:
            return generate(token_ids, attention_mask, max(count(max_new_tokens), 1))

        return changed

    return around


def _goes_on(written: Written, prompt: Any) -> Written:
    """What fills up a text counts as its own."""
    tokens = np.concatenate([written["tokens"], written["tokens"][:, -1:]], axis=1)
    ended = written["stop"] != _LIMIT
    lengths = np.where(ended, np.minimum(written["lengths"] + 1, tokens.shape[1]), written["lengths"])
    return {"tokens": tokens, "lengths": lengths, "stop": np.where(ended, _LIMIT, written["stop"])}


def _without_its_end(written: Written, prompt: Any) -> Written:
    return {**written, "lengths": written["lengths"] - (written["stop"] != _LIMIT)}


def _one_early(written: Written, prompt: Any) -> Written:
    """The token before the last is taken for one that ends a text."""
    lengths = np.maximum(written["lengths"] - 1, 1)
    last = np.take_along_axis(written["tokens"], lengths[:, None] - 1, axis=1)[:, 0]
    return {**written, "lengths": lengths, "stop": last}


def _prompt_in_front(written: Written, prompt: Any) -> Written:
    tokens = np.concatenate([prompt, written["tokens"]], axis=1)
    return {**written, "tokens": tokens, "lengths": written["lengths"] + prompt.shape[1]}


def _without_the_first(written: Written, prompt: Any) -> Written:
    return {**written, "tokens": written["tokens"][:, 1:], "lengths": written["lengths"] - 1}


def _rows_exchanged(written: Written, prompt: Any) -> Written:
    return {name: value[::-1] for name, value in written.items()}


def _always_the_limit(written: Written, prompt: Any) -> Written:
    return {**written, "stop": np.full_like(written["stop"], _LIMIT)}


def _last_token_for_the_limit(written: Written, prompt: Any) -> Written:
    last = np.take_along_axis(written["tokens"], written["lengths"][:, None] - 1, axis=1)[:, 0]
    return {**written, "stop": np.where(written["stop"] == _LIMIT, last, written["stop"])}


def _shifted(written: Written, prompt: Any) -> Written:
    return {**written, "tokens": written["tokens"] + 1}


def _one_list(written: Written, prompt: Any) -> Written:
    return {**written, "tokens": written["tokens"].reshape(-1)}


FAULTS = (
    _fault(
        "goes-on-after-the-end",
        "a text goes on after the token that ends it",
        _afterwards(_goes_on),
        "eos_ignored",
    ),
    _fault(
        "end-not-counted",
        "the token that ends a text is left out",
        _afterwards(_without_its_end),
        "eos_left_out",
    ),
    _fault("ends-one-early", "a text ends one token too early", _afterwards(_one_early), "stopped_early"),
    _fault(
        "one-token-less", "one token less is written", _asked_for(lambda count: count - 1), "limit_too_small"
    ),
    _fault(
        "one-token-more", "one token more is written", _asked_for(lambda count: count + 1), "limit_too_large"
    ),
    _fault(
        "prompt-in-front",
        "the prompt is handed out in front",
        _afterwards(_prompt_in_front),
        "prompt_repeated",
    ),
    _fault(
        "first-token-lost",
        "the first new token is left out",
        _afterwards(_without_the_first),
        "first_token_missing",
    ),
    _fault(
        "rows-exchanged",
        "texts of a batch come in reverse order",
        _afterwards(_rows_exchanged),
        "texts_exchanged",
    ),
    _fault(
        "stop-always-the-limit",
        "the limit is said to end every text",
        _afterwards(_always_the_limit),
        "stop_reason_wrong",
    ),
    _fault(
        "limit-told-as-a-token",
        "its last token is said to end a text that the limit ended",
        _afterwards(_last_token_for_the_limit),
        "stop_reason_wrong",
    ),
    _fault("ids-shifted", "every new token has the id of the next one", _afterwards(_shifted)),
    _fault("texts-in-one-list", "new tokens of all texts come in one list", _afterwards(_one_list)),
)
