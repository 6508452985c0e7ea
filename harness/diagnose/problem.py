"""What a diagnosis starts from: a failed component, what went in, what came out, and what the reference has there."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from harness.compare.metrics import Places
from harness.kinds.numpy_arrays import NumpyArrays
from harness.kinds.step import Evaluation, Step
from harness.kinds.table import STEPS
from harness.model import Component, Golden

Array = Any
FLOAT64 = NumpyArrays(np.float64)


@dataclass(frozen=True)
class Observation:
    """What the port made of one golden's inputs.

    evaluation: the step as the reference takes it on them. Inputs and vectors are float64; matrices are as they are
        stored, to be widened when a part of them has been chosen
    answer, recorded: what port and reference put out, in the component's axes
    over_floor: how far they are apart, in noise floors
    """

    golden: Golden
    evaluation: Evaluation
    answer: Array
    recorded: Array
    places: Places
    failed: bool
    over_floor: float


@dataclass(frozen=True)
class Donor:
    """Another component whose parameters the port may have used, since they have the same shapes.

    roles: which of them; load: reads some of them, role -> tensor
    """

    component: Component
    roles: tuple[str, ...]
    load: Callable[[Collection[str]], Mapping[str, Array]]


@dataclass(frozen=True)
class Problem:
    """One component in one dtype, with everything that was seen of it there.

    observations: the worst failure first
    """

    component: Component
    dtype: str
    donors: Sequence[Donor]
    observations: Sequence[Observation]

    slack: ClassVar[float] = 1.0
    """How many times what the rule allows may be left under the right name."""

    @property
    def step(self) -> Step:
        return step_of(self.component)


def step_of(component: Component) -> Step:
    return STEPS[component.step or ""]


@dataclass(frozen=True)
class Sample:
    """Some tokens and some channels of a component, to look at first. None takes all of them."""

    tokens: Array | None = None
    channels: Array | None = None

    @property
    def is_all(self) -> bool:
        return self.tokens is None and self.channels is None

    def of(self, tensor: Array, axes: str) -> Array:
        """The part of an output."""
        letters = axes.split()
        if self.tokens is not None and "T" in letters:
            tensor = np.take(tensor, self.tokens, axis=letters.index("T"))
        return tensor if self.channels is None else tensor[..., self.channels]

    def places(self, places: Places) -> Places:
        return places if self.tokens is None else Places(places.queries[:, self.tokens], places.keys)

    def cut(self, step: Step, e: Evaluation) -> Evaluation:
        """The evaluation of that part."""
        if self.tokens is not None:
            tokens = Sample(tokens=self.tokens)
            e = e.with_inputs(**{name: tokens.of(x, step.arguments[name]) for name, x in e.inputs.items()})
        if self.channels is not None:
            e = e.with_parameters(
                **{role: e.parameters[role][self.channels] for role in step.by_output if role in e.parameters}
            )
        return e


def widened(e: Evaluation) -> Evaluation:
    """Every parameter as float64."""
    return replace(e, parameters={role: wide(x) for role, x in e.parameters.items()})


def wide(x: Array) -> Array:
    """Numbers as float64; token ids and masks as they are."""
    return x if np.issubdtype(x.dtype, np.integer) else x.astype(np.float64, copy=False)


def worst_sample(problem: Problem, observation: Observation, tokens: int, channels: int) -> Sample:
    """Where the port is furthest off, and a few other places, spread evenly."""
    axes = problem.component.axes
    letters = axes.lower().split()
    valid = observation.places.valid(axes)
    with np.errstate(invalid="ignore"):
        error = observation.answer.astype(np.float64) - observation.recorded.astype(np.float64)
    error = np.where(valid & np.isfinite(error), error, 0.0)
    places = np.flatnonzero(observation.places.queries.any(axis=0))
    powers = np.einsum(f"{''.join(letters)},{''.join(letters)}->t", error, error)[places]
    chosen = places[_worst_and_spread(powers, tokens)]
    if not problem.step.by_output:
        return Sample(tokens=chosen)
    of_channels = np.einsum(f"{''.join(letters)},{''.join(letters)}->{letters[-1]}", error, error)
    return Sample(tokens=chosen, channels=_worst_and_spread(of_channels, channels))


def _worst_and_spread(powers: Array, count: int) -> Array:
    """Indices of half of `count` largest, and as many spread evenly; all if there are few."""
    if len(powers) <= count:
        return np.arange(len(powers))
    worst = np.argpartition(powers, -(count // 2))[-(count // 2) :]
    spread = np.linspace(0, len(powers) - 1, count - count // 2).astype(int)
    return np.unique(np.concatenate((worst, spread)))
