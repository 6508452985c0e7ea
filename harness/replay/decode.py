"""Decode: a port run on a case as generation runs it, and what it handed out put together again.

The tokens are read in parts, through a cache with slots to spare, all NaN until they are written. Before that, other
tokens are read into a cache of their own: a second prompt must not find anything of the first. Put together along
its tokens, each component must be what the reference put out; and the cache must hold, bit by bit, what the steps put
out, in the slots of their tokens, and nothing else anywhere.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from msgspec.structs import replace

from harness.kinds.table import at_keys
from harness.model import Component, Golden
from harness.replay.miswritten import Miswritten, Written, by_slot
from harness.replay.port import Arrays, Cached, no_mapping
from harness.report.result import Result
from harness.store.reader import GoldenFile

Array = Any

SPARE = 4
"""So many slots of the cache, at least, no token of the case is written to."""
SLOTS = 32
"""A cache has a multiple of so many, so that cases of like length are the same program to a port that compiles."""


def slots(tokens: int) -> int:
    """How many slots the cache has in which a case is read."""
    return -(-(tokens + SPARE) // SLOTS) * SLOTS


def over_slots(mask: Array) -> Array:
    """A case's mask (B T) over all slots: those after its tokens count as real, and lie in the future."""
    tokens = mask.shape[1]
    return np.pad(mask, ((0, 0), (0, slots(tokens) - tokens)), constant_values=1)


class Unfit(ValueError):
    """What a port handed out cannot be put together: its message says why."""


@dataclass(frozen=True)
class Asked:
    """What is wanted of a run: of each component the token positions, in order.

    at_keys: components that are taken in at every key, which only the last part hands out
    """

    tokens: Mapping[str, Sequence[int]]
    at_keys: frozenset[str]

    def names(self, start: int, stop: int, last: bool) -> frozenset[str]:
        """The components that are wanted of a part."""
        return frozenset(
            name
            for name, tokens in self.tokens.items()
            if (last if name in self.at_keys else bisect_left(tokens, start) < bisect_left(tokens, stop))
        )


@dataclass(frozen=True)
class Decoded:
    """What a port handed out.

    parts: components by name, for each part; read: how many tokens had been read after it
    cache: what the cache held in the end, by the components that were written to it
    miswritten: such a component -> how the cache did not hold what was put out
    """

    asked: Asked
    parts: tuple[Arrays, ...]
    read: tuple[int, ...]
    cache: Arrays
    miswritten: Mapping[str, Miswritten]

    def offers(self, name: str) -> bool:
        """Whether every part that was asked for a component handed it out."""
        wanted = [part for part, names in zip(self.parts, self._wanted, strict=True) if name in names]
        return bool(wanted) and all(name in part for part in wanted)

    def output(self, component: Component, recorded: Array) -> Array:
        """A component at the tokens asked for, as its golden `recorded` has it. Raises Unfit.

        A score of a key that was not read yet is the golden's: a pass through a cache has none, and needs none.
        """
        tokens, name = self.asked.tokens[component.name], component.name
        if name in self.asked.at_keys:
            return self._slots(self.parts[-1][name], component, recorded, tokens)
        along = component.axes.split().index("T")
        value = np.concatenate([*self._rows(component, recorded)], axis=along)
        if component.step not in ("scores", "capped_scores"):
            return value
        read = np.searchsorted(self.read, tokens, side="right")
        until = np.asarray(self.read)[read][:, None]
        return np.where(np.arange(self.read[-1]) < until, value, recorded.astype(value.dtype))

    def cached(self, component: Component, recorded: Array, written: str, tokens: Sequence[int]) -> Array:
        """What the cache held of the component `written` at `tokens`. Raises Unfit."""
        return self._slots(self.cache[written], component, recorded, tokens)

    def in_step(self, result: Result) -> Result:
        """With the step in which NaN or infinity came up, if it did."""
        if result.arisen is None:
            return result
        last = len(self.read) - 1
        token = result.arisen.at.get("T", 0)
        step = last if result.component in self.asked.at_keys else bisect_right(self.read, token)
        return replace(result, arisen=replace(result.arisen, step=step))

    @cached_property
    def _wanted(self) -> list[frozenset[str]]:
        return [
            self.asked.names(start, stop, stop == self.read[-1]) for start, stop in pairwise((0, *self.read))
        ]

    def _rows(self, component: Component, recorded: Array) -> Iterable[Array]:
        """What each part handed out at the tokens asked for; of the slots, those of the case's tokens."""
        letters, tokens = component.axes.split(), self.read[-1]
        for part, names, (start, stop) in zip(
            self.parts, self._wanted, pairwise((0, *self.read)), strict=True
        ):
            if component.name not in names:
                continue
            value = part[component.name]
            _check(value, component, recorded, {"T": stop - start, "S": slots(tokens)})
            inside = [token - start for token in self.asked.tokens[component.name] if start <= token < stop]
            value = np.take(value, inside, axis=letters.index("T"))
            yield np.take(value, range(tokens), axis=letters.index("S")) if "S" in letters else value

    def _slots(self, held: Array, component: Component, recorded: Array, tokens: Sequence[int]) -> Array:
        _check(held, component, recorded, {"T": slots(self.read[-1])})
        return np.take(held, tokens, axis=component.axes.split().index("T"))


def asked_in_decode(file: GoldenFile, goldens: Iterable[Golden]) -> Asked:
    """What there is to ask for of goldens of one case and dtype."""
    components = {component.name: component for component in file.contents.components}
    tokens = {
        golden.component: file.case_inputs(golden.case)[golden.tokens].tolist()
        for golden in goldens
        if not components[golden.component].cached
    }
    return Asked(tokens, at_keys(components.values()))


def along_tokens(file: GoldenFile) -> dict[str, int]:
    """The components that a cache may hold, which are those that are expanded to every head -> their axis of tokens."""
    components = {component.name: component for component in file.contents.components}
    held = {components[name].inputs["x"] for name in at_keys(components.values())}
    return {name: components[name].axes.split().index("T") for name in held if name in components}


def decode(
    port: Cached, inputs: Arrays, asked: Asked, along: Mapping[str, int], read: Sequence[int] = ()
) -> Decoded:
    """Run a case of two tokens or more. inputs: as for `Port.trace`.

    along: components that a cache may hold -> the axis of tokens in them
    read: how many tokens are read after each part; by default the first half at once, then one at a time
    Raises Unfit where the port gives no mapping, and passes on whatever the port raises.
    """
    batch, tokens = inputs["token_ids"].shape
    read = tuple(read) or tuple(range(tokens // 2, tokens + 1))
    mask = over_slots(inputs["attention_mask"])
    wanted = [
        asked.names(start, stop, stop == tokens) | frozenset(along) for start, stop in pairwise((0, *read))
    ]
    left = by_slot(_arrays(_read_others(port, inputs, mask, read, wanted), along), along)
    cache, parts = port.init_cache(batch, slots(tokens), float("nan")), []
    held: Arrays = {}
    before: Arrays = {}
    miswritten: dict[str, Miswritten] = {}
    for names, (start, stop) in zip(wanted, pairwise((0, *read)), strict=True):
        found, cache = port.step(cache, _part(inputs, mask, start, stop), names)
        values = _arrays(found, names)
        parts.append({name: value for name, value in values.items() if name in asked.tokens})
        held = _arrays(port.read_cache(cache), along)
        now, put_out = by_slot(held, along), {name: values[name] for name in held if name in values}
        written = Written(before, now, by_slot(put_out, along), left, start, stop)
        troubles = {name: written.trouble(name) for name in put_out if name not in miswritten}
        miswritten |= {name: trouble for name, trouble in troubles.items() if trouble is not None}
        before = now
    return Decoded(asked, tuple(parts), read, held, miswritten)


def _part(inputs: Arrays, mask: Array, start: int, stop: int) -> Arrays:
    part = {name: inputs[name][:, start:stop] for name in ("token_ids", "positions")}
    return part | {"query_index": inputs["query_index"][start:stop], "attention_mask": mask}


def _read_others(
    port: Cached, inputs: Arrays, mask: Array, read: Sequence[int], wanted: Sequence[frozenset[str]]
) -> Arrays:
    """Read the tokens in reverse order, three parts of them, into a cache of their own; what is then in it.

    The port is asked for what it will be `wanted` for in the case itself, so that it compiles each part once.
    """
    batch, tokens = inputs["token_ids"].shape
    others = {**inputs, "token_ids": inputs["token_ids"][:, ::-1]}
    cache = port.init_cache(batch, slots(tokens), float("nan"))
    for names, (start, stop) in zip(wanted, pairwise((0, *read[:3])), strict=False):
        _, cache = port.step(cache, _part(others, mask, start, stop), names)
    return port.read_cache(cache)


def _arrays(given: Arrays, names: Iterable[str]) -> Arrays:
    """Copies: a port may write into its arrays again."""
    if not isinstance(given, Mapping):
        raise Unfit(no_mapping(given))
    return {name: np.array(given[name]) for name in names if name in given}


def _check(value: Array, component: Component, recorded: Array, places: Mapping[str, int]) -> None:
    """places: what takes the place of the golden's size in the axes T and S."""
    letters = component.axes.split()
    shape = tuple(places.get(letter, size) for letter, size in zip(letters, recorded.shape, strict=True))
    if value.shape != shape:
        raise Unfit(f"shape {value.shape}, where {shape} was expected in decode")
