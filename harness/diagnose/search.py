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
    beyond_rounding,
    widened,
    worst_sample,
)
from harness.kinds.precision import rounded
from harness.kinds.step import Evaluation, Hypothesis
from harness.model import UNIT_ROUNDOFF, Floor, Mode, Views
from harness.report.result import ratio

_TOKENS, _CHANNELS = 6, 64
"""How much of a component is looked at first."""
_SLACK = 2.0
"""How much more than the rule allows passes there: views of a part scatter more than those of the whole."""
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
    """The hypotheses that explain all observations of a component. withheld: names that may not be given."""
    candidates = [c for c in candidates_for(problem) if c.name not in withheld]
    parts = [
        worst_sample(problem, o, _TOKENS, _CHANNELS if n == 0 else _CHANNELS // 4)
        for n, o in enumerate(problem.observations)
    ]
    sampled = [c for c in candidates if not c.hypothesis.whole]
    found = _left(problem, sampled, parts)
    if not found:
        found = _left(problem, [c for c in candidates if c.hypothesis.whole], [Sample()] * len(parts))
    if not found:
        found = [c for c in _rounded_answers(problem) if c.name not in withheld]
    return found


def candidates_for(problem: Problem) -> Iterator[Candidate]:
    """Everything that is tried of a component's kind: its step's hypotheses, and other components' parameters."""
    yield from (Candidate(hypothesis) for hypothesis in problem.step.hypotheses)
    yield from (Candidate(hypothesis) for hypothesis in _first_text(problem))
    for donor in problem.donors:
        same = _last(donor.component.name) == _last(problem.component.name)
        name = "parameters_of_another_layer" if same else "parameters_of_another_component"
        roles = tuple(donor.parameters)
        for chosen in {roles, *((role,) for role in roles)}:
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


def _left(problem: Problem, candidates: Sequence[Candidate], parts: Sequence[Sample]) -> list[Candidate]:
    """Those that a part of each observation does not refute, and then the whole of the first one."""
    first, part = problem.observations[0], parts[0]
    baseline = under(problem, first, None, part)
    left = [c for c in candidates if _survives(problem, first, c, part, unlike=baseline)]
    for observation, sample in zip(problem.observations[1:], parts[1:], strict=True):
        left = [c for c in left if _survives(problem, observation, c, sample)]
    return list(_confirmed(problem, left))


def _survives(
    problem: Problem,
    observation: Observation,
    candidate: Candidate,
    sample: Sample,
    unlike: Outcome | None = None,
) -> bool:
    """unlike: the step without a mistake; a hypothesis that makes no difference to it explains nothing.

    Without it, a mistake that cannot be made in this case must have made no difference.
    """
    outcome = under(problem, observation, candidate, sample)
    if outcome is None and unlike is None:
        outcome = under(problem, observation, None, sample)
    if outcome is None or distance(problem, observation, outcome, sample).over_limit > _SLACK:
        return False
    places = sample.places(observation.places)
    return unlike is None or beyond_rounding(
        outcome.output - unlike.output, unlike.output, unlike.sigma, problem, places
    )


def _confirmed(problem: Problem, candidates: Sequence[Candidate]) -> Iterator[Candidate]:
    """Those that the whole of the first observation does not refute either."""
    observation = problem.observations[0]
    for candidate in candidates:
        outcome = under(problem, observation, candidate, Sample())
        found = None if outcome is None else distance(problem, observation, outcome, Sample())
        if found is not None and found.over_limit <= 1:
            yield replace(candidate, left=found.over_floor)


def under(
    problem: Problem, observation: Observation, candidate: Candidate | None, sample: Sample
) -> Outcome | None:
    """A part of the component under a hypothesis, or as the reference has it; None where it cannot be that mistake."""
    step, e = problem.step, observation.evaluation
    hypothesis = candidate.hypothesis if candidate is not None else None
    try:
        if candidate is not None and candidate.donor is not None:
            e = e.with_parameters(**{role: candidate.donor.parameters[role] for role in candidate.roles})
        if hypothesis is not None and hypothesis.change is not None:
            changed = hypothesis.change(e)
            if changed is None:
                return None
            e = changed
        e = sample.cut(step, e)
        if not step.exact:
            e = widened(e)
        evaluate = (hypothesis and hypothesis.evaluate) or step.evaluate
        variance = (hypothesis and hypothesis.variance) or step.variance
        with np.errstate(all="ignore"):
            output = evaluate(e)
            sigma = None if variance is None else np.sqrt(variance(e, output, UNIT_ROUNDOFF[problem.dtype]))
    except (ValueError, IndexError):  # shapes that this mistake cannot be made with
        return None
    if output.shape != sample.of(observation.recorded, problem.component.axes).shape:
        return None
    return Outcome(output.astype(np.float64), sigma)


@dataclass(frozen=True)
class Distance:
    """How far the port's answer is from an outcome, in the worst view: over what passes, and over the noise floor."""

    over_limit: float
    over_floor: float


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
    with np.errstate(invalid="ignore"):
        error = views(np.where(finite, answer - outcome.output, 0.0), outcome.output, axes, places)
    floor, exact = _floor(problem, observation, outcome, sample), outcome.sigma is None
    return Distance(
        ratio(error, allowance(problem, observation, outcome, sample)),
        ratio(error, noise_floor(floor, problem.dtype, exact)),
    )


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
