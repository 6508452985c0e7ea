"""One case in float64: each component by itself on what the reference gave it, and chains of them side by side.

One chain is exact. The others are disturbed, and kept as how far they are from it, in float32: a product is linear, so
what it makes of a distance needs no float64, and neither does the distance of what the reference gave a component from
what the exact chain did.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness.compare.metrics import Apart, counts, joined, sized
from harness.compare.tolerance import NOTHING, exceeds, greatest, limit
from harness.errors import GoldensError
from harness.kinds.step import Evaluation, Step
from harness.kinds.table import STEPS
from harness.model import LOGITS, UNIT_ROUNDOFF, Component, Floor, Mode, Views
from harness.record.floors import Depth, Floors, Recorded
from harness.record.modules import Call, Copy, is_alone
from harness.record.noise import Noise
from harness.record.torch_arrays import TorchArrays
from harness.record.watch import Captured

LEAST_DRAWS, MOST_DRAWS, DRAWN_TOKENS = 3, 16, 64
"""How many disturbed chains: so many that they have DRAWN_TOKENS tokens together, within bounds.

What drives the error of a token end to end is often a single rounding early on, carried through the network: one or
two draws of it may by chance be near zero. Measured with two draws, correct ports came to 11.6 times the floor on
prompts of one and two tokens (benchmarks/false_alarms.py).
"""
DISTURBED = 8
"""How many disturbed copies of a module say what rounding does to it."""
ELEMENTS = 2**24
"""Of disturbed chains that are evaluated at once."""
FLOAT64 = TorchArrays(torch.float64)


@dataclass(frozen=True)
class Weights:
    """Parameters of a component for a part of its outputs, by role, in the reference's dtype."""

    outputs: slice
    parameters: Mapping[str, Tensor]


@dataclass(frozen=True)
class Spread:
    """What the chains have somewhere: the exact one (B ...) in float64, and the others' distances (draws B ...).

    moved: float32; None where there is no other chain, or none differs
    """

    exact: Tensor
    moved: Tensor | None = None

    def chain(self, number: int) -> Tensor:
        """Of a disturbed chain, in float64."""
        rows = len(self.exact)
        return self.exact if self.moved is None else self.exact + self.moved[number * rows :][:rows]

    def several(self, first: int, count: int) -> Tensor:
        """Of disturbed chains, in float64, side by side in the batch."""
        rows, exact = len(self.exact), self.exact
        repeated = exact.repeat(count, *(1,) * (exact.dim() - 1))
        return repeated if self.moved is None else repeated + self.moved[first * rows :][: count * rows]


class Chains:
    """in_caches: components that a cache holds, which are recorded at every token as well."""

    def __init__(self, recorded: Recorded, in_caches: Collection[str | None], depth: Depth) -> None:
        self.recorded, self.in_caches, self.depth = recorded, in_caches, depth
        self.outputs: dict[str, Spread] = {}
        self.drift: dict[tuple[str, str], Floor] = {}
        tokens = int(recorded.case["case.attention_mask"].sum())
        enough = min(max(-(-DRAWN_TOKENS // tokens), LEAST_DRAWS), MOST_DRAWS)
        self.draws = enough if depth.draws is None else depth.draws
        self.noise = Noise(recorded.name, recorded.dtype)

    def at(self, component: Component, handed_on: bool) -> "At":
        """The next component. handed_on: whether another one takes in what it puts out."""
        return At(self, component, handed_on)

    def composite(self, component: Component) -> Floors:
        """End to end as the component that it hands out."""
        return Floors(self.drift[component.composite_of or "", self.recorded.tokens_of(component)])

    def forget(self, names: list[str]) -> None:
        for name in names:
            self.outputs.pop(name, None)

    def through(self, component: Component, copy: Copy) -> Floors:
        """A module, whose steps are not known: its copy is what there is to evaluate."""
        at = self.at(component, handed_on=True)
        if is_alone(component) and self.depth.isolated:
            self._alone(at, component, copy)
        sources = [source for source in component.inputs.values() if source in self.outputs]
        first = {source: self.outputs[source].exact for source in sources}
        call = self._call(component, first)
        exact, moved = copy.exact(call, first), []
        for number in range(self.draws):
            values = {source: self.outputs[source].chain(number) for source in sources}
            moved.append((copy.disturbed(call, values, self.noise.generator) - exact).float())
        at.put_out(slice(None), Spread(exact, torch.cat(moved) if moved else None))
        return at.end()

    def _alone(self, at: "At", component: Component, copy: Copy) -> None:
        """What rounding does to a module is what it does to several disturbed ones, in the mean."""
        values = {component.inputs["x"]: self.recorded.inputs(component)["x"]}
        call = self._call(component, values)
        output = copy.exact(call, values)
        draws = [copy.disturbed(call, values, self.noise.generator) - output for _ in range(DISTURBED)]
        at.by_itself(slice(None), output, torch.stack(draws).square().mean(0).sqrt())

    def _call(self, component: Component, values: Captured) -> Call:
        """How the reference calls a module; one that takes in a token alone is called with it."""
        if not is_alone(component):
            return self.recorded.calls[component.name]
        source = component.inputs["x"]
        return Call(((values[source],), {}), {id(values[source]): source})


class At:
    """The chains at one component, whose outputs may be evaluated in parts."""

    def __init__(self, chains: Chains, component: Component, handed_on: bool) -> None:
        self._chains, self._component, self._handed_on = chains, component, handed_on
        self._recorded, self._tokens = chains.recorded, chains.recorded.tokens_of(component)
        also = ["query_index"] if component.name in chains.in_caches else []
        self._places = {each: self._recorded.places(each) for each in dict.fromkeys((self._tokens, *also))}
        self._seen = {
            each: self._recorded.seen(component.name, component.axes, each) for each in self._places
        }
        self._sums: dict[tuple[str, ...], list[Apart]] = {}
        self._parts: list[Spread] = []
        self._exact: list[Tensor] = []

    def evaluate(self, weights: Weights) -> None:
        """A part of the outputs, by itself and in the chains."""
        if self._step.name == "linear":
            self._product(weights)
        else:
            self._any(weights)

    @property
    def _step(self) -> Step:
        return STEPS[self._component.step or ""]

    def _product(self, weights: Weights) -> None:
        x, draws = self._given["x"], self._chains.draws
        own = {role: value.double() for role, value in weights.parameters.items()}
        exact = self._evaluation({"x": x.exact}, own)
        output = self._step.evaluate(exact)
        narrow = {role: value.float() for role, value in weights.parameters.items()}
        squares = FLOAT64.linear_squares(x.exact, narrow["weight"], own.get("bias"))
        sigma = self._sigma(_knowing(exact, squares), output)
        moved = None
        if draws:
            distances = output.new_zeros((draws * len(output), *output.shape[1:]), dtype=torch.float32)
            if x.moved is not None:
                distances = torch.nn.functional.linear(x.moved, narrow["weight"])
            moved = self._disturbed(distances, sigma)
        if self._chains.depth.isolated:
            given, there = self._recorded.inputs(self._component)["x"], self._at_tokens(x.exact)
            more = torch.nn.functional.linear((given - there).float(), narrow["weight"])
            alone = self._at_tokens(output) + more
            evaluation = _knowing(self._evaluation({"x": given}, own), self._at_tokens(squares))
            self.by_itself(weights.outputs, alone, self._sigma(evaluation, alone))
        self.put_out(weights.outputs, Spread(output, moved))

    def _any(self, weights: Weights) -> None:
        widened = _Table if "token_ids" in self._component.inputs else Tensor.double
        own = {role: widened(value) for role, value in weights.parameters.items()}
        if self._chains.depth.isolated:
            alone = self._evaluation(self._recorded.inputs(self._component), own)
            output = self._step.evaluate(alone)
            self.by_itself(weights.outputs, output, self._sigma(alone, output))
        exact = self._evaluation({argument: value.exact for argument, value in self._given.items()}, own)
        output = self._step.evaluate(exact)
        sigma = self._sigma(exact, output)
        size = max(output.numel(), *(value.exact.numel() for value in self._given.values()))
        draws, at_once = self._chains.draws, max(1, ELEMENTS // max(1, size))
        found = []
        for first in range(0, draws, at_once):
            count = min(at_once, draws - first)
            inputs = {
                argument: value.several(first, count) if self._batched(argument) else value.exact
                for argument, value in self._given.items()
            }
            outputs = self._step.evaluate(exact.with_inputs(**inputs))
            distances = outputs.unflatten(0, (count, -1)) - output
            found.append(self._disturbed(distances.flatten(0, 1).float(), sigma))
        self.put_out(weights.outputs, Spread(output, torch.cat(found) if found else None))

    def _batched(self, argument: str) -> bool:
        return "B" in self._step.arguments[argument].split()

    @property
    def _given(self) -> dict[str, Spread]:
        """What the chains take in; of logits, at their tokens only."""
        arguments = self._step.arguments
        return {
            argument: self._source(source, arguments[argument])
            for argument, source in self._component.inputs.items()
        }

    def _source(self, source: str, axes: str) -> Spread:
        if source not in self._chains.outputs:
            return Spread(self._recorded.case[source])
        value = self._chains.outputs[source]
        if self._component.name != LOGITS:
            return value
        moved = None if value.moved is None else self._recorded.select(value.moved, axes, self._tokens)
        return Spread(self._recorded.select(value.exact, axes, self._tokens), moved)

    def _evaluation(self, inputs: Captured, parameters: Mapping[str, Any]) -> Evaluation:
        return Evaluation(FLOAT64, inputs, parameters, self._component.settings)

    def _sigma(self, evaluation: Evaluation, output: Tensor) -> Tensor | None:
        """The modelled standard deviation of rounding."""
        if self._step.variance is None:
            return None
        return self._step.variance(evaluation, output, UNIT_ROUNDOFF[self._recorded.dtype]).sqrt()

    def _disturbed(self, distances: Tensor, sigma: Tensor | None) -> Tensor:
        """With what rounding this step may do to each chain."""
        if sigma is not None:
            sigma = sigma.float()
            for chain in torch.split(distances, len(sigma)):
                chain.addcmul_(sigma, self._chains.noise.draw(sigma.shape))
        return distances

    def _at_tokens(self, value: Tensor, tokens: str | None = None) -> Tensor:
        if self._component.name == LOGITS:  # was evaluated there only
            return value
        axes = self._component.axes if value.dim() == len(self._component.axes.split()) else "B T C"
        return self._recorded.select(value, axes, tokens or self._tokens)

    def by_itself(self, part: slice, output: Tensor, sigma: Tensor | None) -> None:
        """A part of the outputs in float64, on what the reference gave the component."""
        error = self._seen[self._tokens][..., part].double() - output
        self._add(("measured",), self._tokens, error, output)
        if sigma is not None:
            self._add(("modelled",), self._tokens, sigma, output)

    def put_out(self, part: slice, outputs: Spread) -> None:
        """A part of the outputs in the chains: how far they are apart, and the reference from the exact one."""
        for tokens, seen in self._seen.items():
            right = self._at_tokens(outputs.exact, tokens)
            self._add(("reference",), tokens, seen[..., part].double() - right, right)
            if outputs.moved is not None:
                for number, chain in enumerate(torch.split(outputs.moved, len(outputs.exact))):
                    self._add((f"chain {number}",), tokens, self._at_tokens(chain, tokens), right)
        if self._component.name == LOGITS and self._recorded.dtype != "float32":
            self._exact.append(outputs.exact.float())
        if self._handed_on:
            self._parts.append(outputs)

    def _add(self, what: tuple[str, ...], tokens: str, error: Tensor, reference: Tensor) -> None:
        found = sized(error.numpy(), reference.numpy(), self._component.axes, self._places[tokens])
        self._sums.setdefault((*what, tokens), []).append(found)

    def end(self) -> Floors:
        """What all parts come to."""
        component, chains = self._component, self._chains
        if self._handed_on:
            chains.outputs[component.name] = _beside(self._parts)
        for tokens in self._seen:
            chains.drift[component.name, tokens] = self._drifted(tokens)
        isolated = None
        if ("measured", self._tokens) in self._sums:
            isolated = Floor(self._views("measured", self._tokens), self._views("modelled", self._tokens))
            self._check(isolated)
        exact = torch.cat(self._exact, dim=-1) if self._exact else None
        return Floors(chains.drift[component.name, self._tokens], isolated, exact)

    def _views(self, what: str, tokens: str) -> Views:
        parts = self._sums.get((what, tokens))
        return joined(parts).views() if parts else NOTHING

    def _drifted(self, tokens: str) -> Floor:
        spread = NOTHING
        for number in range(self._chains.draws):
            spread = greatest(spread, self._views(f"chain {number}", tokens))
        return Floor(measured=self._views("reference", tokens), modelled=spread)

    def _check(self, floor: Floor) -> None:
        """The reference must pass its own model: a larger error is no rounding, and would widen its own tolerance."""
        component, recorded = self._component, self._recorded
        shape = tuple(self._seen[self._tokens].shape)
        sizes = counts(shape, component.axes, self._places[self._tokens])
        modelled = Floor(floor.modelled, floor.modelled)
        if exceeds(floor.measured, limit(modelled, recorded.dtype, Mode.ISOLATED, component.exact, sizes)):
            raise GoldensError(
                f"{component.name} of the reference is further from float64 than rounding explains, in case "
                f"{recorded.name}, {recorded.dtype}: is a reduced precision switched on for products?"
            )


def _beside(parts: list[Spread]) -> Spread:
    if len(parts) == 1:
        return parts[0]
    moved = [part.moved for part in parts if part.moved is not None]
    return Spread(
        torch.cat([part.exact for part in parts], dim=-1), torch.cat(moved, dim=-1) if moved else None
    )


class _Table:
    """Rows are cast when they are looked up: in float64 the whole table of a large model would fill gigabytes."""

    def __init__(self, table: Tensor) -> None:
        self._table = table

    def __getitem__(self, ids: Tensor) -> Tensor:
        return self._table[ids].double()


class _Knowing(TorchArrays):
    """float64, with a product's squares known: to the few digits that count, the exact chain has the reference's."""

    def __init__(self, squares: Tensor) -> None:
        super().__init__(torch.float64)
        self._squares = squares

    def linear_squares(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return self._squares


def _knowing(evaluation: Evaluation, squares: Tensor) -> Evaluation:
    return Evaluation(_Knowing(squares), evaluation.inputs, evaluation.parameters, evaluation.settings)
