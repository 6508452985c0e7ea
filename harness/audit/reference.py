"""The reference in float64, as a port: what a fault does to it is its effect without any rounding."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from harness.audit.planted import Converted, wide
from harness.kinds.numpy_arrays import NumpyArrays
from harness.kinds.step import Evaluation
from harness.kinds.table import STEPS
from harness.model import Component
from harness.replay.port import NotOffered

Array = Any
Arrays = Mapping[str, Array]
_FLOAT64 = NumpyArrays(np.float64)


class Reference:
    """Every step of a golden file's components evaluated in float64. weights: the checkpoint's, by name."""

    def __init__(self, components: Sequence[Component], weights: Arrays) -> None:
        self._components = {component.name: component for component in components}
        self._weights = weights

    @property
    def whole(self) -> bool:
        """Whether it can be traced: a golden file may lack what a component takes in, or have it as a module."""
        sources = {source for c in self._components.values() for source in c.inputs.values()}
        handed_on = {c.composite_of for c in self._components.values() if c.composite_of}
        known = all(c.composite_of is not None or _is_known(c) for c in self._components.values())
        return known and all(
            source in self._components or source.startswith("case.") for source in sources | handed_on
        )

    def apply(self, name: str, inputs: Arrays) -> dict[str, Array]:
        component = self._components[name]
        if not _is_known(component):
            raise NotOffered(name)
        parameters = {role: self._weights[stored] for role, stored in component.parameters.items()}
        if not component.exact:
            parameters = {role: wide(value) for role, value in parameters.items()}
        given = {argument: wide(value) for argument, value in inputs.items()}
        output = STEPS[component.step or ""].evaluate(
            Evaluation(_FLOAT64, given, parameters, component.settings)
        )
        return {name: wide(output)}

    def trace(self, inputs: Arrays, names: Collection[str]) -> dict[str, Array]:
        """Its components, one after another."""
        values = {f"case.{name}": value for name, value in inputs.items()}
        for name, component in self._components.items():
            if component.composite_of is not None:
                values[name] = values[component.composite_of]
            else:
                sources = {argument: values[source] for argument, source in component.inputs.items()}
                values[name] = self.apply(name, sources)[name]
        return {name: values[name] for name in names}

    def parameters(self) -> Arrays:
        return Converted(self._weights, wide)

    def with_parameters(self, overrides: Arrays) -> "Reference":
        return Reference(list(self._components.values()), {**self._weights, **overrides})


def _is_known(component: Component) -> bool:
    """Whether there is a step to evaluate; what was recorded as a module has none."""
    return component.step is not None and not STEPS[component.step].opaque
