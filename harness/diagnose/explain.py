"""From the results of a replay to what explains its failures."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.compare.files import places
from harness.diagnose.fits import describe
from harness.diagnose.probes import probe
from harness.diagnose.problem import FLOAT64, Array, Donor, Observation, Problem, step_of, wide
from harness.diagnose.search import Candidate, candidates_for, explaining
from harness.diagnose.subject import Subject
from harness.kinds.step import Evaluation
from harness.model import UNIT_ROUNDOFF, Component, Golden, Mode, Verdict
from harness.replay.port import MISWIRED
from harness.report.result import SHAPE, Explanation, Result

_HARDLY, _STRONGER = 100.0, 10.0
"""Up to so many times what passes, a failure is weak evidence beside one that is so many times stronger."""
_MOST_FAILED, _MOST_PASSED = 6, 6
"""How many cases of a component a hypothesis has to hold in, at most."""
_VARIANTS = 4
"""How many variants of one mistake are put into words, at most."""
_ANGLES = "angles"
_NOT_FINITE = "it makes NaN or infinity of what the reference makes numbers of"


@dataclass(frozen=True)
class Finding:
    """What was found for one component: candidates that explain it, or, if none does, a text.

    strength: its largest error over what passes; None if no number could be compared
    named: what it is called by itself, without a candidate
    """

    component: Component
    strength: float | None
    candidates: Sequence[Candidate] = ()
    text: str = ""
    named: Sequence[str] = ()

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys([*self.named, *(candidate.name for candidate in self.candidates)]))

    def explanation(self) -> Explanation:
        of_name = ([c.says for c in self.candidates if c.name == name] for name in self.names)
        said = [words for variants in of_name for words in _some(variants)]
        text = f"one of: {'; '.join(said)}" if len(self.names) > 1 else " or ".join(said)
        left = self.candidates[0].left if len(self.names) == 1 == len(self.candidates) else None
        return Explanation(self.component.name, self.names, text or self.text, left)


def _some(variants: Sequence[str]) -> list[str]:
    """The words for one mistake; of many variants, the first ones."""
    said = list(dict.fromkeys(variants))
    if len(said) <= _VARIANTS:
        return said
    return [*said[: _VARIANTS - 1], f"{len(said) - _VARIANTS + 1} more like it"]


def explain(subject: Subject, results: Iterable[Result]) -> list[Explanation]:
    """An explanation for each component that fails isolated, in the order in which they come."""
    by_component: dict[str, list[Result]] = {}
    for result in results:
        if result.mode is Mode.ISOLATED:
            by_component.setdefault(result.component, []).append(result)
    findings = [
        find(subject, subject.file.component(name), own)
        for name, own in by_component.items()
        if any(result.verdict is Verdict.FAIL for result in own)
    ]
    return [finding.explanation() for finding in together(findings)]


def together(findings: Sequence[Finding]) -> Iterator[Finding]:
    """What the findings say of each other; those without a number say nothing."""
    compared = [finding for finding in findings if finding.strength is not None]
    settled = {f.component.name: f for f in _of_both(list(_agreed(list(_strongest_first(compared)))))}
    for finding in findings:
        yield settled.get(finding.component.name, finding)


def _strongest_first(findings: Sequence[Finding]) -> Iterator[Finding]:
    """What is hardly wrong fits many mistakes: there the component of its kind that is most wrong decides."""
    strongest = {family(f.component): f for f in sorted(findings, key=_strength)}
    for finding in findings:
        best = strongest[family(finding.component)]
        if _strength(finding) > _HARDLY or _strength(best) < _STRONGER * _strength(finding):
            yield finding
            continue
        shared = [candidate for candidate in finding.candidates if candidate.name in best.names]
        text = f"too little is wrong here to tell what: see {best.component.name}, where more is"
        yield replace(finding, candidates=shared, text=text)


def _strength(finding: Finding) -> float:
    return finding.strength or 0.0


def _agreed(findings: Sequence[Finding]) -> Iterator[Finding]:
    """Where several mistakes explain a component and one of them alone explains another of its kind, it is that one."""
    settled = {
        (family(finding.component), finding.names[0]) for finding in findings if len(finding.names) == 1
    }
    for finding in findings:
        known = [name for name in finding.names if (family(finding.component), name) in settled]
        if len(finding.names) > 1 and len(known) == 1:
            left = [candidate for candidate in finding.candidates if candidate.name == known[0]]
            yield replace(finding, candidates=left)
        else:
            yield finding


def _of_both(findings: Sequence[Finding]) -> Iterator[Finding]:
    """Cosines and sines come from the same angles: what fits one of them explains nothing if the other is unexplained.

    Cosines of small angles are alike whatever the angles are.
    """
    unexplained = [f.component.name for f in findings if family(f.component) == _ANGLES and not f.names]
    for finding in findings:
        if unexplained and finding.names and family(finding.component) == _ANGLES:
            fits = finding.explanation().text
            says = f"unexplained: this would fit, and does not fit {unexplained[0]}, which has the same angles: {fits}"
            yield replace(finding, candidates=(), text=says)
        else:
            yield finding


def family(component: Component) -> str:
    """Components that share their code: cosines and sines come from one place."""
    return _ANGLES if component.step in ("cos", "sin") else component.kind


def _named(failure: Result) -> tuple[str, ...]:
    """What a failure without a number is called, if that is plain."""
    names = (("wiring", MISWIRED), ("shape", SHAPE))
    return tuple(name for name, prefix in names if failure.reason.startswith(prefix))


def find(subject: Subject, component: Component, results: Sequence[Result]) -> Finding:
    """What explains a component's isolated failures, in the most exact dtype that it fails in."""
    failed = [result for result in results if result.verdict is Verdict.FAIL]
    compared = [result for result in failed if result.error is not None]
    if not compared:
        text = _NOT_FINITE if failed[0].arisen is not None else failed[0].reason
        return Finding(component, None, text=text, named=_named(failed[0]))
    dtype = min((result.dtype for result in compared), key=UNIT_ROUNDOFF.__getitem__)
    alike = [r for r in results if r.dtype == dtype and r.error is not None]
    strength = max(result.over_limit for result in alike)
    if step_of(component).opaque:
        return Finding(
            component, strength, text="recorded as a module: no step of it is known, so none was tried"
        )
    problem = pose(subject, component, dtype, alike)
    candidates = explaining(problem, subject.withheld)
    if candidates:
        return Finding(component, strength, candidates)
    described = describe(problem, problem.observations[0])
    tried = len({candidate.name for candidate in candidates_for(problem)})
    unexplained = (
        f"unexplained: none of {tried} hypotheses about {component.kind} fits, nor a scale, an offset, another order, "
        "or a few channels or tokens"
    )
    probed = probe(subject, problem)
    return Finding(component, strength, text="; ".join(filter(None, (described or unexplained, probed))))


def pose(subject: Subject, component: Component, dtype: str, results: Sequence[Result]) -> Problem:
    """The problem of one component in one dtype: run the port again on the cases that say most."""
    by_error = sorted(results, key=lambda result: -result.over_limit)
    chosen = [r for r in by_error if r.verdict is Verdict.FAIL][:_MOST_FAILED]
    chosen += [r for r in by_error if r.verdict is Verdict.PASS][-_MOST_PASSED:]
    goldens = {(g.case, g.dtype): g for g in subject.file.contents.goldens if g.component == component.name}
    own = subject.parameters(component.parameters, dtype)
    observations = [
        _observe(subject, component, goldens[result.case, dtype], own, result) for result in chosen
    ]
    return Problem(component, dtype, list(_donors(subject, component, dtype)), observations)


def _observe(
    subject: Subject, component: Component, golden: Golden, parameters: Mapping[str, Array], result: Result
) -> Observation:
    inputs = subject.file.inputs(golden)
    if not step_of(component).exact:
        inputs = {name: wide(x) for name, x in inputs.items()}
    settings = {**subject.facts, **component.settings}
    return Observation(
        golden=golden,
        evaluation=Evaluation(FLOAT64, inputs, parameters, settings),
        answer=subject.answer(golden),
        recorded=subject.file.output(golden),
        places=places(subject.file, golden),
        failed=result.verdict is Verdict.FAIL,
        over_floor=result.over_floor,
    )


def _donors(subject: Subject, component: Component, dtype: str) -> Iterator[Donor]:
    """Every other component with a parameter of the same role and shape."""
    shapes = {parameter.name: parameter.shape for parameter in subject.file.contents.parameters}
    own = {role: shapes.get(name) for role, name in component.parameters.items()}

    def loader(names: Mapping[str, str]) -> Callable[[Collection[str]], dict[str, Array]]:
        return lambda roles: subject.parameters({role: names[role] for role in roles}, dtype)

    for other in subject.file.contents.components:
        shared = {
            role: name
            for role, name in other.parameters.items()
            if name in shapes and shapes[name] == own.get(role) and name != component.parameters[role]
        }
        if shared:
            yield Donor(other, tuple(shared), loader(shared))
