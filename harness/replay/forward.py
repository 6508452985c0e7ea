"""One forward pass of a port, to hold the port against itself: fed as it was there, a component gives it again."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from harness.compare.judge import judge
from harness.compare.metrics import Places
from harness.model import CASE, Component, Golden, Mode
from harness.replay.port import TRACE_INPUTS, Arrays, Isolated
from harness.report.result import Result
from harness.store.reader import GoldenFile

Array = Any


@dataclass(frozen=True)
class Forward:
    """values: what each component put out, whole, and what the case gave, as `case.token_ids` and the like.

    goldens: of the same case and dtype, by component: no number of theirs is looked at, only their noise floors
    places: the real tokens
    """

    values: Mapping[str, Array]
    goldens: Mapping[str, Golden]
    places: Places

    @classmethod
    def of(cls, file: GoldenFile, case: str, dtype: str, outputs: Arrays) -> Self:
        """outputs: of `Port.trace`. Raises what the port's arrays raise when they are read."""
        given = file.case_inputs(case)
        values = {name: np.asarray(value) for name, value in outputs.items()}
        values |= {f"{CASE}{name}": given[name] for name in TRACE_INPUTS}
        goldens = {g.component: g for g in file.contents.goldens if (g.case, g.dtype) == (case, dtype)}
        real = given["attention_mask"] != 0
        return cls(values, goldens, Places(queries=real, keys=real))

    def has(self, component: Component) -> bool:
        """Whether it was handed out, and all that it takes in."""
        return all(name in self.values for name in (component.name, *component.inputs.values()))

    def taken(self, component: Component) -> dict[str, Array]:
        """Argument -> what the component took in."""
        return {argument: self.values[source] for argument, source in component.inputs.items()}

    def again(self, component: Component, value: Array, mode: Mode) -> Result:
        """Hold another value of the component against that of the pass, by the limits of `mode`."""
        golden, there = self.goldens[component.name], self.values[component.name]
        return judge(component, golden, mode, value, there, self.places)

    def fed(self, port: Isolated, component: Component, changed: Arrays) -> Result:
        """Run the component on what it took in, some of it changed. Raises what the port raises."""
        outputs = port.apply(component.name, {**self.taken(component), **changed})
        return self.again(component, np.asarray(outputs[component.name]), Mode.ISOLATED)
