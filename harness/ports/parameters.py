"""A model's parameters by the reference's names and in its layout, through the table that an adapter declares."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.ports.gathered import gathered
from harness.ports.layout import Sizes, layers_axis, of_one_layer, to_port, to_reference
from harness.ports.loaded import Loaded
from harness.ports.tap import LAYER, Param

Array = Any


class ParameterError(ValueError):
    """A parameter that there is not, or of another shape."""


@dataclass(frozen=True)
class Row:
    """One parameter of the reference. layer: of which layer of a stack, None if it is not stacked."""

    name: str
    path: str
    where: Param
    layer: int | None

    def of(self, variables: Mapping[str, Array]) -> Array:
        """What the model holds of it, in the model's layout."""
        value = variables[self.path]
        if self.layer is not None:
            value = value[(slice(None),) * (layers_axis(self.where) or 0) + (self.layer,)]
        return np.asarray(gathered(value))

    @property
    def own(self) -> Param:
        return self.where if self.layer is None else of_one_layer(self.where)


def rows(table: Mapping[str, Param], shapes: Mapping[str, Any]) -> Iterator[Row]:
    """Every parameter that the table names and the model has, then those of the model that it does not name."""
    found = [row for name, where in table.items() for row in _layers(name, where, shapes)]
    yield from found
    named = {row.path for row in found}
    yield from (Row(path, path, Param(path), None) for path in shapes if path not in named)


def _layers(name: str, where: Param, shapes: Mapping[str, Any]) -> Iterator[Row]:
    axis = layers_axis(where)
    if LAYER not in name:
        if where.path in shapes:
            yield Row(name, where.path, where, None)
    elif axis is not None and where.path in shapes:
        for n in range(shapes[where.path].shape[axis]):
            yield Row(name.replace(LAYER, str(n)), where.path, where, n)
    elif axis is None and LAYER in where.path:
        n = 0
        while (path := where.path.replace(LAYER, str(n))) in shapes:
            yield Row(name.replace(LAYER, str(n)), path, where, None)
            n += 1


class Read(Mapping[str, Array]):
    """All parameters by the reference's names, as numpy arrays in its layout, each made when it is asked for."""

    def __init__(self, table: Mapping[str, Param], variables: Loaded, sizes: Sizes) -> None:
        self._rows = {row.name: row for row in rows(table, variables.shapes)}
        self._variables, self._sizes = variables, sizes

    def __getitem__(self, name: str) -> Array:
        row = self._rows[name]
        return to_reference(row.of(self._variables), row.own, self._sizes)

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


def replaced(
    table: Mapping[str, Param], variables: Loaded, overrides: Mapping[str, Any], sizes: Sizes
) -> dict[str, Array]:
    """The variables that are others where some parameters are replaced, in the dtype that they have.

    Raises ParameterError for names that there are not, and for other shapes.
    """
    known = {row.name: row for row in rows(table, variables.shapes)}
    arrays = {name: np.asarray(value) for name, value in overrides.items()}
    _refuse(known, variables, arrays, sizes)
    changed: dict[str, Array] = {}
    for name, value in arrays.items():
        row = known[name]
        now = changed if row.path in changed else variables  # several parameters may be parts of one variable
        before = row.of(now)
        given = to_port(value.astype(before.dtype), row.own, sizes, into=before)
        changed[row.path] = given if row.layer is None else _put(now[row.path], given, row)
    return changed


def _refuse(
    known: Mapping[str, Row], variables: Mapping[str, Array], given: Mapping[str, Array], sizes: Sizes
) -> None:
    """All that does not fit, together."""
    surplus = [f"there is no parameter {name}" for name in sorted(given) if name not in known]
    shapes = {
        name: to_reference(known[name].of(variables), known[name].own, sizes).shape
        for name in given
        if name in known
    }
    wrong = [
        f"parameter {name} has shape {given[name].shape} instead of {shape}"
        for name, shape in shapes.items()
        if given[name].shape != shape
    ]
    if surplus or wrong:
        raise ParameterError("; ".join([*surplus, *wrong]))


def _put(stack: Array, value: Array, row: Row) -> Array:
    whole = np.array(stack)
    axis = layers_axis(row.where)
    assert axis is not None
    np.moveaxis(whole, axis, 0)[row.layer] = value
    return whole
