"""One case in float64: each component by itself on what the reference gave it, and chains of them side by side.

One chain is exact. The others are disturbed, and kept as how far they are from it, in float32: a product is linear, so
what it makes of a distance needs no float64, and neither does the distance of what the reference gave a component from
what the exact chain did. `steps` evaluates both, `tally` sums up how far apart they are.
"""

from collections.abc import Collection
from functools import cached_property, reduce

import torch
from torch import Tensor

from harness.compare.metrics import counts
from harness.compare.tolerance import NOTHING, exceeds, greatest, limit
from harness.errors import GoldensError
from harness.kinds.step import Evaluation
from harness.kinds.table import STEPS
from harness.model import LOGITS, UNIT_ROUNDOFF, Component, Floor, Mode
from harness.record.floors import Depth, Floors, Recorded
from harness.record.modules import Call, Copy, is_alone
from harness.record.noise import Noise, seed_of
from harness.record.spread import Spread, beside
from harness.record.steps import Factor, Product, Steps, Weights
from harness.record.tally import Tally
from harness.record.tiles import TILE, rows_of
from harness.record.watch import Captured

LEAST_DRAWS, MOST_DRAWS, DRAWN_TOKENS = 3, 16, 64
"""How many disturbed chains: so many that they have DRAWN_TOKENS tokens together, within bounds.

What drives the error of a token end to end is often a single rounding early on, carried through the network: one or
two draws of it may by chance be near zero. Measured with two draws, correct ports came to 11.6 times the floor on
prompts of one and two tokens (benchmarks/false_alarms.py).
"""
DISTURBED = 8
"""How many disturbed copies of a module say what rounding does to it."""


class Chains:
    """in_caches: components that a cache holds, which are recorded at every token as well."""

    def __init__(self, recorded: Recorded, in_caches: Collection[str | None], depth: Depth) -> None:
        self.recorded, self.in_caches, self.depth = recorded, in_caches, depth
        self.outputs: dict[str, Spread] = {}
        self.drift: dict[tuple[str, str], Floor] = {}
        tokens = int(recorded.case["case.attention_mask"].sum())
        enough = min(max(-(-DRAWN_TOKENS // tokens), LEAST_DRAWS), MOST_DRAWS)
        self.draws = enough if depth.draws is None else depth.draws
        self.generator = torch.Generator().manual_seed(seed_of(recorded.name, recorded.dtype))

    def noise(self, component: Component, *place: int) -> Noise:
        """Of rounding somewhere in a component."""
        recorded = self.recorded
        return Noise(recorded.name, recorded.dtype, component.name, *map(str, place))

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
            moved.append((copy.disturbed(call, values, self.generator) - exact).float())
        at.put_out(Spread(exact, torch.stack(moved) if moved else None))
        return at.end()

    def _alone(self, at: "At", component: Component, copy: Copy) -> None:
        """What rounding does to a module is what it does to several disturbed ones, in the mean."""
        values = {component.inputs["x"]: self.recorded.inputs(component)["x"].double()}
        call = self._call(component, values)
        output = copy.exact(call, values)
        draws = [copy.disturbed(call, values, self.generator) - output for _ in range(DISTURBED)]
        at.by_itself(output, torch.stack(draws).square().mean(0))

    def _call(self, component: Component, values: Captured) -> Call:
        """How the reference calls a module; one that takes in a token alone is called with it."""
        if not is_alone(component):
            return self.recorded.calls[component.name]
        source = component.inputs["x"]
        return Call(((values[source],), {}), {id(values[source]): source})


ALONE, CHAINED = "alone", "chained"
"""Groups of errors: measured and modelled; of the reference, and of each disturbed chain, against the exact one."""


class At:
    """The chains at one component, whose outputs may be evaluated in parts."""

    def __init__(self, chains: Chains, component: Component, handed_on: bool) -> None:
        self._chains, self._component, self._handed_on = chains, component, handed_on
        self._recorded, self._tokens = chains.recorded, chains.recorded.tokens_of(component)
        also = ["query_index"] if component.name in chains.in_caches else []
        self._seen = {
            tokens: self._recorded.seen(component.name, component.axes, tokens)
            for tokens in dict.fromkeys((self._tokens, *also))
        }
        self._tallies = {tokens: self._tally(tokens) for tokens in self._seen}
        self._parts: list[Spread] = []
        self._exact: list[Tensor] = []

    def _tally(self, tokens: str) -> Tally:
        places = self._recorded.places(tokens)
        return Tally(tuple(self._seen[tokens].shape), self._component.axes, places, self._positions(tokens))

    def _positions(self, tokens: str) -> list[int]:
        """Of recorded rows among those that are evaluated: logits are at their tokens only."""
        found = self._recorded.tokens[tokens]
        return list(range(len(found))) if self._component.name == LOGITS else found

    def evaluate(self, weights: Weights) -> None:
        """A part of the outputs, by itself and in the chains."""
        step = self._product(weights) if self._component.step == "linear" else self._steps(weights)
        part = weights.outputs
        if self._chains.depth.isolated:
            for tile in step.tiles_alone:
                self._alone(step, part, tile)
        chained = [self._chained(step, part, tile) for tile in step.tiles]
        if self._handed_on:
            self._parts.append(step.together(chained))
        if self._is_kept_exact:
            self._exact.append(torch.cat([spread.exact.float() for spread in chained], 1))

    @property
    def _is_kept_exact(self) -> bool:
        return self._component.name == LOGITS and self._recorded.dtype != "float32"

    def _product(self, weights: Weights) -> Product:
        return Product(self._component, self._factor, weights, self._chains.draws)

    def _steps(self, weights: Weights) -> Steps:
        seen = self._seen[self._tokens]
        size = seen.numel() // max(1, len(self._recorded.tokens[self._tokens]))
        return Steps(self._component, self._given, self._recorded.inputs(self._component), weights, size)

    @cached_property
    def _factor(self) -> Factor:
        isolated = self._chains.depth.isolated
        given = self._recorded.inputs(self._component)["x"] if isolated else None
        return Factor(self._given["x"], given, self._positions(self._tokens))

    @property
    def _given(self) -> dict[str, Spread]:
        """What the chains take in; of logits, at their tokens only."""
        arguments = STEPS[self._component.step or ""].arguments
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
        select = self._recorded.select
        moved = None if value.moved is None else select(value.moved, f"N {axes}", self._tokens)
        return Spread(select(value.exact, axes, self._tokens), moved)

    def _alone(self, step: Product | Steps, part: slice, tile: slice) -> None:
        evaluation, output = step.alone(tile)
        self._isolated(output, self._variance(evaluation, output), part, tile)

    def _isolated(self, output: Tensor, variance: Tensor | None, part: slice, rows: slice) -> None:
        """Rows in float64, on what the reference gave the component."""
        seen = rows_of(self._seen[self._tokens], self._component.axes, rows)[..., part]
        tally, squares = self._tallies[self._tokens], None if variance is None else variance.numpy()
        tally.add(ALONE, rows, part, output.numpy(), seen.float().numpy(), variance=squares)

    def _chained(self, step: Product | Steps, part: slice, tile: slice) -> Spread:
        evaluation, output = step.exact(tile)
        variance = self._variance(evaluation, output)
        noise = self._chains.noise(self._component, part.start or 0, tile.start)
        draws, at_once = self._chains.draws, max(1, TILE // max(1, output.numel()))
        moved = []
        for first in range(0, draws, at_once):
            distances = step.moved(tile, output, first, min(at_once, draws - first))
            if variance is not None:
                distances = noise.disturbing(distances, variance)
            moved.append(distances)
        spread = Spread(output, torch.cat(moved) if len(moved) > 1 else next(iter(moved), None))
        self._apart(spread, part, tile)
        return spread

    def _variance(self, evaluation: Evaluation, output: Tensor) -> Tensor | None:
        """Of rounding, as it is modelled."""
        variance = STEPS[self._component.step or ""].variance
        if variance is None:
            return None
        return variance(evaluation, output, UNIT_ROUNDOFF[self._recorded.dtype]).expand_as(output)

    def _apart(self, spread: Spread, part: slice, tile: slice) -> None:
        """How far the reference and the disturbed chains are from the exact one."""
        for tokens, tally in self._tallies.items():
            rows = tally.among(tile)
            if rows.start == rows.stop:
                continue
            chosen = spread.at(tally.picked(tile, rows), self._component.axes)
            seen = rows_of(self._seen[tokens], self._component.axes, rows)[..., part]
            moved = None if chosen.moved is None else chosen.moved.numpy()
            tally.add(CHAINED, rows, part, chosen.exact.numpy(), seen.float().numpy(), moved)

    def by_itself(self, output: Tensor, variance: Tensor) -> None:
        """All of a module's output in float64, on what the reference gave it."""
        rows, part = slice(0, output.shape[1]), slice(None)
        self._isolated(output, variance, part, rows)

    def put_out(self, outputs: Spread) -> None:
        """All of a module's output in the chains."""
        self._apart(outputs, slice(None), slice(0, outputs.exact.shape[1]))
        self._parts.append(outputs)

    def end(self) -> Floors:
        """What all parts come to."""
        component, chains = self._component, self._chains
        if self._handed_on:
            chains.outputs[component.name] = beside(self._parts)
        for tokens in self._tallies:
            chains.drift[component.name, tokens] = self._drifted(tokens)
        isolated, alone = None, self._tallies[self._tokens].views(ALONE)
        if alone:
            isolated = Floor(measured=alone[0], modelled=(*alone, NOTHING)[1])
            self._check(isolated)
        exact = torch.cat(self._exact, dim=-1) if self._exact else None
        return Floors(chains.drift[component.name, self._tokens], isolated, exact)

    def _drifted(self, tokens: str) -> Floor:
        reference, *others = self._tallies[tokens].views(CHAINED)
        return Floor(measured=reference, modelled=reduce(greatest, others, NOTHING))

    def _check(self, floor: Floor) -> None:
        """The reference must pass its own model: a larger error is no rounding, and would widen its own tolerance."""
        component, recorded = self._component, self._recorded
        sizes = counts(tuple(self._seen[self._tokens].shape), component.axes, recorded.places(self._tokens))
        modelled = Floor(floor.modelled, floor.modelled)
        if exceeds(floor.measured, limit(modelled, recorded.dtype, Mode.ISOLATED, component.exact, sizes)):
            raise GoldensError(
                f"{component.name} of the reference is further from float64 than rounding explains, in case "
                f"{recorded.name}, {recorded.dtype}: is a reduced precision switched on for products?"
            )
