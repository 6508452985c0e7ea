"""`apply` against `trace`: on what the pass took in, a component gives what the pass had."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from harness.errors import told
from harness.model import Component, Mode, Verdict
from harness.portcheck.asked import Asked, misshapen
from harness.portcheck.trouble import Trouble, difference
from harness.portcheck.whole import Whole
from harness.replay.port import Isolated, NotOffered, no_mapping
from harness.replay.session import NO_APPLY, NOT_OFFERED

Array = Any
_SAME_CODE = "let `apply` run the code of the forward pass, and `trace` hand out each value where it is"


class Alone:
    """Every component by itself. troubles: what contradicts the pass, or the contract

    lacking: components that are not offered, by reason; unverified: those that the pass could not be asked about
    """

    def __init__(self, asked: Asked, whole: Whole) -> None:
        self._asked, self._forward = asked, whole.forward
        self.lacking: dict[str, list[Component]] = {}
        self.unverified: list[str] = []
        known = (
            whole.handed_out.keys() - whole.forward.values.keys()
        )  # what is wrong with these is said already
        steps = [c for c in asked.components if c.step is not None and c.name not in known]
        self.troubles: list[Trouble] = []
        for component in steps:
            with asked.watched(component.name):
                self.troubles += self._of(component)

    def _of(self, component: Component) -> Iterator[Trouble]:
        port = self._asked.port
        if not isinstance(port, Isolated):
            self.lacking.setdefault(NO_APPLY, []).append(component)
            return
        inputs, shape = self._given(component)
        try:
            outputs = port.apply(component.name, inputs)
        except NotOffered:
            self.lacking.setdefault(NOT_OFFERED, []).append(component)
            return
        except Exception as error:
            way_out = "raise NotOffered for what cannot be run alone, and mend the rest"
            yield self._trouble(component, f"`apply` raised {told(error)}", way_out)
            return
        if not isinstance(outputs, Mapping) or component.name not in outputs:
            way_out = "give {name: array}, or raise NotOffered"
            what = (
                "`apply` gives nothing by its name" if isinstance(outputs, Mapping) else no_mapping(outputs)
            )
            yield self._trouble(component, what, way_out)
            return
        yield from self._compared(component, outputs[component.name], shape)

    def _given(self, component: Component) -> tuple[dict[str, Array], tuple[int, ...]]:
        """What the component is given, and the shape that it has to give: what the pass took in, if that is known."""
        if all(source in self._forward.values for source in component.inputs.values()):
            return self._forward.taken(component), self._asked.whole_shape(component)
        file, golden = self._asked.file, self._asked.goldens[component.name]
        return file.inputs(golden), file.tensors[golden.output].shape

    def _compared(self, component: Component, given: Any, shape: tuple[int, ...]) -> Iterator[Trouble]:
        try:
            value = np.asarray(given)
        except Exception as error:
            yield self._trouble(component, f"what `apply` gives cannot be read: {told(error)}", _SAME_CODE)
            return
        wrong = misshapen(value, shape, self._asked.dtype)
        if wrong:
            yield self._trouble(
                component,
                f"what `apply` gives {wrong}",
                f"give it in {self._asked.dtype}, as {component.axes}",
            )
        elif not self._forward.has(component):
            self.unverified.append(component.name)
        else:
            result = self._forward.again(component, value, Mode.ISOLATED)
            if result.verdict is Verdict.FAIL:
                what = "`apply`, on what `trace` had there, does not give what `trace` gave"
                yield self._trouble(component, what, _SAME_CODE, difference(result))

    @staticmethod
    def _trouble(component: Component, what: str, way_out: str, detail: str = "") -> Trouble:
        return Trouble("apply", what, way_out, component, detail, by_kind=True)
