"""A model in sections: what is before its layers, each layer, and what is behind them."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby

from harness.model import Component
from harness.record.decoder import Decoder


@dataclass(frozen=True)
class Section:
    """components: in forward order; layer: its number, or None"""

    components: list[Component]
    layer: int | None

    @contextmanager
    def held(self, decoder: Decoder) -> Iterator[None]:
        """With the layer's parameters in the reference's dtype, while the context is open."""
        if self.layer is None:
            yield
            return
        with decoder.parameters.held(decoder.layers[self.layer]):
            yield


def sections(components: Iterable[Component]) -> list[Section]:
    return [Section(list(group), layer) for layer, group in groupby(components, _layer)]


def _layer(component: Component) -> int | None:
    first, _, rest = component.name.partition(".")
    return int(rest.partition(".")[0]) if first == "layers" else None


def last_uses(components: list[Component]) -> dict[str, list[str]]:
    """component -> those whose outputs nothing behind it takes in or hands out."""
    last = {component.name: component.name for component in components}
    for component in components:
        for source in (*component.inputs.values(), component.composite_of):
            if source is not None and source in last:
                last[source] = component.name
    uses: dict[str, list[str]] = {component.name: [] for component in components}
    for name, user in last.items():
        uses[user].append(name)
    return uses
