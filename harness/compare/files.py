"""Do two golden files say the same? What was recorded of, and every tensor, in units of the noise floor."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from harness.checkpoints import meaningful
from harness.compare.judge import judge
from harness.compare.metrics import Places
from harness.model import Golden, Mode, Verdict
from harness.report.result import Result
from harness.store.reader import GoldenFile


@dataclass(frozen=True)
class Agreement:
    """terms: what differs beside numbers, a sentence each; results: every golden that both files have."""

    terms: list[str]
    results: list[Result]

    @property
    def differing(self) -> list[Result]:
        return [result for result in self.results if result.verdict is not Verdict.PASS]

    @property
    def holds(self) -> bool:
        return not self.terms and not self.differing

    @property
    def worst(self) -> Result:
        """The golden that is nearest to its limit, or furthest beyond."""
        return max(self.results, key=lambda result: result.over_limit)


def places(file: GoldenFile, golden: Golden) -> Places:
    """Which of the places that a golden holds are those of real tokens."""
    inputs = file.case_inputs(golden.case)
    real = inputs["attention_mask"] != 0
    return Places(queries=real[:, inputs[golden.tokens]], keys=real)


def compare_files(old: GoldenFile, new: GoldenFile) -> Agreement:
    """Hold `new` against `old`, by the end-to-end floors of `old`: both were recorded end to end."""
    terms = list(_terms(old, new))
    theirs = _goldens(new)
    results = [
        judge(
            old.component(golden.component),
            golden,
            Mode.END_TO_END,
            new.output(theirs[key]),
            old.output(golden),
            places(old, golden),
        )
        for key, golden in _goldens(old).items()
        if key in theirs and not terms
    ]
    return Agreement(terms, results)


def _goldens(file: GoldenFile) -> dict[tuple[str, str, str], Golden]:
    return {(golden.component, golden.case, golden.dtype): golden for golden in file.contents.goldens}


def _terms(old: GoldenFile, new: GoldenFile) -> Iterator[str]:
    """What must be the same before numbers can be compared."""
    yield from _changes("setting", *(meaningful(file.contents.config) for file in (old, new)))
    for what, attribute in (("parameter", "parameters"), ("component", "components")):
        before, after = (
            {entry.name: entry for entry in getattr(file.contents, attribute)} for file in (old, new)
        )
        yield from _changes(what, before, after)
    yield from _changes("case", _cases(old), _cases(new))
    yield from _changes("golden", dict.fromkeys(_goldens(old)), dict.fromkeys(_goldens(new)))
    yield from _changes("fact", _facts(old), _facts(new))


def _facts(file: GoldenFile) -> dict[tuple[str, str], Any]:
    return {(fact.component, fact.case): fact for fact in file.contents.facts}


def _cases(file: GoldenFile) -> dict[str, Any]:
    """Each case as its inputs' bytes: where these lie in the file is no part of it."""
    return {
        case.name: {name: file.tensors[row].sha256 for name, row in case.inputs.items()}
        for case in file.contents.cases
    }


def _changes(what: str, before: Mapping[Any, Any], after: Mapping[Any, Any]) -> Iterator[str]:
    for verb, names in (
        ("gone", before.keys() - after.keys()),
        ("new", after.keys() - before.keys()),
        ("changed", {name for name in before.keys() & after.keys() if before[name] != after[name]}),
    ):
        if names:
            listed = sorted("/".join(name) if isinstance(name, tuple) else str(name) for name in names)
            more = f" and {len(listed) - 5} more" if len(listed) > 5 else ""
            yield f"{what} {verb}: {', '.join(listed[:5])}{more}"
