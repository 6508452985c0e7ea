"""The float64 evaluations of several cases, component by component."""

import math
from collections.abc import Iterator

import torch

from harness.kinds.table import STEPS
from harness.model import Component
from harness.record.chains import Chains
from harness.record.decoder import Decoder
from harness.record.floors import WHOLE, Depth, Floors, Recorded
from harness.record.modules import Copy, is_module
from harness.record.sections import last_uses
from harness.record.steps import Weights

AT_ONCE = 2**21
"""Parameters that are cast to float64 at once: the head of a large model would fill gigabytes.

So few that memory is used again and not asked for anew each time, which costs as much as the product.
"""


class Evaluations:
    """All cases go through a component together: casting its weights to float64 is as much work as a short prompt."""

    def __init__(
        self, decoder: Decoder, components: list[Component], cases: list[Recorded], depth: Depth = WHOLE
    ) -> None:
        self._decoder, self._last_uses = decoder, last_uses(components)
        in_caches = {component.composite_of for component in components if component.cached}
        self._chains = [Chains(recorded, in_caches, depth) for recorded in cases]
        self._dtype = cases[0].dtype

    @torch.inference_mode()
    def of(self, component: Component) -> list[Floors]:
        """The floors of the next component in every case. Components come in forward order."""
        found = self._of(component)
        for chains in self._chains:
            chains.forget(self._last_uses[component.name])
        return found

    def _of(self, component: Component) -> list[Floors]:
        if component.composite_of is not None:
            return [chains.composite(component) for chains in self._chains]
        if is_module(component):
            copy = Copy(self._decoder, component, self._dtype)
            return [chains.through(component, copy) for chains in self._chains]
        handed_on = component.name not in self._last_uses[component.name]
        evaluating = [chains.at(component, handed_on) for chains in self._chains]
        for weights in self._weights(component):
            for each in evaluating:
                each.evaluate(weights)
        return [each.end() for each in evaluating]

    def _weights(self, component: Component) -> Iterator[Weights]:
        """A component's parameters, in parts that its outputs can be evaluated from."""
        names, step = component.parameters, STEPS[component.step or ""]
        sizes = [math.prod(self._decoder.parameters.shape(name)) for name in names.values()]
        if not names or not set(names) <= set(step.by_output):
            yield self._part(component, slice(None))
            return
        outputs = self._decoder.parameters.shape(names["weight"])[0]
        size = max(1, AT_ONCE * outputs // sum(sizes))
        for start in range(0, outputs, size):
            yield self._part(component, slice(start, start + size))

    def _part(self, component: Component, outputs: slice) -> Weights:
        parameters = self._decoder.parameters
        return Weights(
            outputs, {role: parameters.part(name, outputs) for role, name in component.parameters.items()}
        )
