"""Decode: a port run on a case as generation runs it, and what it handed out put together again.

A first part of the tokens is read at once, then one after another, through a cache with slots to spare, all NaN
until they are written. Put together along its tokens, each component must be what the whole pass gave.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.kinds.table import STEPS
from harness.model import Component
from harness.replay.port import Arrays, Cached, no_mapping

Array = Any

SPARE = 4
"""Slots of the cache that no token of the case is written to."""


class Unfit(ValueError):
    """What a port handed out cannot be put together: its message says why."""


@dataclass(frozen=True)
class Decoded:
    """What a port handed out.

    steps: components by name, for each step; read: how many tokens had been read after it
    cache: what the cache held in the end
    at_keys: the components that are taken in at every key; they are of the last step only
    """

    steps: tuple[Arrays, ...]
    read: tuple[int, ...]
    cache: Arrays
    at_keys: frozenset[str]

    def offers(self, name: str) -> bool:
        return name in self.steps[-1] and (name in self.at_keys or all(name in step for step in self.steps))

    def output(self, component: Component, recorded: Array, kept: Array) -> Array:
        """A component at the tokens `kept`, as its golden `recorded` has it. Raises Unfit.

        A score of a key that was not read yet is the golden's: a pass through a cache has none, and needs none.
        """
        if component.name in self.at_keys:
            return self._slots(self.steps[-1][component.name], component, recorded, kept)
        along = component.axes.split().index("T")
        whole = np.concatenate([*self._parts(component, recorded)], axis=along)
        value = np.take(whole, kept, axis=along)
        if component.step != "scores":
            return value
        read = np.repeat(self.read, np.diff(self.read, prepend=0))[kept]
        return np.where(np.arange(self.read[-1]) < read[:, None], value, recorded.astype(value.dtype))

    def cached(self, component: Component, recorded: Array, kept: Array) -> Array:
        """What the cache held of a component at the tokens `kept`. Raises Unfit."""
        return self._slots(self.cache[component.name], component, recorded, kept)

    def _parts(self, component: Component, recorded: Array) -> Iterable[Array]:
        """What each step handed out; of the slots, those of the case's tokens."""
        letters, tokens = component.axes.split(), self.read[-1]
        for step, start, stop in zip(self.steps, (0, *self.read), self.read, strict=False):
            part = step[component.name]
            _check(part, component, recorded, {"T": stop - start, "S": tokens + SPARE})
            yield np.take(part, range(tokens), axis=letters.index("S")) if "S" in letters else part

    def _slots(self, held: Array, component: Component, recorded: Array, kept: Array) -> Array:
        _check(held, component, recorded, {"T": self.read[-1] + SPARE})
        return np.take(held, kept, axis=component.axes.split().index("T"))


def decode(port: Cached, inputs: Arrays, names: Collection[str], at_keys: frozenset[str]) -> Decoded:
    """Run a case of two tokens or more. inputs: as for `Port.trace`.

    Raises Unfit where the port gives no mapping, and passes on whatever the port raises.
    """
    batch, tokens = inputs["token_ids"].shape
    mask = np.pad(inputs["attention_mask"], ((0, 0), (0, SPARE)), constant_values=1)
    read = tuple(range(tokens // 2, tokens + 1))
    cache, steps = port.init_cache(batch, tokens + SPARE, float("nan")), []
    for start, stop in zip((0, *read), read, strict=False):
        part = {name: inputs[name][:, start:stop] for name in ("token_ids", "positions")}
        part |= {"query_index": inputs["query_index"][start:stop], "attention_mask": mask}
        found, cache = port.step(cache, part, names)
        wanted = names if stop == tokens else set(names) - at_keys
        steps.append(_arrays(found, wanted))
    held = port.read_cache(cache)
    return Decoded(tuple(steps), read, _arrays(held, held), at_keys)


def _arrays(given: Arrays, names: Iterable[str]) -> Arrays:
    """Copies: a port may write into its arrays again."""
    if not isinstance(given, Mapping):
        raise Unfit(no_mapping(given))
    return {name: np.array(given[name]) for name in names if name in given}


def at_keys(components: Iterable[Component]) -> frozenset[str]:
    """The components of tokens (T) that another one takes in as keys (S): `k_expanded`, `v_expanded`."""
    axes = {component.name: component.axes.split() for component in components}
    return frozenset(
        component.inputs[argument]
        for component in components
        if component.step is not None
        for argument, taken in STEPS[component.step].arguments.items()
        if "S" in taken.split() and "S" not in axes.get(component.inputs[argument], ["S"])
    )


def _check(value: Array, component: Component, recorded: Array, places: Mapping[str, int]) -> None:
    """places: what takes the place of the golden's size in the axes T and S."""
    letters = component.axes.split()
    shape = tuple(places.get(letter, size) for letter, size in zip(letters, recorded.shape, strict=True))
    if value.shape != shape:
        raise Unfit(f"shape {value.shape}, where {shape} was expected in decode")
