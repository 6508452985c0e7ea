"""How far rounding alone takes the reference from float64: for each component, isolated and end to end.

Isolated, a component's step is evaluated in float64 on the inputs that the reference gave it. End to end, the whole
chain of steps is evaluated in float64 from the token ids; the modelled floor is what happens to it when every step
is disturbed by as much as its rounding model allows, drawn at random: rounding as another honest order of evaluation
would have it, carried through the network. The worst of several draws counts.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.compare.metrics import Places, counts, views
from harness.compare.tolerance import NOTHING, exceeds, greatest, limit
from harness.errors import GoldensError
from harness.kinds.step import Evaluation, Step
from harness.kinds.table import STEPS
from harness.model import UNIT_ROUNDOFF, Component, Floor, Mode, Views
from harness.record.capture import Captured
from harness.record.discover import Module
from harness.record.torch_arrays import TorchArrays

LEAST_DRAWS, MOST_DRAWS, DRAWN_TOKENS = 3, 16, 64
"""How many disturbed chains: so many that they have DRAWN_TOKENS tokens together, within bounds.

What drives the error of a token end to end is often a single rounding early on, carried through the network: one or
two draws of it may by chance be near zero. Measured with two draws, correct ports came to 11.6 times the floor on
prompts of one and two tokens (benchmarks/false_alarms.py).
"""
FLOAT64 = TorchArrays(torch.float64)


@dataclass(frozen=True)
class Floors:
    """The floors of one component; composites have no isolated one."""

    end_to_end: Floor
    isolated: Floor | None = None


@dataclass(frozen=True)
class Recorded:
    """What of one case is recorded.

    seen: what `capture` kept, the case's own inputs too; name: seeds the draws; keep: the part of a tensor that is
    recorded, given its axes; places: the real tokens of that part
    """

    seen: Captured
    name: str
    dtype: str
    keep: Callable[[Tensor, str], Tensor]
    places: Places

    def views(self, error: Tensor, reference: Tensor, axes: str) -> Views:
        error, reference = self.keep(error, axes), self.keep(reference, axes)
        return views(error.numpy(), reference.numpy(), axes, self.places)


@torch.inference_mode()
def floors(
    model: Module, components: list[Component], cases: list[Recorded]
) -> Iterator[tuple[Component, list[Floors]]]:
    """Yield each component with its floors in every case, in forward order.

    All cases go through a component together: casting its weights to float64 is as much work as a short prompt.
    """
    parameters = dict(model.named_parameters())
    chains = [_Chains(recorded) for recorded in cases]
    last_use = _last_uses(components)
    end_to_end: dict[str, list[Floors]] = {}
    for number, component in enumerate(components):
        if component.composite_of is not None:
            yield component, [Floors(found.end_to_end) for found in end_to_end[component.composite_of]]
            continue
        own = {role: parameters[name].to(torch.float64) for role, name in component.parameters.items()}
        end_to_end[component.name] = [chain.advance(component, own) for chain in chains]
        yield component, end_to_end[component.name]
        for chain in chains:
            chain.forget(last_use[number])


class _Chains:
    """Several float64 evaluations of the model side by side in the batch: one exact, the others disturbed.

    A step is evaluated once for all of them, and for the inputs that the reference gave it, put in front: weights,
    which are most of the work for a short prompt, are read once.
    """

    def __init__(self, recorded: Recorded) -> None:
        self._recorded = recorded
        self._outputs: Captured = {}
        tokens = int(recorded.places.keys.sum())
        self._draws = min(max(-(-DRAWN_TOKENS // tokens), LEAST_DRAWS), MOST_DRAWS)
        seed = hashlib.sha256(f"{recorded.name}/{recorded.dtype}".encode()).digest()[:7]
        self._noise = torch.Generator().manual_seed(int.from_bytes(seed, "big"))

    def advance(self, component: Component, parameters: Captured) -> Floors:
        """Evaluate the next component."""
        step = STEPS[component.step or ""]
        seen, axes = self._recorded.seen[component.name], component.axes
        inputs = {
            argument: self._stacked(source, step.arguments[argument])
            for argument, source in component.inputs.items()
        }
        outputs = step.evaluate(Evaluation(FLOAT64, inputs, parameters, component.settings))
        output, exact, *disturbed = outputs.split(len(seen))
        sigma = self._sigma(component, step, inputs, parameters, output)
        measure = self._recorded.views
        isolated = Floor(
            measured=measure(seen.double() - output, output, axes),
            modelled=NOTHING if sigma is None else measure(sigma, output, axes),
        )
        self._check(component, isolated, output)
        spread = NOTHING
        for draw in disturbed:
            if sigma is not None:
                draw += sigma * torch.randn(sigma.shape, generator=self._noise)
            spread = greatest(spread, measure(draw - exact, exact, axes))
        self._outputs[component.name] = outputs[len(seen) :]
        drift = measure(seen.double() - exact, exact, axes)
        return Floors(end_to_end=Floor(measured=drift, modelled=spread), isolated=isolated)

    def _check(self, component: Component, floor: Floor, output: Tensor) -> None:
        """The reference must pass its own model: a larger error is no rounding, and would widen its own tolerance."""
        dtype, places = self._recorded.dtype, self._recorded.places
        sizes = counts(tuple(self._recorded.keep(output, component.axes).shape), component.axes, places)
        modelled = Floor(floor.modelled, floor.modelled)
        if exceeds(floor.measured, limit(modelled, dtype, Mode.ISOLATED, component.exact, sizes)):
            raise GoldensError(
                f"{component.name} of the reference is further from float64 than rounding explains, in case "
                f"{self._recorded.name}, {dtype}: is a reduced precision switched on for products?"
            )

    def forget(self, names: list[str]) -> None:
        for name in names:
            self._outputs.pop(name, None)

    def _stacked(self, source: str, axes: str) -> Tensor:
        """A source as the reference had it, then as each chain has it; a case's own input, for all alike."""
        own = self._recorded.seen[source]
        if "B" not in axes.split():
            return own
        if source not in self._outputs:
            return own.repeat(2 + self._draws, *(1,) * (own.dim() - 1))
        return torch.cat((own.double(), self._outputs[source]))

    def _sigma(
        self, component: Component, step: Step, inputs: Captured, parameters: Captured, output: Tensor
    ) -> Tensor | None:
        """The modelled standard deviation of rounding, on the inputs that the reference gave."""
        if step.variance is None:
            return None
        own = {
            argument: value[: len(output)] if "B" in step.arguments[argument].split() else value
            for argument, value in inputs.items()
        }
        evaluation = Evaluation(FLOAT64, own, parameters, component.settings)
        return step.variance(evaluation, output, UNIT_ROUNDOFF[self._recorded.dtype]).sqrt()


def _last_uses(components: list[Component]) -> list[list[str]]:
    """For each place in forward order, the components whose outputs nothing after it takes in."""
    last = {component.name: number for number, component in enumerate(components)}
    for number, component in enumerate(components):
        last.update((source, number) for source in component.inputs.values() if source in last)
    uses: list[list[str]] = [[] for _ in components]
    for name, number in last.items():
        uses[number].append(name)
    return uses
