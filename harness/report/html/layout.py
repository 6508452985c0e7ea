"""A model as a grid: layers down, components of a layer across, and what lies before and after all layers.

Where a component stands is read from its name: the first number in it is the layer, what is behind it the column.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

_OUTSIDE = -1


class Column(msgspec.Struct, frozen=True):
    """group: what its name has before the last dot (`self_attn`); empty for what stands directly in a layer."""

    group: str
    name: str


class Layer(msgspec.Struct, frozen=True):
    """cells: for each column the index of its component, -1 where the layer has none."""

    name: str
    cells: list[int]


class Layout(msgspec.Struct, frozen=True):
    """before, after: indices of the components that are in no layer, in forward order."""

    columns: list[Column]
    layers: list[Layer]
    before: list[int]
    after: list[int]


class _Place(NamedTuple):
    layer: str
    column: str


def layout(components: Sequence[str], kinds: Mapping[str, str]) -> Layout:
    """components: in forward order; kinds: what each is, which names the column of a layer as a whole."""
    places = [_place(name, kinds) for name in components]
    inside = [index for index, place in enumerate(places) if place is not None]
    first = inside[0] if inside else len(components)
    columns = list(dict.fromkeys(place.column for place in places if place is not None))
    layers: dict[str, list[int]] = {}
    for index, place in enumerate(places):
        if place is not None:
            cells = layers.setdefault(place.layer, [_OUTSIDE] * len(columns))
            cells[columns.index(place.column)] = index
    outside = [index for index, place in enumerate(places) if place is None]
    return Layout(
        columns=[_column(column) for column in columns],
        layers=[Layer(name, cells) for name, cells in layers.items()],
        before=[index for index in outside if index < first],
        after=[index for index in outside if index > first],
    )


def _place(name: str, kinds: Mapping[str, str]) -> _Place | None:
    """`layers.3.self_attn.q_proj` -> layer `layers.3`, column `self_attn.q_proj`; None in no layer."""
    parts = name.split(".")
    number = next((place for place, part in enumerate(parts) if part.isdigit()), None)
    if number is None:
        return None
    behind = ".".join(parts[number + 1 :])
    return _Place(".".join(parts[: number + 1]), behind or f"({kinds[name]})")


def _column(column: str) -> Column:
    group, _, name = column.rpartition(".")
    return Column(group, name)
