"""Mistakes at the two ends: the embedding, and the logits."""

import math
from typing import Any

import numpy as np

from harness.audit.catalogue.making import Components, each
from harness.audit.fault import Answer, Area, Arrays, Call, Fault, Overrides

Array = Any

_EMBEDDING = ("embed_tokens",)
_HEAD = ("lm_head",)


def _shifted(by: int) -> Answer:
    def change(call: Call) -> Array:
        return call.run(token_ids=(call.inputs["token_ids"] + by) % call.parameters["weight"].shape[0])

    return Answer(_EMBEDDING, change)


def _through(dtype: type) -> Answer:
    return Answer(_EMBEDDING, lambda call: call.run(token_ids=call.inputs["token_ids"].astype(dtype)))


def _last_rows_zero(table: Array) -> Array:
    changed = table.copy()
    changed[-8:] = 0
    return changed


def _first_text_for_all(call: Call) -> Array:
    return np.broadcast_to(call.output[:1], call.output.shape)


def _other_table(holder: str, source: str) -> Overrides:
    """One end holds the weight of the other, where these are two."""

    def edit(parameters: Arrays, components: Components) -> Arrays:
        names = {c.name: c.parameters["weight"] for c in components if c.name in (holder, source)}
        if len(set(names.values())) < 2:
            return {}
        return {names[holder]: parameters[names[source]]}

    return Overrides(edit)


def _log_softmax(call: Call) -> Array:
    shifted = call.output - call.output.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def _softmax(call: Call) -> Array:
    return np.exp(_log_softmax(call))


def _last_ids_cut(call: Call) -> Array:
    """The last eight ids get no logit of their own: the head was padded instead of copied."""
    out = call.output.copy()
    out[..., -8:] = 0
    return out


def _one_token_early(call: Call) -> Array:
    return np.roll(call.output, -1, axis=1)


FAULTS = (
    Fault(
        "embedding-scaled",
        Area.EMBEDDING,
        "the embedding is multiplied by the root of the hidden size",
        Answer(_EMBEDDING, lambda call: call.output * math.sqrt(call.output.shape[-1])),
        frozenset({"scaled_root_hidden"}),
    ),
    Fault(
        "ids-shifted-up",
        Area.EMBEDDING,
        "every token is embedded as the next one of the vocabulary",
        _shifted(1),
        frozenset({"ids_shifted_up"}),
    ),
    Fault(
        "ids-shifted-down",
        Area.EMBEDDING,
        "every token is embedded as the one before it in the vocabulary",
        _shifted(-1),
        frozenset({"ids_shifted_down"}),
    ),
    Fault(
        "ids-in-8-bits",
        Area.EMBEDDING,
        "token ids are kept in 8 bits",
        _through(np.uint8),
        frozenset({"ids_low_bits", "first_shard_for_all"}),  # of 2 shards, where there are 512 ids
    ),
    Fault(
        "ids-in-32-bits",
        Area.EMBEDDING,
        "token ids are kept in 32 bits",
        _through(np.int32),
        equivalent="A token id is less than the size of the vocabulary, and no embedding has 2^31 rows.",
    ),
    Fault(
        "last-embeddings-zero",
        Area.EMBEDDING,
        "the last eight rows of the embedding, which hold special tokens, were never loaded",
        each(_EMBEDDING, "weight", _last_rows_zero),
    ),
    Fault(
        "first-text-embedded-for-all",
        Area.EMBEDDING,
        "every text of the batch has the embeddings of the first",
        Answer(_EMBEDDING, _first_text_for_all),
        frozenset({"first_row_for_all"}),
    ),
    Fault(
        "embedding-holds-the-head",
        Area.EMBEDDING,
        "the embedding is tied to the head though the checkpoint has two tensors, and holds the head's",
        _other_table("embed_tokens", "lm_head"),
        frozenset({"parameters_of_another_component"}),
    ),
    Fault(
        "head-holds-the-embedding",
        Area.LOGITS,
        "the head is tied to the embedding though the checkpoint has two tensors",
        _other_table("lm_head", "embed_tokens"),
        frozenset({"parameters_of_another_component"}),
    ),
    Fault(
        "logits-softcapped",
        Area.LOGITS,
        "logits are softly capped at 30",
        Answer(_HEAD, lambda call: 30 * np.tanh(call.output / 30)),
        frozenset({"softcapped_30"}),
    ),
    Fault(
        "log-probabilities",
        Area.LOGITS,
        "the port hands out log probabilities",
        Answer(_HEAD, _log_softmax),
        frozenset({"log_softmax"}),
    ),
    Fault(
        "probabilities",
        Area.LOGITS,
        "the port hands out probabilities",
        Answer(_HEAD, _softmax),
        frozenset({"softmax_applied"}),
    ),
    Fault(
        "logits-scaled",
        Area.LOGITS,
        "logits are divided by the root of the hidden size, as with some tied embeddings",
        Answer(_HEAD, lambda call: call.output / math.sqrt(call.inputs["x"].shape[-1])),
        frozenset({"scaled_root_hidden"}),
    ),
    Fault(
        "last-logits-zero",
        Area.LOGITS,
        "the logits of the last eight ids are zero",
        Answer(_HEAD, _last_ids_cut),
    ),
    Fault(
        "logits-one-token-early",
        Area.LOGITS,
        "every token has the logits of the next: they were shifted as for a loss",
        Answer(_HEAD, _one_token_early),
    ),
)
