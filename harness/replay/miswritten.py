"""How a cache does not hold what a step put out for its tokens, and which mistake that is.

Everything is compared bit by bit: a cache only keeps. What is found in another slot, or in another one's place, is
there by no rounding.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.kinds.precision import rounded

Array = Any
Slots = Mapping[str, Array]
"""What is in slots or was put out for tokens, by component: (slots B numbers), float32."""


@dataclass(frozen=True)
class Miswritten:
    """says: a sentence about slots and tokens; hypotheses: the mistakes that leave a cache like that."""

    says: str
    hypotheses: tuple[str, ...] = ()


@dataclass(frozen=True)
class Written:
    """A cache before and after the step that read the tokens from `start` to `stop`.

    before: nothing at first; put_out: what the step put out, to be written; left: what another text left in its cache
    """

    before: Slots
    held: Slots
    put_out: Slots
    left: Slots
    start: int
    stop: int

    def trouble(self, name: str) -> Miswritten | None:
        """How the cache does not hold component `name`; None if it does."""
        held, put_out = self.held[name], self.put_out[name]
        if held.shape[1:] != put_out.shape[1:] or len(held) < self.stop or len(put_out) != self._tokens:
            return Miswritten(
                f"a slot of the cache has {list(held.shape[1:])} numbers for each text, "
                f"and {list(put_out.shape[1:])} are written to it"
            )
        return self._not_held(name) or self._touched(name) or self._early(name)

    @property
    def _tokens(self) -> int:
        return self.stop - self.start

    def _own(self, slots: Array) -> Array:
        return slots[self.start : self.stop]

    def _not_held(self, name: str) -> Miswritten | None:
        held, put_out = self.held[name], self.put_out[name]
        same = alike(self._own(held), put_out)
        if same.all():
            return None
        token = self.start + int(np.argmin(same))
        elsewhere = np.flatnonzero(alike(held, put_out[token - self.start][None]))
        where = f"; slot {elsewhere[0]} does" if elsewhere.size else ""
        says = f"slot {token} does not hold what was put out for token {token}{where}"
        for found in (
            self._in_another_order,
            self._not_reset,
            self._elsewhere,
            self._as_before,
            self._another,
            self._of_first_text,
            self._rounded,
        ):
            names = tuple(found(name))
            if names:
                return Miswritten(says, names)
        return Miswritten(says)

    def _in_another_order(self, name: str) -> Iterator[str]:
        held, put_out = (
            np.reshape(x, (self._tokens, -1)) for x in (self._own(self.held[name]), self.put_out[name])
        )
        if self._tokens > 1 and _same(np.sort(held, axis=0), np.sort(put_out, axis=0)):
            yield "cache_slots_in_another_order"

    def _not_reset(self, name: str) -> Iterator[str]:
        """Where it is wrong, it is what the other text left there; one slot may be that by chance."""
        held, left = self._own(self.held[name]), self.left.get(name)
        if left is None or left.shape != self.held[name].shape:
            return
        wrong = ~alike(held, self.put_out[name])
        stale = alike(held, self._own(left)) & ~_empty(held)
        if wrong.sum() > 1 and stale[wrong].all():
            yield "cache_not_reset"

    def _elsewhere(self, name: str) -> Iterator[str]:
        """All that was put out stands in other slots, one after another."""
        held, put_out = self.held[name], self.put_out[name]
        for first in np.flatnonzero(alike(held, put_out[:1])):
            if first == self.start or not _same(held[first : first + self._tokens], put_out):
                continue
            places = {
                "cache_slot_off_by_one": first == self.start + 1,
                "cache_last_slot_overwritten": first == self.start - 1,
                "cache_written_to_the_front": first == 0,
                "cache_written_to_the_end": first + self._tokens == len(held),
            }
            yield from [which for which, holds in places.items() if holds] or ["cache_slot_wrong"]
            return

    def _another(self, name: str) -> Iterator[str]:
        held = self._own(self.held[name])
        for other, put_out in self.put_out.items():
            if other != name and _same(held, put_out):
                layer, _, step = name.rpartition(".")
                if other.endswith(f".{step}"):
                    yield "cache_of_another_layer"
                elif other.startswith(f"{layer}."):
                    yield "keys_and_values_exchanged"
                return

    def _as_before(self, name: str) -> Iterator[str]:
        """What is not there was never written."""
        held, before = self._own(self.held[name]), self.before.get(name)
        missing = ~alike(held, self.put_out[name])
        old = _empty(held) if before is None else alike(held, self._own(before))
        if old[missing].all():
            yield "cache_not_written"

    def _of_first_text(self, name: str) -> Iterator[str]:
        put_out = self.put_out[name]
        if _same(self._own(self.held[name]), np.broadcast_to(put_out[:, :1], put_out.shape)):
            yield "first_row_for_all"

    def _rounded(self, name: str) -> Iterator[str]:
        for precision in ("bfloat16", "float16"):
            if _same(self._own(self.held[name]), rounded(self.put_out[name], precision)):
                yield f"output_rounded_{precision}"
                return

    def _touched(self, name: str) -> Miswritten | None:
        """Slots of tokens that had been read before stay as they were."""
        if name not in self.before:
            return None
        before, held = self.before[name][: self.start], self.held[name][: self.start]
        kept = alike(held, before)
        if kept.all():
            return None
        slot = int(np.argmin(kept))
        step = name.rpartition(".")[2]
        others = [
            x[: self.start]
            for other, x in self.before.items()
            if other != name and other.endswith(f".{step}")
        ]
        of_another = any(_same(held, other) for other in others)
        says = f"slot {slot} was written again when token {self.start} was read"
        return Miswritten(says, ("cache_of_another_layer" if of_another else "cache_written_again",))

    def _early(self, name: str) -> Miswritten | None:
        """Slots of tokens that are not read yet stay empty."""
        held, left = self.held[name][self.stop :], self.left.get(name)
        empty = _empty(held)
        if empty.all():
            return None
        says = f"slot {self.stop + int(np.argmin(empty))} was written before its token was read"
        stale = left is not None and left.shape == self.held[name].shape and alike(held, left[self.stop :])
        if np.all(stale | empty):  # one slot may be that by chance
            early = () if (~empty).sum() > 1 else ("cache_written_early",)
            return Miswritten(says, ("cache_not_reset", *early))
        if not empty.any() and _same(held, np.full_like(held, held.flat[0])):
            return Miswritten(says, ("cache_fill_ignored",))
        return Miswritten(says, ("cache_written_early",))


SAYS = {
    "cache_slots_in_another_order": "tokens are written to the cache in another order",
    "cache_not_reset": "the cache still holds what an earlier text left in it",
    "cache_slot_off_by_one": "tokens are written to the cache one slot too late",
    "cache_last_slot_overwritten": "a token is written over the last one in the cache",
    "cache_written_to_the_front": "tokens are written to the cache from its first slot on, whatever is in it",
    "cache_written_to_the_end": "tokens are written to the last slots of the cache",
    "cache_slot_wrong": "tokens are written to other slots of the cache",
    "cache_of_another_layer": "the cache of another layer is used",
    "keys_and_values_exchanged": "keys are cached as values, or values as keys",
    "cache_not_written": "not all tokens are written to the cache",
    "first_row_for_all": "the cache holds the batch's first text for all texts",
    "output_rounded_bfloat16": "the cache is in bfloat16",
    "output_rounded_float16": "the cache is in float16",
    "cache_written_again": "slots of earlier tokens are written again",
    "cache_fill_ignored": "the cache is not filled with what it was made with",
    "cache_written_early": "slots are written that no token was read for",
}
"""Mistakes in words, behind "explained by:"."""


def by_slot(values: Mapping[str, Array], along: Mapping[str, int]) -> Slots:
    """Components with tokens along some axis, by slot. They have a batch along the first of their other axes."""
    moved = {name: np.moveaxis(value, along[name], 0).astype(np.float32) for name, value in values.items()}
    return {name: value.reshape(*value.shape[:2], -1) for name, value in moved.items()}


def alike(a: Array, b: Array) -> Array:
    """Slot by slot, whether all numbers are the same; NaN is the same as NaN."""
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    return same.reshape(len(same), -1).all(axis=1)


def _same(a: Array, b: Array) -> bool:
    return a.shape == b.shape and bool(np.array_equal(a, b, equal_nan=True))


def _empty(slots: Array) -> Array:
    return np.isnan(slots).reshape(len(slots), int(np.prod(slots.shape[1:]))).all(axis=1)
