"""What a golden file has, as one row for all layers: which values, which parameters, of which shapes."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from harness.model import Component
from harness.ports.tap import LAYER
from harness.store.reader import GoldenFile

Shape = tuple[int, ...]
_LAYER = re.compile(r"(?<=layers\.)\d+")
_PRIMES = (3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47)
_PLACES = ("B", "T", "S")


@dataclass(frozen=True)
class Wanted:
    """A component or a parameter. name: {n} for a layer's number; axes: of a component; shape: in one layer.

    taken_by: the components of the same layer that take in this and nothing else
    composites: those that hand out what this one puts out
    """

    name: str
    shape: Shape
    axes: str = ""
    taken_by: tuple[str, ...] = ()
    composites: tuple[str, ...] = ()

    @property
    def in_layers(self) -> bool:
        return LAYER in self.name


class Reference:
    """A golden file's components and parameters, in forward order.

    batch, tokens: of a pass in which these sizes are not to be mistaken for others
    """

    def __init__(self, file: GoldenFile) -> None:
        self.path = file.path
        self.order, self._contents = file.order, file.contents
        rows = {golden.component: golden.output for golden in file.contents.goldens}
        self._recorded = {name: file.tensors[row].shape for name, row in rows.items()}
        sizes = {size for shape in self._recorded.values() for size in shape}
        self.batch, self.tokens, *_ = (prime for prime in _PRIMES if prime not in sizes)

    @cached_property
    def layers(self) -> int:
        numbers = {match[0] for each in self._contents.parameters if (match := _LAYER.search(each.name))}
        return len(numbers)

    @cached_property
    def components(self) -> list[Wanted]:
        """Those that a whole pass puts out."""
        found: dict[str, Component] = {}
        for component in self._contents.components:
            if component.name in self._recorded and not component.cached:
                found.setdefault(of_layers(component.name), component)
        return [
            Wanted(
                name,
                self._shape(component),
                component.axes,
                tuple(self._taken_by(component)),
                tuple(self._composites(component)),
            )
            for name, component in found.items()
        ]

    @cached_property
    def parameters(self) -> list[Wanted]:
        """Those that components have, in their order, then any others."""
        of_components = [name for each in self._contents.components for name in each.parameters.values()]
        shapes = {each.name: tuple(each.shape) for each in self._contents.parameters}
        order = [name for name in of_components if name in shapes] + list(shapes)
        first: dict[str, str] = {}
        for name in order:
            first.setdefault(of_layers(name), name)
        return [Wanted(pattern, shapes[name]) for pattern, name in first.items()]

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Of the letters that layouts are written in, as config.json says."""
        config: dict[str, Any] = self._contents.config
        heads, width = config.get("num_attention_heads"), config.get("hidden_size")
        keys = config.get("num_key_value_heads") or heads
        if not heads or not keys:
            return {}
        size = config.get("head_dim") or (width // heads if width else None)
        return {"K": keys, "G": heads // keys} | ({"D": size} if size else {})

    def _shape(self, component: Component) -> Shape:
        here = dict(zip(_PLACES, (self.batch, self.tokens, self.tokens), strict=True))
        shape = self._recorded[component.name]
        return tuple(
            here.get(letter, size) for letter, size in zip(component.axes.split(), shape, strict=True)
        )

    def _taken_by(self, component: Component) -> Iterator[str]:
        for other in self._contents.components:
            if list(other.inputs.values()) == [component.name] and _layer(other) == _layer(component):
                yield of_layers(other.name)

    def _composites(self, component: Component) -> Iterable[str]:
        others = (each for each in self._contents.components if not each.cached)
        return (of_layers(each.name) for each in others if each.composite_of == component.name)


def of_layers(name: str) -> str:
    return _LAYER.sub(LAYER, name)


def _layer(component: Component) -> str:
    match = _LAYER.search(component.name)
    return match[0] if match else ""
