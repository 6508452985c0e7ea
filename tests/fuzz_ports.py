"""Ports that are wrong for some inputs only."""

import numpy as np

from tests.ports import Wrapped


def _from_100(inputs):
    """Padding is not masked where there are keys past 100: a fast path for long batches that forgot it."""
    mask = np.asarray(inputs["attention_mask"])
    return {**inputs, "attention_mask": np.ones_like(mask)} if mask.shape[1] > 101 else inputs


def long_and_padded(checkpoint, *, dtype):
    """Wrong where an index is over 100 and there is padding on the left: of 102 tokens and one at the least."""

    class Port(Wrapped):
        def trace(self, inputs, names):
            return super().trace(_from_100(inputs), names)

        def apply(self, name, inputs):
            return super().apply(name, _from_100(inputs) if name.endswith("probs") else inputs)

    return Port(checkpoint, dtype)


def late_token(checkpoint, *, dtype):
    """Reads every token past 499 as the one before it: of one token at the least."""

    class Port(Wrapped):
        def trace(self, inputs, names):
            ids = np.asarray(inputs["token_ids"])
            return super().trace({**inputs, "token_ids": np.where(ids >= 500, ids - 1, ids)}, names)

    return Port(checkpoint, dtype)


def raises_on_batches(checkpoint, *, dtype):
    class Port(Wrapped):
        def trace(self, inputs, names):
            if len(inputs["token_ids"]) > 1:
                raise IndexError("one row only")
            return super().trace(inputs, names)

    return Port(checkpoint, dtype)


def logits_only(checkpoint, *, dtype):
    class Port(Wrapped):
        def trace(self, inputs, names):
            return {name: x for name, x in super().trace(inputs, names).items() if name == "lm_head"}

    return Port(checkpoint, dtype)


def late_in_cache(checkpoint, *, dtype):
    """Reads a token with a slot past 5 one position late, when it reads through a cache: of 7 tokens at the least."""

    class Port(Wrapped):
        def init_cache(self, batch, capacity, fill):
            return self._port.init_cache(batch, capacity, fill)

        def read_cache(self, cache):
            return self._port.read_cache(cache)

        def step(self, cache, inputs, names):
            positions = np.asarray(inputs["positions"]) + (np.asarray(inputs["query_index"]) > 5)
            return self._port.step(cache, {**inputs, "positions": positions}, names)

    return Port(checkpoint, dtype)
