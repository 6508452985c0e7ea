"""How far rounding alone takes the reference from float64: for each component, isolated and end to end.

Isolated, a component's step is evaluated in float64 on the inputs that the reference gave it. End to end, the whole
chain of steps is evaluated in float64 from the token ids; the modelled floor is what happens to it when every step
is disturbed by as much as its rounding model allows, drawn at random: rounding as another honest order of evaluation
would have it, carried through the network. The worst of several draws counts.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from harness.compare.metrics import Places, counts, views
from harness.compare.tolerance import NOTHING, exceeds, greatest, limit
from harness.errors import GoldensError
from harness.kinds.step import Evaluation, Step
from harness.kinds.table import STEPS
from harness.model import LOGITS, UNIT_ROUNDOFF, Component, Floor, Mode, Views
from harness.record.capture import Captured
from harness.record.decoder import Decoder
from harness.record.keep import select_rows
from harness.record.modules import Call, Copy, is_alone, is_module
from harness.record.torch_arrays import TorchArrays

LEAST_DRAWS, MOST_DRAWS, DRAWN_TOKENS = 3, 16, 64
"""How many disturbed chains: so many that they have DRAWN_TOKENS tokens together, within bounds.

What drives the error of a token end to end is often a single rounding early on, carried through the network: one or
two draws of it may by chance be near zero. Measured with two draws, correct ports came to 11.6 times the floor on
prompts of one and two tokens (benchmarks/false_alarms.py).
"""
DISTURBED = 8
"""How many disturbed copies of a module say what rounding does to it."""
FLOAT64 = TorchArrays(torch.float64)


@dataclass(frozen=True)
class Floors:
    """The floors of one component; composites have no isolated one.

    exact: logits as float64 has them, as float32, where the model has less
    """

    end_to_end: Floor
    isolated: Floor | None = None
    exact: Tensor | None = None


@dataclass(frozen=True)
class Depth:
    """How much is found out. With fewer draws an end-to-end floor is smaller, never larger.

    isolated: whether there are isolated floors; draws: how many disturbed chains, None for as many as a case needs
    """

    isolated: bool = True
    draws: int | None = None


WHOLE = Depth()


@dataclass(frozen=True)
class Recorded:
    """What of one case is recorded.

    name: seeds the draws; case: its inputs, whole
    tokens: the token positions that are recorded, by the name of the case's input that lists them (`kept`)
    logits_at: of these, the ones at which logits are
    seen: (source, which token positions) -> what the reference put out; a key (S) is never left out
    calls: how the reference calls its modules that take in more than a token
    """

    name: str
    dtype: str
    case: Captured
    tokens: Mapping[str, list[int]]
    logits_at: str
    seen: Callable[[str, str, str], Tensor]
    calls: Mapping[str, Call] = field(default_factory=dict)

    @property
    def every_token(self) -> list[int]:
        return list(range(self.case["case.token_ids"].shape[1]))

    def tokens_of(self, component: Component) -> str:
        """Which token positions of a component are recorded."""
        return "query_index" if component.cached else self.logits_at if component.name == LOGITS else "kept"

    def places(self, tokens: str) -> Places:
        real = self.case["case.attention_mask"].numpy() != 0
        return Places(queries=real[:, self.tokens[tokens]], keys=real)

    def select(self, tensor: Tensor, axes: str, tokens: str) -> Tensor:
        return select_rows(tensor, axes, self.tokens[tokens])

    def inputs(self, component: Component) -> Captured:
        """What the reference gave to a component, in float64, at the token positions that are recorded."""
        arguments = STEPS[component.step or ""].arguments
        tokens = self.tokens_of(component)
        return {
            argument: _widened(self.seen(source, arguments[argument], tokens))
            for argument, source in component.inputs.items()
        }


def _widened(value: Tensor) -> Tensor:
    return value.double() if value.is_floating_point() else value


@torch.inference_mode()
def floors(
    decoder: Decoder, components: list[Component], cases: list[Recorded], depth: Depth = WHOLE
) -> Iterator[tuple[Component, list[Floors]]]:
    """Yield each component with its floors in every case, in forward order.

    All cases go through a component together: casting its weights to float64 is as much work as a short prompt.
    """
    parameters = dict(decoder.model.named_parameters())
    in_caches = {component.composite_of for component in components if component.cached}
    chains = [_Chains(recorded, in_caches, depth) for recorded in cases]
    last_use = _last_uses(components)
    for number, component in enumerate(components):
        if component.composite_of is not None:
            yield component, [chain.composite(component) for chain in chains]
            continue
        if is_module(component):
            copy = Copy(decoder, component, cases[0].dtype)
            yield component, [chain.through(component, copy) for chain in chains]
        else:
            own = {role: parameters[name].to(torch.float64) for role, name in component.parameters.items()}
            yield component, [chain.advance(component, own) for chain in chains]
        for chain in chains:
            chain.forget(last_use[number])


class _Chains:
    """Several float64 evaluations of the model side by side in the batch: one exact, the others disturbed.

    in_caches: components that a cache holds, which are recorded at every token as well
    """

    def __init__(self, recorded: Recorded, in_caches: Collection[str | None], depth: Depth) -> None:
        self._recorded, self._in_caches, self._depth = recorded, in_caches, depth
        self._outputs: Captured = {}
        self._drift: dict[tuple[str, str], Floor] = {}
        tokens = int(recorded.case["case.attention_mask"].sum())
        enough = min(max(-(-DRAWN_TOKENS // tokens), LEAST_DRAWS), MOST_DRAWS)
        self._draws = enough if depth.draws is None else depth.draws
        seed = hashlib.sha256(f"{recorded.name}/{recorded.dtype}".encode()).digest()[:7]
        self._noise = torch.Generator().manual_seed(int.from_bytes(seed, "big"))

    def advance(self, component: Component, parameters: Captured) -> Floors:
        """Evaluate the next component: by itself on the reference's inputs, and in the chains."""
        step = STEPS[component.step or ""]
        isolated = self._isolated(component, step, parameters) if self._depth.isolated else None
        inputs = {argument: self._stacked(component, source) for argument, source in component.inputs.items()}
        outputs = step.evaluate(Evaluation(FLOAT64, inputs, parameters, component.settings))
        exact, *disturbed = outputs.chunk(1 + self._draws)
        if disturbed:
            self._disturb(disturbed, step, Evaluation(FLOAT64, inputs, parameters, component.settings), exact)
        return self._advanced(component, outputs, isolated)

    def through(self, component: Component, copy: Copy) -> Floors:
        """The same of a module, whose steps are not known: its copy is what there is to evaluate."""
        alone = is_alone(component) and self._depth.isolated
        isolated = self._isolated_module(component, copy) if alone else None
        every = [dict[str, Tensor]() for _ in range(1 + self._draws)]
        for source in component.inputs.values():
            if source in self._outputs:
                for values, value in zip(every, self._outputs[source].chunk(1 + self._draws), strict=True):
                    values[source] = value
        call = self._call(component, every[0])
        outputs = [copy.exact(call, every[0])]
        outputs += [copy.disturbed(call, values, self._noise) for values in every[1:]]
        return self._advanced(component, torch.cat(outputs), isolated)

    def _call(self, component: Component, values: Captured) -> Call:
        """How the reference calls a module; one that takes in a token alone is called with it."""
        if not is_alone(component):
            return self._recorded.calls[component.name]
        source = component.inputs["x"]
        return Call(((values[source],), {}), {id(values[source]): source})

    def _advanced(self, component: Component, outputs: Tensor, isolated: Floor | None) -> Floors:
        """Keep what the chains put out, the exact one first, and say how far apart they are."""
        self._outputs[component.name] = outputs
        exact, *disturbed = outputs.chunk(1 + self._draws)
        tokens = self._recorded.tokens_of(component)
        also = ["query_index"] if component.name in self._in_caches else []
        for each in dict.fromkeys((tokens, *also)):
            self._drift[component.name, each] = self._drifted(component, exact, disturbed, each)
        more = component.name == LOGITS and self._recorded.dtype != "float32"
        return Floors(self._drift[component.name, tokens], isolated, exact.float() if more else None)

    def _disturb(self, chains: Iterable[Tensor], step: Step, all_chains: Evaluation, exact: Tensor) -> None:
        """Add to each chain what rounding this step may do to the exact one."""
        first = {
            argument: value.chunk(1 + self._draws)[0] if "B" in step.arguments[argument].split() else value
            for argument, value in all_chains.inputs.items()
        }
        sigma = self._sigma(step, all_chains.with_inputs(**first), exact)
        if sigma is not None:
            for chain in chains:
                chain += sigma * torch.randn(sigma.shape, generator=self._noise)

    def composite(self, component: Component) -> Floors:
        """End to end as the component that it hands out."""
        return Floors(self._drift[component.composite_of or "", self._recorded.tokens_of(component)])

    def forget(self, names: list[str]) -> None:
        for name in names:
            self._outputs.pop(name, None)

    def _isolated(self, component: Component, step: Step, parameters: Captured) -> Floor:
        evaluation = Evaluation(FLOAT64, self._recorded.inputs(component), parameters, component.settings)
        output = step.evaluate(evaluation)
        return self._floor_of(component, output, self._sigma(step, evaluation, output))

    def _isolated_module(self, component: Component, copy: Copy) -> Floor:
        """What rounding does to a module is what it does to several disturbed ones, in the mean."""
        values = {component.inputs["x"]: self._recorded.inputs(component)["x"]}
        call = self._call(component, values)
        output = copy.exact(call, values)
        draws = [copy.disturbed(call, values, self._noise) - output for _ in range(DISTURBED)]
        return self._floor_of(component, output, torch.stack(draws).square().mean(0).sqrt())

    def _floor_of(self, component: Component, output: Tensor, sigma: Tensor | None) -> Floor:
        recorded, tokens = self._recorded, self._recorded.tokens_of(component)
        error = recorded.seen(component.name, component.axes, tokens).double() - output
        floor = Floor(
            measured=self._views(component, tokens, error, output),
            modelled=NOTHING if sigma is None else self._views(component, tokens, sigma, output),
        )
        self._check(component, floor, tuple(output.shape))
        return floor

    def _drifted(
        self, component: Component, exact: Tensor, disturbed: Iterable[Tensor], tokens: str
    ) -> Floor:
        """How far the reference, and disturbed chains, are from the exact one."""

        def at_tokens(value: Tensor) -> Tensor:  # logits were evaluated there only
            whole = component.name != LOGITS
            return self._recorded.select(value, component.axes, tokens) if whole else value

        right, spread = at_tokens(exact), NOTHING
        for draw in disturbed:
            spread = greatest(spread, self._views(component, tokens, at_tokens(draw) - right, right))
        error = self._recorded.seen(component.name, component.axes, tokens).double() - right
        return Floor(measured=self._views(component, tokens, error, right), modelled=spread)

    def _views(self, component: Component, tokens: str, error: Tensor, reference: Tensor) -> Views:
        return views(error.numpy(), reference.numpy(), component.axes, self._recorded.places(tokens))

    def _check(self, component: Component, floor: Floor, shape: tuple[int, ...]) -> None:
        """The reference must pass its own model: a larger error is no rounding, and would widen its own tolerance."""
        recorded = self._recorded
        sizes = counts(shape, component.axes, recorded.places(recorded.tokens_of(component)))
        modelled = Floor(floor.modelled, floor.modelled)
        if exceeds(floor.measured, limit(modelled, recorded.dtype, Mode.ISOLATED, component.exact, sizes)):
            raise GoldensError(
                f"{component.name} of the reference is further from float64 than rounding explains, in case "
                f"{recorded.name}, {recorded.dtype}: is a reduced precision switched on for products?"
            )

    def _stacked(self, component: Component, source: str) -> Tensor:
        """A source as each chain has it; a case's own input, for all alike. Of logits, at their tokens only."""
        axes = STEPS[component.step or ""].arguments[
            next(argument for argument, name in component.inputs.items() if name == source)
        ]
        if source in self._outputs:
            value = self._outputs[source]
            at = self._recorded.tokens_of(component)
            return self._recorded.select(value, axes, at) if component.name == LOGITS else value
        own = self._recorded.case[source]
        return own.repeat(1 + self._draws, *(1,) * (own.dim() - 1)) if "B" in axes.split() else own

    def _sigma(self, step: Step, evaluation: Evaluation, output: Tensor) -> Tensor | None:
        """The modelled standard deviation of rounding."""
        if step.variance is None:
            return None
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
