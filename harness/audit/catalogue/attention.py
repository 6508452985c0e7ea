"""Mistakes in scores, and in what probabilities are applied to."""

from typing import Any

import numpy as np

from harness.audit.catalogue.making import setting
from harness.audit.fault import Answer, Area, Call, Fault

Array = Any

_SCORES = ("*.scores",)
_CONTEXT = ("*.context",)
_EXPANDED = ("*.k_expanded", "*.v_expanded")

_SEVERAL_GROUPS = setting("groups", lambda groups: groups > 1)


def _unscaled(call: Call) -> Array:
    return call.output / call.component.settings["scaling"]


def _softcapped(call: Call) -> Array:
    return 50 * np.tanh(call.output / 50)


def _products(call: Call, q: Array, k: Array) -> Array:
    return np.einsum("bhtd,bhsd->bhts", q, k) * call.component.settings["scaling"]


def _cosines(call: Call) -> Array:
    """Queries and keys divided by their lengths."""
    q, k = call.inputs["q"], call.inputs["k"]
    lengths = (np.linalg.norm(x, axis=-1, keepdims=True) for x in (q, k))
    return _products(call, *(x / length for x, length in zip((q, k), lengths, strict=True)))


def _falling_with_distance(call: Call) -> Array:
    """Less by a slope for each token between them, the slope halved from head to head."""
    scores = call.output
    heads, queries, keys = scores.shape[1:]
    distance = np.abs(np.arange(queries)[:, None] - np.arange(keys))
    return scores - 2.0 ** -np.arange(1, heads + 1)[:, None, None] * distance


def _last_channel_left_out(call: Call) -> Array:
    q = call.inputs["q"].copy()
    q[..., -1] = 0
    return call.run(q=q)


def _expanded(call: Call) -> Array:
    """What is expanded as (B K S D): keys are so already, values are (B S K·D)."""
    x = call.inputs["x"]
    if x.ndim == 4:
        return x
    return x.reshape(*x.shape[:2], -1, call.component.settings["head_dim"]).swapaxes(1, 2)


def _tiled(call: Call) -> Array:
    return np.tile(_expanded(call), (1, call.component.settings["groups"], 1, 1))


def _reversed(call: Call) -> Array:
    return np.repeat(_expanded(call)[:, ::-1], call.component.settings["groups"], axis=1)


def _first_head_for_all(call: Call) -> Array:
    x = _expanded(call)
    return np.repeat(x[:, :1], x.shape[1] * call.component.settings["groups"], axis=1)


def _next_head(call: Call) -> Array:
    """Heads handed out one query head late: the first query head gets the last key-value head."""
    return np.roll(call.output, 1, axis=1)


def _values_channels_first(call: Call) -> Array:
    x, size = call.inputs["x"], call.component.settings["head_dim"]
    split = x.reshape(*x.shape[:2], size, -1).transpose(0, 3, 1, 2)
    return np.repeat(split, call.component.settings["groups"], axis=1)


def _by_head(call: Call) -> Array:
    """The output as (B H T D)."""
    out, v = call.output, call.inputs["v"]
    return out.reshape(*out.shape[:2], v.shape[1], v.shape[3]).swapaxes(1, 2)


def _merged_without_transposing(call: Call) -> Array:
    return _by_head(call).reshape(call.output.shape)


def _merged_channels_first(call: Call) -> Array:
    return _by_head(call).transpose(0, 2, 3, 1).reshape(call.output.shape)


def _head_one_late(call: Call) -> Array:
    heads = np.roll(_by_head(call), 1, axis=1)
    return heads.swapaxes(1, 2).reshape(call.output.shape)


def _values_one_late(call: Call) -> Array:
    return call.run(v=np.roll(call.inputs["v"], 1, axis=2))


def _first_key_dropped(call: Call) -> Array:
    probs = call.inputs["probs"].copy()
    probs[..., 0] = 0
    return call.run(probs=probs)


FAULTS = (
    Fault(
        "scale-missing",
        Area.SCORES,
        "scores are not scaled",
        Answer(_SCORES, _unscaled),
        frozenset({"scale_missing"}),
    ),
    Fault(
        "scale-inverse",
        Area.SCORES,
        "scores are divided by the scale",
        Answer(_SCORES, lambda call: _unscaled(call) / call.component.settings["scaling"]),
        frozenset({"scale_inverse"}),
    ),
    Fault(
        "scale-twice",
        Area.SCORES,
        "queries are scaled, and their scores again",
        Answer(_SCORES, lambda call: call.output * call.component.settings["scaling"]),
        frozenset({"scale_twice", "scale_by_head_dim"}),
    ),
    Fault(
        "scores-softcapped",
        Area.SCORES,
        "scores are softly capped at 50",
        Answer(_SCORES, _softcapped),
        frozenset({"softcapped_50"}),
    ),
    Fault(
        "queries-and-keys-normalised",
        Area.SCORES,
        "scores are cosines of queries and keys",
        Answer(_SCORES, _cosines),
    ),
    Fault(
        "scores-fall-with-distance",
        Area.SCORES,
        "scores carry a bias that falls with distance",
        Answer(_SCORES, _falling_with_distance),
    ),
    Fault(
        "last-channel-left-out",
        Area.SCORES,
        "the product of queries and keys leaves out the last channel of a head",
        Answer(_SCORES, _last_channel_left_out),
    ),
    Fault(
        "scores-of-one-layer-unscaled",
        Area.SCORES,
        "the first layer's scores are not scaled",
        Answer(("layers.0.self_attn.scores",), _unscaled),
        frozenset({"scale_missing"}),
    ),
    Fault(
        "queries-doubled-scores-halved",
        Area.SCORES,
        "queries are doubled before the product and scores halved behind it",
        Answer(_SCORES, lambda call: call.run(q=2 * call.inputs["q"]) / 2),
        equivalent="Times two and by two only change exponents: every product, sum and rounding in between is "
        "twice what it was, to the last bit, short of overflow.",
    ),
    Fault(
        "key-value-heads-tiled",
        Area.CONTEXT,
        "key-value heads are handed out in turn instead of in a row",
        Answer(_EXPANDED, _tiled, _SEVERAL_GROUPS),
        frozenset({"tiled"}),
    ),
    Fault(
        "value-heads-tiled",
        Area.CONTEXT,
        "values alone are handed out in turn: the keys of a head meet another head's values",
        Answer(("*.v_expanded",), _tiled, _SEVERAL_GROUPS),
        frozenset({"tiled"}),
    ),
    Fault(
        "key-heads-reversed",
        Area.SCORES,
        "keys are handed out from the last head to the first",
        Answer(("*.k_expanded",), _reversed),
        frozenset({"heads_reversed"}),
    ),
    Fault(
        "first-value-head-for-all",
        Area.CONTEXT,
        "every query head sees the values of the first key-value head",
        Answer(("*.v_expanded",), _first_head_for_all),
        frozenset({"first_head_for_all"}),
    ),
    Fault(
        "heads-served-one-late",
        Area.SCORES,
        "query heads are served one late: those at the border of a group get the keys of the group before",
        Answer(("*.k_expanded",), _next_head),
    ),
    Fault(
        "values-split-dim-major",
        Area.CONTEXT,
        "values are split into channels first and heads second",
        Answer(("*.v_expanded",), _values_channels_first),
        frozenset({"heads_dim_major"}),
    ),
    Fault(
        "heads-merged-without-transposing",
        Area.CONTEXT,
        "heads are merged by a reshape alone",
        Answer(_CONTEXT, _merged_without_transposing),
        frozenset({"merged_without_transposing"}),
    ),
    Fault(
        "heads-merged-dim-major",
        Area.CONTEXT,
        "heads are merged by channel first and head second",
        Answer(_CONTEXT, _merged_channels_first),
        frozenset({"heads_dim_major"}),
    ),
    Fault(
        "heads-merged-one-late",
        Area.CONTEXT,
        "every head stands in the place of the next",
        Answer(_CONTEXT, _head_one_late),
    ),
    Fault(
        "probabilities-transposed",
        Area.CONTEXT,
        "probabilities are applied with queries and keys exchanged",
        Answer(_CONTEXT, lambda call: call.run(probs=call.inputs["probs"].swapaxes(-1, -2))),
        frozenset({"probs_transposed"}),
    ),
    Fault(
        "values-one-late",
        Area.CONTEXT,
        "every token is given the value of the token before",
        Answer(_CONTEXT, _values_one_late),
    ),
    Fault(
        "first-key-dropped",
        Area.CONTEXT,
        "the value of the first key is never added",
        Answer(_CONTEXT, _first_key_dropped),
    ),
)
