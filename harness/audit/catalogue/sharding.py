"""Mistakes of a port that is split over several devices, as one device shows them: what it holds, and hands out.

They are planted into any port, split or not: what is wrong is what comes of it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from harness.audit.fault import Answer, Area, Call, Fault

Array = Any

_BY_INPUT = ("*.o_proj", "*.down_proj")
"""Products whose inputs are split: they end with a sum over devices."""
_BY_OUTPUT = ("*.q_proj", "*.gate_proj", "*.up_proj", "lm_head")
_BIASED = ("*.q_proj", "*.k_proj", "*.v_proj", "*.o_proj")
_EMBEDDING = ("embed_tokens",)
_NORMS = ("*layernorm", "norm")


def _bias(call: Call) -> Array:
    return call.parameters["bias"] if "bias" in call.component.parameters else 0.0


def _shard(call: Call, number: int, of: int) -> Array:
    """What one device adds to a product: its part of the inputs with its part of the weight."""
    x = np.split(call.inputs["x"], of, axis=-1)[number]
    return np.einsum("bti,oi->bto", x, np.split(call.parameters["weight"], of, axis=1)[number])


def _only_shard(number: int, of: int) -> Callable[[Call], Array]:
    return lambda call: _shard(call, number, of) + _bias(call)


def _summed_twice(of: int) -> Callable[[Call], Array]:
    """Every device has the sum already, and it is taken over all of them once more."""
    return lambda call: sum(call.output - _bias(call) for _ in range(of)) + _bias(call)


def _averaged(of: int) -> Callable[[Call], Array]:
    return lambda call: np.mean([_shard(call, n, of) for n in range(of)], axis=0) + _bias(call)


def _same_inputs_everywhere(call: Call) -> Array:
    """x is not split: each device takes its first half for its own part of the weight."""
    x = np.split(call.inputs["x"], 2, axis=-1)[0]
    halves = np.split(call.parameters["weight"], 2, axis=1)
    return sum(np.einsum("bti,oi->bto", x, half) for half in halves) + _bias(call)


def _same_weight_everywhere(call: Call) -> Array:
    """The weight is not split: each device takes its first half for its own part of x."""
    half = np.split(call.parameters["weight"], 2, axis=1)[0]
    parts = np.split(call.inputs["x"], 2, axis=-1)
    return sum(np.einsum("bti,oi->bto", part, half) for part in parts) + _bias(call)


def _over_texts(call: Call) -> Array:
    """The sum is taken over the devices that have the other texts."""
    own = _shard(call, 0, 2)
    halves = np.split(own, 2, axis=0)
    return np.concatenate([halves[0] + halves[1]] * 2, axis=0) + _bias(call)


def _outputs(order: Sequence[int]) -> Callable[[Call], Array]:
    """The parts of the output, of equal size, in another order, or one of them several times."""

    def change(call: Call) -> Array:
        parts = np.split(call.output, len(order), axis=-1)
        return np.concatenate([parts[place] for place in order], axis=-1)

    return change


def _heads(order: Sequence[int]) -> Callable[[Call], Array]:
    """The same along the heads."""

    def change(call: Call) -> Array:
        parts = np.split(call.output, len(order), axis=1)
        return np.concatenate([parts[place] for place in order], axis=1)

    return change


def _rows_of_one_shard(number: int) -> Callable[[Call], Array]:
    """Tokens of the other half of the vocabulary are zeros, and nothing is summed."""

    def change(call: Call) -> Array:
        ids, half = call.inputs["token_ids"], len(call.parameters["weight"]) // 2
        there = ids < half if number == 0 else ids >= half
        return np.where(there[..., None], call.output, 0.0)

    return change


def _looked_up_in_first_shard(call: Call) -> Array:
    """Each device counts tokens from its own first one, and all have the same rows."""
    ids, half = call.inputs["token_ids"], len(call.parameters["weight"]) // 2
    return call.run(token_ids=np.where(ids >= half, ids - half, ids))


def _norm_by_half(call: Call) -> Array:
    halves = np.split(call.inputs["x"], 2, axis=-1)
    eps = call.component.settings["eps"]
    normed = [half / np.sqrt(np.mean(half * half, axis=-1, keepdims=True) + eps) for half in halves]
    return np.concatenate(normed, axis=-1) * call.parameters["weight"]


def _means_added(call: Call) -> Array:
    x = call.inputs["x"]
    squares = sum(np.mean(half * half, axis=-1, keepdims=True) for half in np.split(x, 2, axis=-1))
    return x / np.sqrt(squares + call.component.settings["eps"]) * call.parameters["weight"]


def _softmax_by_half(call: Call) -> Array:
    """Keys that a query does not see have the lowest score, in whichever half they are."""
    scores, window = call.inputs["scores"], call.component.settings["window"]
    queries, keys = call.inputs["query_index"][:, None], np.arange(scores.shape[-1])
    seen = (keys <= queries) & (keys > queries - (window or len(keys) + queries.max()))
    seen = seen & (call.inputs["attention_mask"] != 0)[:, None, None]
    halves = np.array_split(np.where(seen, scores, -1e30), 2, axis=-1)
    powers = [np.exp(half - half.max(axis=-1, keepdims=True)) for half in halves]
    return np.concatenate([power / power.sum(axis=-1, keepdims=True) for power in powers], axis=-1)


def _bias_four_times(call: Call) -> Array:
    return call.output + 3 * _bias(call)


def _residual_four_times(call: Call) -> Array:
    return call.output + 3 * call.inputs["residual"]


def _fault(name: str, says: str, at: tuple[str, ...], change: Callable[[Call], Array], *named: str) -> Fault:
    return Fault(name, Area.SHARDING, says, Answer(at, change), frozenset(named))


FAULTS = (
    _fault(
        "shard-sum-missing",
        "products are not summed over devices: the first of two has its part alone",
        _BY_INPUT,
        _only_shard(0, 2),
        "partial_sum",
    ),
    _fault(
        "shard-sum-missing-last-of-four",
        "products are not summed over devices: the last of four has its part alone",
        _BY_INPUT,
        _only_shard(3, 4),
        "partial_sum",
    ),
    _fault(
        "shard-sum-twice",
        "products are summed over two devices twice",
        _BY_INPUT,
        _summed_twice(2),
        "reduced_twice",
    ),
    _fault(
        "shard-sum-averaged",
        "products are averaged over two devices",
        _BY_INPUT,
        _averaged(2),
        "mean_for_sum",
    ),
    _fault(
        "shard-sum-over-texts",
        "products are summed over the axis of the batch, not over that of the inputs",
        _BY_INPUT,
        _over_texts,
        "reduced_over_texts",
    ),
    _fault(
        "shard-inputs-not-split",
        "each of two devices takes the first half of the inputs",
        _BY_INPUT,
        _same_inputs_everywhere,
        "first_shard_for_all",
    ),
    _fault(
        "shard-weight-not-split",
        "each of two devices takes the first half of the weight, by inputs",
        _BY_INPUT,
        _same_weight_everywhere,
        "first_shard_for_all",
    ),
    _fault(
        "shard-outputs-exchanged",
        "the outputs of two devices are put together the wrong way round",
        _BY_OUTPUT,
        _outputs((1, 0)),
        "shards_reordered",
    ),
    _fault(
        "shard-outputs-one-late",
        "the outputs of four devices are put together one device late",
        _BY_OUTPUT,
        _outputs((3, 0, 1, 2)),
        "shards_reordered",
    ),
    _fault(
        "shard-outputs-of-the-first",
        "every one of two devices computes the outputs of the first",
        _BY_OUTPUT,
        _outputs((0, 0)),
        "first_shard_for_all",
    ),
    _fault(
        "shard-heads-exchanged",
        "the scores of two devices are put together the wrong way round",
        ("*.scores",),
        _heads((1, 0)),
        "shards_reordered",
    ),
    _fault(
        "shard-heads-of-the-first",
        "every one of two devices computes the heads of the first",
        ("*.scores",),
        _heads((0, 0)),
        "first_shard_for_all",
    ),
    _fault(
        "shard-context-exchanged",
        "the heads of two devices are merged the wrong way round",
        ("*.context",),
        _outputs((1, 0)),
        "shards_reordered",
    ),
    _fault(
        "shard-vocabulary-first-alone",
        "rows are looked up by the device of the first half of the vocabulary alone",
        _EMBEDDING,
        _rows_of_one_shard(0),
        "partial_sum",
    ),
    _fault(
        "shard-vocabulary-last-alone",
        "rows are looked up by the device of the second half of the vocabulary alone",
        _EMBEDDING,
        _rows_of_one_shard(1),
        "partial_sum",
    ),
    _fault(
        "shard-vocabulary-not-split",
        "both devices look rows up in the first half of the vocabulary",
        _EMBEDDING,
        _looked_up_in_first_shard,
        "first_shard_for_all",
        "ids_low_bits",  # of 512 ids, the first half
    ),
    _fault(
        "shard-norm-by-itself",
        "each of two devices norms its own channels",
        _NORMS,
        _norm_by_half,
        "norm_of_shard",
    ),
    _fault(
        "shard-norm-means-added",
        "mean squares of two devices are summed, not averaged",
        _NORMS,
        _means_added,
        "sum_for_mean",
    ),
    _fault(
        "shard-softmax-by-itself",
        "each of two devices takes the softmax over its own keys",
        ("*.probs",),
        _softmax_by_half,
        "softmax_of_shard",
    ),
    Fault(
        "shard-bias-on-each",
        Area.SHARDING,
        "each of four devices adds the bias before the sum over them",
        Answer(_BIASED, _bias_four_times, lambda component: "bias" in component.parameters),
        frozenset({"bias_on_every_shard"}),
    ),
    _fault(
        "shard-residual-on-each",
        "each of four devices adds the residual stream before the sum over them",
        ("*.mlp_residual",),
        _residual_four_times,
        "residual_on_every_shard",
    ),
)
