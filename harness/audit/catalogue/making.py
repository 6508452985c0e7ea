"""What the catalogue's faults are made of: layers, parameters and wires by name, and coarser numbers."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import ml_dtypes
import numpy as np

from harness.audit.fault import Arrays, Overrides
from harness.model import Component

Array = Any
Components = Sequence[Component]
Edges = Mapping[str, Mapping[str, str]]

_IN_LAYER = re.compile(r"layers\.(\d+)\.")


@dataclass(frozen=True)
class Layer:
    """A decoder layer: where it reads the residual stream, and where it leaves it."""

    number: int
    stream: str

    @property
    def prefix(self) -> str:
        return f"layers.{self.number}."

    @property
    def output(self) -> str:
        return self.of("mlp_residual")

    def of(self, name: str) -> str:
        return self.prefix + name


def layers(components: Components) -> list[Layer]:
    """In forward order."""
    residuals = (c for c in components if c.name.endswith(".attn_residual"))
    return [Layer(layer_number(c.name) or 0, c.inputs["residual"]) for c in residuals]


def layer_number(name: str) -> int | None:
    """Of a component or a parameter; None where it is in no layer."""
    found = _IN_LAYER.search(name)
    return int(found[1]) if found else None


def one_layer(components: Components) -> Layer | None:
    """The layer in the middle: where a fault is in one layer only."""
    found = layers(components)
    return found[len(found) // 2] if found else None


def each(at: tuple[str, ...], role: str, edit: Callable[[Array], Array | None]) -> Overrides:
    """This parameter of every component that a glob of `at` names; an edit that gives None leaves it alone."""
    return Overrides(
        lambda parameters, components: _edited(parameters, _matching(components, at), role, edit)
    )


def in_one_layer(part: str, role: str, edit: Callable[[Array], Array | None]) -> Overrides:
    """This parameter of one component of the layer in the middle."""

    def edited(parameters: Arrays, components: Components) -> Arrays:
        layer = one_layer(components)
        names = () if layer is None else (layer.of(part),)
        return _edited(parameters, _matching(components, names), role, edit)

    return Overrides(edited)


def exchanged(one: str, other: str) -> Overrides:
    """Two components of every layer hold each other's parameters."""

    def edited(parameters: Arrays, components: Components) -> Arrays:
        by_name = {component.name: component for component in components}
        overrides: dict[str, Array] = {}
        for first in components:
            second = by_name.get(f"{first.name.removesuffix(one)}{other}")
            if first.name.endswith(one) and second is not None:
                for role, name in first.parameters.items():
                    there = second.parameters[role]
                    overrides |= {name: parameters[there], there: parameters[name]}
        return _differing(overrides, parameters)

    return Overrides(edited)


def from_layer(source: Callable[[int, list[int]], int]) -> Overrides:
    """Every layer holds the parameters of layer `source(number, numbers of all layers)`."""

    def edited(parameters: Arrays, components: Components) -> Arrays:
        numbers = [layer.number for layer in layers(components)]
        overrides: dict[str, Array] = {}
        for component in components:
            number = layer_number(component.name)
            for name in component.parameters.values() if number is not None else ():
                there = name.replace(f"layers.{number}.", f"layers.{source(number or 0, numbers)}.")
                overrides[name] = parameters[there]
        return _differing(overrides, parameters)

    return Overrides(edited)


def head_dim(components: Components) -> int:
    return int(next(c.settings["head_dim"] for c in components if c.kind == "cos"))


def rows_of_heads(at: tuple[str, ...], order: Callable[[Array], Array]) -> Overrides:
    """The rows of weight and bias in another order. `order`: their numbers (H D) -> numbers in the order wanted."""

    def edited(parameters: Arrays, components: Components) -> Arrays:
        size = head_dim(components)

        def reordered(rows: Array) -> Array:
            return rows[order(np.arange(len(rows)).reshape(-1, size)).reshape(-1)]

        chosen = _matching(components, at)
        return {
            **_edited(parameters, chosen, "weight", reordered),
            **_edited(parameters, chosen, "bias", reordered),
        }

    return Overrides(edited)


def redirected(
    components: Components, moves: Mapping[str, str], prefix: str = ""
) -> dict[str, dict[str, str]]:
    """Whatever takes in a key of `moves`, among the components whose names start so, takes in its value instead."""
    return {
        c.name: {argument: moves[source] for argument, source in c.inputs.items() if source in moves}
        for c in components
        if c.name.startswith(prefix) and any(source in moves for source in c.inputs.values())
    }


def in_every_layer(edges: Callable[[Layer], Edges]) -> Callable[[Components], Edges]:
    """The same wires in every layer; those of components that there are not are left out."""

    def every(components: Components) -> Edges:
        names = {component.name for component in components}
        wires = (wire for layer in layers(components) for wire in edges(layer).items())
        return {name: sources for name, sources in wires if name in names}

    return every


def setting(name: str, holds: Callable[[Any], bool]) -> Callable[[Component], bool]:
    """Components that have this setting, with a value of which this holds."""
    return lambda component: name in component.settings and holds(component.settings[name])


def to_bfloat16(x: Array) -> Array:
    return x.astype(ml_dtypes.bfloat16).astype(np.float64)


def to_float16(x: Array) -> Array:
    with np.errstate(over="ignore"):
        return x.astype(np.float16).astype(np.float64)


def to_tf32(x: Array) -> Array:
    """10 bits of mantissa, as tensor cores read float32: to nearest, by adding half of what is then cut off."""
    bits = x.astype(np.float32).view(np.uint32)
    return ((bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32).astype(np.float64)


def heads_inside(x: Array, size: int) -> Array:
    """x (B T H·D) or (B T H D) -> (B H T D)."""
    return x.reshape(*x.shape[:2], -1, size).swapaxes(1, 2)


def _matching(components: Components, globs: tuple[str, ...]) -> Iterator[Component]:
    return (c for c in components if any(fnmatchcase(c.name, glob) for glob in globs))


def _edited(
    parameters: Arrays, components: Iterator[Component] | Components, role: str, edit: Callable[[Array], Any]
) -> Arrays:
    names = dict.fromkeys(c.parameters[role] for c in components if role in c.parameters)
    edited = {name: edit(_wide(parameters[name])) for name in names if name in parameters}
    return _differing({name: value for name, value in edited.items() if value is not None}, parameters)


def _wide(parameter: Array) -> Array:
    return np.asarray(parameter).astype(np.float64)


def _differing(overrides: Arrays, parameters: Arrays) -> Arrays:
    """In the dtype of the parameters, those that are not what they were."""
    with np.errstate(over="ignore"):
        typed = {name: np.asarray(value).astype(parameters[name].dtype) for name, value in overrides.items()}
    return {name: value for name, value in typed.items() if value.tobytes() != parameters[name].tobytes()}
