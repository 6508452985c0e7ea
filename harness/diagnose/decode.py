"""Failures in decode: components that are right by themselves, and wrong where a port runs token by token.

What a cache does not hold, `harness.replay.miswritten` has told, slot by slot. Every other component is held against
what it took in at the same tokens as the port itself handed it out, in all slots, those too that no token was written
to. So nothing but its own rounding is in the way of the hypotheses about its step, and of those about decode.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
from msgspec.structs import replace as changed

from harness.diagnose.decoded import DecodedCase
from harness.diagnose.explain import Finding, together
from harness.diagnose.fits import describe
from harness.diagnose.in_decode import InDecode
from harness.diagnose.problem import Observation, Sample
from harness.diagnose.search import Candidate, distance, explaining, under
from harness.diagnose.subject import Subject
from harness.kinds.step import Hypothesis
from harness.kinds.table import at_keys
from harness.model import UNIT_ROUNDOFF, Component, Mode, Verdict
from harness.replay.miswritten import SAYS
from harness.replay.session import Session
from harness.report.result import Explanation, Result

_CASE = "case."
_MOST_FAILED, _MOST_PASSED = 3, 2
"""In how many cases a hypothesis has to hold, at most: each is run once more."""

Cases = Callable[[str], DecodedCase | None]
"""A case by its name as the port decodes it; None where it raises something."""


def explain_decode(subject: Subject, results: Sequence[Result]) -> list[Explanation]:
    """An explanation for each component that fails in decode, and not because of what it takes in."""
    suspects = list(_suspects(subject, results))
    if not suspects:
        return []
    dtype = min((result.dtype for result in suspects), key=UNIT_ROUNDOFF.__getitem__)
    session = Session(subject.file, subject.port, watch=subject.watch)
    cases = cache(lambda case: DecodedCase.of(subject, session, case, dtype))
    by_component: dict[str, list[Result]] = {}
    for result in suspects:
        if result.dtype == dtype:
            by_component.setdefault(result.component, []).append(result)
    passed = [r for r in results if (r.mode, r.dtype, r.verdict) == (Mode.DECODE, dtype, Verdict.PASS)]
    findings = []
    for name, failed in by_component.items():
        right = [result.case for result in passed if result.component == name]
        findings.append(_find(subject, cases, subject.file.component(name), failed, right))
    return [_in_decode(finding.explanation()) for finding in together(findings)]


def _in_decode(explanation: Explanation) -> Explanation:
    """By itself it is right, which its name would not tell."""
    if explanation.text in SAYS.values():
        return explanation
    return changed(explanation, text=f"in decode, {explanation.text}")


def _suspects(subject: Subject, results: Sequence[Result]) -> Iterator[Result]:
    """Failures in decode of components that do not fail by themselves, and take in nothing that fails."""
    failed = [result for result in results if result.verdict is Verdict.FAIL]
    by_themselves = {(r.component, r.dtype) for r in failed if r.mode is Mode.ISOLATED}
    in_decode = {(r.component, r.case, r.dtype): r for r in failed if r.mode is Mode.DECODE}
    for result in in_decode.values():
        component = subject.file.component(result.component)
        if not component.step and not component.cached:
            continue
        names = _sources(subject, component)
        sources = [in_decode.get((name, result.case, result.dtype)) for name in names]
        if component.cached:  # both fail alike where it was put out rightly, and not written
            sources = [source for source in sources if source and source.reason != result.reason]
        if (result.component, result.dtype) not in by_themselves and not any(sources):
            yield result


def _sources(subject: Subject, component: Component) -> list[str]:
    """What it takes in; of what is expanded at every key, also what the cache holds of it."""
    written = [component.composite_of] if component.composite_of else []
    names = [name for name in component.inputs.values() if not name.startswith(_CASE)]
    components = {each.name: each for each in subject.file.contents.components}
    expanded = [components[name] for name in at_keys(components.values()).intersection(names)]
    return [*written, *names, *(source for each in expanded for source in each.inputs.values())]


def _find(
    subject: Subject, cases: Cases, component: Component, failed: Sequence[Result], right: Sequence[str]
) -> Finding:
    written = subject.file.component(component.composite_of) if component.composite_of else component
    runs = [run for result in failed[:_MOST_FAILED] if (run := cases(result.case)) is not None]
    troubles = [run.decoded.miswritten.get(written.name) for run in runs]
    told = {result.reason for result in failed}
    found = [trouble for trouble in troubles if trouble is not None and trouble.says in told]
    names = [
        name for name in (found[0].hypotheses if found else ()) if all(name in t.hypotheses for t in found)
    ]
    if names:
        named = [Candidate(Hypothesis(name, SAYS[name])) for name in names if name not in subject.withheld]
        return Finding(component, None, named, failed[0].reason)
    held = bool(found) or component.cached
    others = [run for case in right[-_MOST_PASSED:] if (run := cases(case)) is not None]
    observations = [seen for run in (*runs, *others) if (seen := run.observe(written, held)) is not None]
    if not observations:
        return Finding(component, None, text=failed[0].reason)
    return _explained(subject, component, written, observations, held)


def _explained(
    subject: Subject,
    component: Component,
    written: Component,
    observations: Sequence[Observation],
    held: bool,
) -> Finding:
    """written: the component whose step is looked at: what a cache holds is what that should have put out."""
    problem = _measured(InDecode(written, observations[0].golden.dtype, [], observations))
    if not problem.observations[0].failed:
        return _consistent(subject, component, problem)
    candidates = explaining(problem, subject.withheld)
    if held:
        candidates = [_cached(candidate) for candidate in candidates]
    if candidates:
        return Finding(component, problem.observations[0].over_floor, candidates)
    described = describe(problem, problem.observations[0])
    unexplained = (
        f"unexplained: no hypothesis about {component.kind} fits what it makes there of what it takes in"
    )
    return Finding(component, None, text=described or unexplained)


def _cached(candidate: Candidate) -> Candidate:
    says = f"what is cached is {candidate.says}"
    return replace(candidate, hypothesis=replace(candidate.hypothesis, says=says))


def _measured(problem: InDecode) -> InDecode:
    """With how far each answer is from what the step gives; the furthest first."""
    seen = []
    for observation in problem.observations:
        right = under(problem, observation, None, Sample())
        assert right is not None, "the step itself can always be evaluated"
        found = distance(problem, observation, right, Sample())
        seen.append(replace(observation, failed=found.over_limit > 1, over_floor=found.over_floor))
    return replace(problem, observations=sorted(seen, key=lambda each: -each.over_floor))


def _consistent(subject: Subject, component: Component, problem: InDecode) -> Finding:
    """It gives what it should of what it takes in: empty slots, or drift."""
    name = "empty_slots_read"
    empty = any(
        not np.isfinite(x).all() for seen in problem.observations for x in seen.evaluation.inputs.values()
    )
    if empty and name not in subject.withheld:
        says = "slots that nothing was written to are read, and 0 x NaN is NaN"
        return Finding(component, None, [Candidate(Hypothesis(name, says))])
    return Finding(component, None, text="it gives what it should of what it takes in: drift")
