"""The search for the one mistake that explains a failed component.

A hypothesis explains a failure if what the port put out is what the step gives under that mistake, by the same rule
that judged it: no view of the difference may exceed k noise floors, those of the step under the hypothesis. It has to
hold in every case that was seen, in those that passed too. Most hypotheses are refuted by a few tokens and channels;
only what is left is evaluated in full.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from harness.compare.metrics import counts, views
from harness.compare.tolerance import NOTHING, limit, noise_floor
from harness.diagnose.problem import (
    Array,
    Donor,
    Observation,
    Problem,
    Sample,
    widened,
    worst_sample,
)
from harness.kinds.precision import rounded
from harness.kinds.step import Evaluation, Hypothesis
from harness.model import UNIT_ROUNDOFF, Floor, Mode, Views
from harness.report.result import ratio

_TOKENS, _CHANNELS = 6, 64
"""How much of a component is looked at first."""
_GLANCE = (2, 16)
"""Tokens and channels that are looked at before that."""
_TINY = 1e-300
_SLACK = 2.0
"""How much more than the rule allows passes there: views of a part scatter more than those of the whole."""
_FALL = 4.0
"""What explains an error makes it this many times smaller: much else makes a few noise floors less than k of them."""
_SAME = 0.98
"""The share of elements in which a rounded answer is the rounded right one."""
_PRECISIONS = ("bfloat16", "float16")


@dataclass(frozen=True)
class Candidate:
    """A hypothesis as it is tried.

    donor: whose parameters it says were used, and which of them
    left: the error that is left under it, in noise floors, once it has been held against a whole output
    """

    hypothesis: Hypothesis
    donor: Donor | None = None
    roles: tuple[str, ...] = ()
    left: float | None = None

    @property
    def name(self) -> str:
        return self.hypothesis.name

    @property
    def says(self) -> str:
        if self.donor is None:
            return self.hypothesis.says
        what = " and ".join(self.roles)
        return f"{what} of {self.donor.component.name}"


@dataclass(frozen=True)
class Outcome:
    """A component under a hypothesis. output, sigma: float64; sigma is None where nothing is rounded."""

    output: Array
    sigma: Array | None


def explaining(problem: Problem, withheld: Collection[str] = ()) -> list[Candidate]:
    """The hypotheses that explain all observations of a component. withheld: names that may not be given.

    First the mistakes of the component's own kind, then other components' parameters, which are many, and in the end
    what takes every token to be tried.
    """
    glance = _Glance(problem)
    own = list(_own(problem))
    at_once = [candidate for candidate in own if not candidate.hypothesis.whole]
    for candidates in (at_once, _donated(problem), [c for c in own if c.hypothesis.whole]):
        found = _left(problem, [c for c in candidates if c.name not in withheld and glance.allows(c)])
        if found:
            return found
    return [c for c in _rounded_answers(problem) if c.name not in withheld]


def candidates_for(problem: Problem) -> Iterator[Candidate]:
    """Everything that is tried of a component's kind."""
    yield from _own(problem)
    yield from _donated(problem)


def _own(problem: Problem) -> Iterator[Candidate]:
    """The hypotheses of the step."""
    yield from (Candidate(hypothesis) for hypothesis in problem.step.hypotheses)
    yield from (Candidate(hypothesis) for hypothesis in _first_text(problem))


def _donated(problem: Problem) -> Iterator[Candidate]:
    """Parameters of each other component that has the same shapes: all of them, or one."""
    for donor in problem.donors:
        same = _last(donor.component.name) == _last(problem.component.name)
        name = "parameters_of_another_layer" if same else "parameters_of_another_component"
        roles = donor.roles
        for chosen in dict.fromkeys((roles, *((role,) for role in roles))):
            yield Candidate(Hypothesis(name, ""), donor, chosen)


def _last(name: str) -> str:
    """What a component is called within its layer's part: the same in all layers."""
    return name.rpartition(".")[2]


def _first_text(problem: Problem) -> Iterator[Hypothesis]:
    """What belongs to one text of a batch used for all: any argument may be."""
    for argument, axes in problem.step.arguments.items():
        if "B" in axes.split():
            yield Hypothesis(
                "first_row_for_all",
                f"{argument} of the batch's first text used for all texts",
                change=partial(_of_first_text, argument),
            )


def _of_first_text(argument: str, e: Evaluation) -> Evaluation | None:
    given = e.inputs[argument]
    return e.with_inputs(**{argument: np.broadcast_to(given[:1], given.shape)}) if len(given) > 1 else None


class _Glance:
    """A few of the most wrong elements, which most hypotheses do not even make less wrong.

    Rows and channels are looked at in proportion to their size, and either may tell: a mistake of small ones drowns in
    the rounding of large ones.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem, self._observation = problem, problem.observations[0]
        self._sample = worst_sample(problem, self._observation, *_GLANCE)
        axes = problem.component.axes
        self._answer = self._sample.of(self._observation.answer, axes).astype(np.float64)
        places = self._sample.places(self._observation.places)
        self._valid = np.broadcast_to(places.valid(axes), self._answer.shape)
        letters = axes.split()
        self._views = [
            tuple(n for n, letter in enumerate(letters) if (letter in "BT") == by_channel)
            for by_channel in (False, True)
        ]
        right = _evaluated(problem, self._observation, None, self._sample)
        assert right is not None, "the step itself can always be evaluated"
        self._sizes = [np.sum(np.where(self._valid, right[1], 0.0) ** 2, axis=view) for view in self._views]
        self._before = self._errors(right[1])

    def allows(self, candidate: Candidate) -> bool:
        """Whether the hypothesis halves the error of the worst row, or of the worst channel. Some need every token."""
        if candidate.hypothesis.whole:
            return True
        found = _evaluated(self._problem, self._observation, candidate, self._sample)
        if found is None or found[1].shape != self._answer.shape:
            return False
        after = self._errors(found[1])
        return any(not new > old / 4 for new, old in zip(after, self._before, strict=True))

    def _errors(self, output: Array) -> list[float]:
        """The largest square of a relative error, of rows and of channels."""
        with np.errstate(all="ignore"):
            squares = np.where(self._valid, self._answer - output, 0.0) ** 2
            return [
                float(np.max(np.sum(squares, axis=view) / np.maximum(size, _TINY)))
                for view, size in zip(self._views, self._sizes, strict=True)
            ]


def _left(problem: Problem, candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those that a part of each observation does not refute, and then the whole of the first one."""
    left = list(candidates)
    for number, observation in enumerate(problem.observations):
        if left:
            part = worst_sample(problem, observation, _TOKENS, _CHANNELS if number == 0 else _CHANNELS // 4)
            left = [c for c in left if _survives(problem, observation, c, part)]
    return list(_confirmed(problem, left))


def _survives(problem: Problem, observation: Observation, candidate: Candidate, part: Sample) -> bool:
    """A mistake that cannot be made in a case must have made no difference there."""
    part = Sample() if candidate.hypothesis.whole else part
    outcome = under(problem, observation, candidate, part) or under(problem, observation, None, part)
    return outcome is not None and distance(problem, observation, outcome, part).over_limit <= _SLACK


def _confirmed(problem: Problem, candidates: Sequence[Candidate]) -> Iterator[Candidate]:
    """Those that the whole of the first observation does not refute either."""
    observation = problem.observations[0]
    for candidate in candidates:
        outcome = under(problem, observation, candidate, Sample())
        if outcome is not None:
            found = distance(problem, observation, outcome, Sample())
            if explains(found, observation.over_floor, problem.slack):
                yield replace(candidate, left=found.over_floor)


def under(
    problem: Problem, observation: Observation, candidate: Candidate | None, sample: Sample
) -> Outcome | None:
    """A part of the component under a hypothesis, or as the reference has it; None where it cannot be that mistake."""
    found = _evaluated(problem, observation, candidate, sample)
    if found is None or found[1].shape != sample.of(observation.recorded, problem.component.axes).shape:
        return None
    e, output = found
    variance = (candidate and candidate.hypothesis.variance) or problem.step.variance
    with np.errstate(all="ignore"):
        sigma = None if variance is None else np.sqrt(variance(e, output, UNIT_ROUNDOFF[problem.dtype]))
    return Outcome(output.astype(np.float64), sigma)


def _evaluated(
    problem: Problem, observation: Observation, candidate: Candidate | None, sample: Sample
) -> tuple[Evaluation, Array] | None:
    """What is evaluated under a hypothesis, and what comes out; None if the shapes do not allow for the mistake."""
    step, e = problem.step, observation.evaluation
    hypothesis = candidate.hypothesis if candidate is not None else None
    try:
        if candidate is not None and candidate.donor is not None:
            e = e.with_parameters(**candidate.donor.load(candidate.roles))
        if hypothesis is not None and hypothesis.change is not None:
            changed = hypothesis.change(e)
            if changed is None:
                return None
            e = changed
        e = sample.cut(step, e)
        if not step.exact:
            e = widened(e)
        with np.errstate(all="ignore"):
            return e, ((hypothesis and hypothesis.evaluate) or step.evaluate)(e)
    except (ValueError, IndexError):
        return None


@dataclass(frozen=True)
class Distance:
    """How far the port's answer is from an outcome, in the worst view: over what passes, and over the noise floor."""

    over_limit: float
    over_floor: float


def explains(found: Distance, before: float, slack: float = 1.0) -> bool:
    """Whether what is left is rounding. before: how far the answer is from the right output, in noise floors."""
    return found.over_limit <= slack and found.over_floor * _FALL <= before


def distance(
    problem: Problem, observation: Observation, outcome: Outcome, sample: Sample, answer: Array | None = None
) -> Distance:
    """By the rule that judges components. answer: the part of the port's answer, if it is not cut out yet."""
    axes, places = problem.component.axes, sample.places(observation.places)
    if answer is None:
        answer = sample.of(observation.answer, axes).astype(np.float64)
    finite = np.isfinite(answer)
    if not np.array_equal(finite, np.isfinite(outcome.output)):
        return Distance(np.inf, np.inf)
    floor = noise_floor(_floor(problem, observation, outcome, sample), problem.dtype, outcome.sigma is None)
    with np.errstate(invalid="ignore"):
        difference = np.where(finite, answer - outcome.output, 0.0)
    error = views(difference, outcome.output, axes, places, least=floor.whole)
    return Distance(ratio(error, allowance(problem, observation, outcome, sample)), ratio(error, floor))


def _floor(problem: Problem, observation: Observation, outcome: Outcome, sample: Sample) -> Floor:
    recorded = observation.golden.isolated
    places = sample.places(observation.places)
    modelled = (
        NOTHING
        if outcome.sigma is None
        else views(outcome.sigma, outcome.output, problem.component.axes, places)
    )
    return Floor(NOTHING if recorded is None else recorded.measured, modelled)


def allowance(problem: Problem, observation: Observation, outcome: Outcome, sample: Sample) -> Views:
    """The largest difference from an outcome that rounding explains, view by view."""
    sizes = counts(outcome.output.shape, problem.component.axes, sample.places(observation.places))
    floor = _floor(problem, observation, outcome, sample)
    return limit(floor, problem.dtype, Mode.ISOLATED, outcome.sigma is None, sizes)


def _rounded_answers(problem: Problem) -> Iterator[Candidate]:
    """A lower precision shows in the answer itself: it is the right one rounded, element for element."""
    failed = [observation for observation in problem.observations if observation.failed]
    for precision in _PRECISIONS:
        if UNIT_ROUNDOFF[precision] > UNIT_ROUNDOFF[problem.dtype] and all(
            _is_rounded(problem, observation, precision) for observation in failed
        ):
            yield Candidate(Hypothesis(f"output_rounded_{precision}", f"output rounded to {precision}"))
            return  # what is coarse is fine as well


def _is_rounded(problem: Problem, observation: Observation, precision: str) -> bool:
    """A number may have been rounded the other way where it was nearly between two."""
    outcome = under(problem, observation, None, Sample())
    if outcome is None:
        return False
    valid = np.broadcast_to(observation.places.valid(problem.component.axes), outcome.output.shape)
    answer, right = observation.answer.astype(np.float64)[valid], outcome.output[valid]
    with np.errstate(all="ignore"):
        same, moved = answer == rounded(right, precision), answer != right
    return bool(moved.any() and same.mean() > _SAME and same[moved].mean() > _SAME)
