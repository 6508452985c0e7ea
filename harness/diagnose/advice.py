"""Which component to hand out next, where a whole run fails and nobody has looked at what lies before the failure.

A mistake lies in an ancestor of what fails first, or in that itself, and not in an ancestor of what passes. Each
component that is handed out parts these suspects: it passes, and all that it is made of is right, or it fails, and the
mistake is in what it is made of. The one that parts them in halves is the best to hand out next.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from harness.model import LOGITS, Component, Mode, Verdict
from harness.replay.session import NOT_OFFERED
from harness.report.result import Result

_GOOD_ENOUGH = 0.8
"""Of the best part: where the model narrows, as in the residual stream, less passes by what is handed out."""


def advise(components: Sequence[Component], results: Sequence[Result]) -> Iterator[str]:
    """A sentence, or none. components: of the golden file, in forward order; results: of a replay of any modes."""
    if any(result.mode is Mode.ISOLATED and result.is_wrong for result in results):
        return  # the mistake is found
    runs: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        if result.mode is Mode.END_TO_END:
            runs.setdefault((result.case, result.dtype), []).append(result)
    graph = _Graph(components)
    found = [suspects for run in runs.values() if (suspects := graph.suspects(run))]
    if found:
        # Every case that fails shows the same mistake; that one is followed in which it hides least.
        yield from graph.advice(min(found, key=len), [r for run in runs.values() for r in run])
    elif _only_right_logits(runs):
        yield (
            "the logits are right, so nothing has to be looked for: components are worth handing out once they are "
            "not. What may stay unmeasured is listed with --unmeasured 'GLOB=REASON'"
        )


class _Graph:
    """What each component is made of, in the wiring of the golden file."""

    def __init__(self, components: Sequence[Component]) -> None:
        self._order = {component.name: place for place, component in enumerate(components)}
        self._sources = {component.name: component.inputs.values() for component in components}
        self._same = {c.name: c.composite_of for c in components if c.composite_of is not None}
        self._ancestors: dict[str, frozenset[str]] = {}
        for component in components:  # in forward order, so that what it takes in is there already
            if component.composite_of is None:
                taken = (self._ancestors.get(source, frozenset()) for source in component.inputs.values())
                self._ancestors[component.name] = frozenset({component.name}).union(*taken)

    def suspects(self, run: Collection[Result]) -> frozenset[str]:
        """Where the mistake may be that one whole run shows; nowhere, if it shows none."""
        failing = self._named(result for result in run if result.is_wrong)
        if not failing:
            return frozenset()
        passing = self._named(result for result in run if result.verdict is Verdict.PASS)
        first = min(failing, key=self._order.__getitem__)
        return self._ancestors[first].difference(*(self._ancestors[name] for name in passing))

    def advice(self, suspects: frozenset[str], results: Collection[Result]) -> Iterator[str]:
        lacking = {
            result.component
            for result in results
            if result.verdict is Verdict.UNMEASURED and result.reason == NOT_OFFERED
        }
        name = self._parting(suspects, suspects & lacking)
        if name is None:
            return
        before = len(self._ancestors[name] & suspects)
        yield (
            f"offer {name} next: it halves the {len(suspects)} components in which the mistake may be "
            f"({before} if it fails, {len(suspects) - before} if it passes)"
        )

    def _parting(self, suspects: frozenset[str], candidates: Collection[str]) -> str | None:
        """The candidate that parts the suspects most evenly, or nearly so and with the least that passes it by."""
        smaller = {name: self._smaller_part(name, suspects) for name in candidates}
        best = max(smaller.values(), default=0)
        if not best:
            return None
        good = [name for name in candidates if smaller[name] >= _GOOD_ENOUGH * best]
        return min(
            good, key=lambda name: (self._passing_by(name, suspects), -smaller[name], -self._order[name])
        )

    def _smaller_part(self, name: str, suspects: frozenset[str]) -> int:
        before = len(self._ancestors[name] & suspects)
        return min(before, len(suspects) - before)

    def _passing_by(self, name: str, suspects: frozenset[str]) -> int:
        """How many of the values before a component go to suspects after it by another way."""
        before = self._ancestors[name] & suspects - {name}
        after = suspects - self._ancestors[name]
        return len(before & {source for other in after for source in self._sources[other]})

    def _named(self, results: Iterable[Result]) -> set[str]:
        """Their components, a composite as what it hands out."""
        names = (self._same.get(result.component, result.component) for result in results)
        return {name for name in names if name in self._ancestors}


def _only_right_logits(runs: Mapping[tuple[str, str], Sequence[Result]]) -> bool:
    """Whether the logits pass in all whole runs, and nothing else was measured in any."""
    results = [result for run in runs.values() for result in run]
    logits = [result for result in results if result.component == LOGITS]
    others = [result for result in results if result.component != LOGITS]
    return (
        bool(logits and others)
        and all(result.verdict is Verdict.PASS for result in logits)
        and all(result.verdict is Verdict.UNMEASURED for result in others)
    )
