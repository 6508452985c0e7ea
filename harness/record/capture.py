"""Run the reference once, and prove of every tensor that passes by that it is what its component's step gives.

A product that torch's own `Linear` made of the very tensor in memory that the wiring names is proved by that. All else
is evaluated again, and has to be bit-equal.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor

from harness.compare.metrics import Places
from harness.errors import GoldensError
from harness.kinds.step import Evaluation, Step
from harness.kinds.table import STEPS, at_keys
from harness.model import LOGITS, Component
from harness.record.decoder import Decoder, module_of, reset_frequencies
from harness.record.modules import is_alone, put_out
from harness.record.paced import Paced
from harness.record.sections import Section
from harness.record.torch_arrays import TorchArrays
from harness.record.watch import Captured, Passing, Product, Watch, watching, x_of


@dataclass(frozen=True)
class Past:
    """What was read before: the reference's cache, and what it holds by the components that were written to it."""

    cache: Any
    held: Captured


@torch.inference_mode()
def capture(
    decoder: Decoder, components: list[Component], case: Captured, past: Past | None = None
) -> Captured:
    """component name -> what the reference put out for `case`, in the model's dtype.

    case: `case.token_ids`, `case.attention_mask`, `case.positions`, `case.query_index`.
    past: what the cache holds of earlier tokens; then what is taken in at every key (`k_expanded`) has T = S
    Raises GoldensError if a component, evaluated on the inputs its wiring names, is not bit-equal to the reference.
    """
    passing = _passed(decoder, components, case, past)
    _prove(decoder, components, passing, {} if past is None else past.held)
    return passing.seen


class Passes:
    """Forward passes over several cases, which go through the model together: one layer of it at a time.

    A context manager: what has not come to its end is left there.
    """

    def __init__(self, decoder: Decoder, components: list[Component], cases: list[Captured]) -> None:
        self._decoder, self._components = decoder, components
        self._passing = [Passing(dict(case)) for case in cases]
        self._paced = [Paced(partial(self._run, passing)) for passing in self._passing]
        self._watch = Watch(Passing({}))
        for passing, paced in zip(self._passing, self._paced, strict=True):
            passing.reached = paced.stop

    def __enter__(self) -> Self:
        self._watching = watching(self._decoder, self._components, self._watch)
        self._watching.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        for paced in self._paced:
            paced.close()
        self._watching.__exit__(None, None, None)

    @property
    def seen(self) -> list[Captured]:
        """What passed by, of each case."""
        return [passing.seen for passing in self._passing]

    def forget(self, names: list[str]) -> None:
        """What nothing takes in any more."""
        for seen in self.seen:
            for name in names:
                seen.pop(name, None)

    def reach(self, section: Section) -> None:
        """Run to the end of the next section, and prove what passed by there. Raises GoldensError as `capture` does."""
        for passing, paced in zip(self._passing, self._paced, strict=True):
            self._watch.now = passing
            before = _versions(passing.seen)
            paced.go_on()
            self._watch.now = Passing(
                {}
            )  # modules that are called to be proved or evaluated are none of a pass
            after = _versions(passing.seen)
            for name in (name for name in before if before[name] != after[name]):
                raise GoldensError(
                    f"{name} of {type(self._decoder.model).__name__} is written over later in the forward pass, "
                    "which cannot be recorded yet"
                )
            with torch.inference_mode():
                _prove(self._decoder, section.components, passing, {})
            passing.products.clear()
            for component in section.components:
                passing.seen.pop(x_of(component), None)

    def _run(self, passing: Passing) -> None:
        with torch.no_grad():  # counts, unlike inference mode, how often a tensor is written to
            _forward(self._decoder, passing, None)


def _versions(seen: Captured) -> dict[str, int]:
    """How often each tensor was written to, of those that count it."""
    return {name: value._version for name, value in seen.items() if not value.is_inference()}


def _prove(decoder: Decoder, components: list[Component], passing: Passing, held: Captured) -> None:
    seen = passing.seen
    for component in unproved(decoder, components, seen, held, passing.products):
        raise GoldensError(
            f"{component.name} of {type(decoder.model).__name__} is not {_said(component)}: the reference computes "
            "something else there, which cannot be recorded yet"
        )
    for component in components:
        _refuse_nan(component, seen[component.name], seen["case.attention_mask"])


def _said(component: Component) -> str:
    return f"the step {component.step!r} on {', '.join(component.inputs.values())}"


@torch.inference_mode()
def run(decoder: Decoder, components: list[Component], case: Captured, past: Past | None = None) -> Captured:
    """What passes by of the components; some pass nowhere."""
    return _passed(decoder, components, case, past).seen


def _passed(decoder: Decoder, components: list[Component], case: Captured, past: Past | None) -> Passing:
    passing = Passing(dict(case))
    with watching(decoder, components, Watch(passing)):
        _forward(decoder, passing, past)
    return passing


def _forward(decoder: Decoder, passing: Passing, past: Past | None) -> None:
    if past is None:
        reset_frequencies(decoder)
    seen = passing.seen
    output = decoder.model(
        input_ids=seen["case.token_ids"],
        attention_mask=seen["case.attention_mask"],
        position_ids=seen["case.positions"],
        past_key_values=None if past is None else past.cache,
        use_cache=past is not None,
    )
    seen[LOGITS] = output.logits


@torch.inference_mode()
def unproved(
    decoder: Decoder,
    components: list[Component],
    seen: Captured,
    held: Captured,
    products: Mapping[str, Product] | None = None,
) -> Iterator[Component]:
    """Hold every captured tensor against its own evaluation, and evaluate the few that nothing lets see.

    Expanded keys and values and the scores pass only inside the attention function; that the probabilities and the
    context evaluated from them are bit-equal to the captured ones is what proves them. Yields the components whose
    evaluation is another one. products: those that were seen to be made
    """
    keys = at_keys(components) if held else frozenset()
    xp = TorchArrays(decoder.dtype)
    for component in components:
        if component.composite_of is not None:
            seen[component.name] = seen[component.composite_of]
            continue
        if component.step is None:  # a module: what it took in is what its wiring says
            if "x" in component.inputs and not _equal(seen[component.inputs["x"]], seen[x_of(component)]):
                yield component
            continue
        inputs = {argument: seen[source] for argument, source in component.inputs.items()}
        made = (products or {}).get(component.name)
        if made is not None and made.is_of(inputs["x"], seen[component.name]):
            continue
        if component.name in keys:
            inputs["x"] = _with_past(held, component.inputs["x"], inputs["x"], STEPS[component.step])
        if is_alone(component):
            output = put_out(component, module_of(decoder, component.name)(inputs["x"]))
        else:
            own = {role: decoder.parameters[name] for role, name in component.parameters.items()}
            output = STEPS[component.step].evaluate(Evaluation(xp, inputs, own, component.settings))
        if component.name in keys:
            output = output.contiguous()  # as the reference's cache is: a product may round by how it lies
        recorded = seen.setdefault(component.name, output)
        if _equal(recorded, output):
            continue
        if recorded.dim() == 4 and _equal(recorded.transpose(1, 2), output):  # norms take heads either way
            seen[component.name] = recorded.transpose(1, 2)
            continue
        yield component


def _with_past(held: Captured, source: str, own: Tensor, step: Step) -> Tensor:
    """What the cache held of a component, and its output now."""
    return torch.cat((held[source], own), dim=step.arguments["x"].split().index("T"))


def _refuse_nan(component: Component, recorded: Tensor, attention_mask: Tensor) -> None:
    """Nothing can be compared with NaN or infinity. float16 overflows for real; then where it does is compared."""
    if recorded.dtype == torch.float16 or recorded.sum().isfinite():
        return
    keys = attention_mask.numpy() != 0
    tokens = recorded.shape[component.axes.split().index("T")]
    real = Places(queries=keys[:, -tokens:], keys=keys)
    strange = ~torch.isfinite(recorded) & torch.from_numpy(real.valid(component.axes))
    if strange.any():
        raise GoldensError(
            f"{component.name} is NaN or infinite in {int(strange.sum())} of {strange.numel()} elements of the "
            "reference: is the checkpoint whole?"
        )


def _equal(a: Tensor, b: Tensor) -> bool:
    """Number for number; float16 overflows for real, so NaN is equal to NaN."""
    alike = a.shape == b.shape and a.dtype == b.dtype
    return alike and (torch.equal(a, b) or torch.allclose(a, b, rtol=0, atol=0, equal_nan=True))
