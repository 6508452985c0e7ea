"""What follows from all that tests told: a run for each golden file and port, and what is said of it."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from msgspec.structs import replace

from harness.model import Verdict
from harness.plugin.told import Collected, Told
from harness.report.arisen import where_arisen
from harness.report.result import Explanation, Picture, Place, Run
from harness.report.wording import amount, counted, explained, failure_line, headline


@dataclass(frozen=True)
class Conclusion:
    """One golden file held against one port. uncompared: tests that failed without a verdict

    absent: why not all that was selected was compared; empty if it was
    """

    label: str
    run: Run
    uncompared: int
    absent: str

    def lines(self) -> Iterator[str]:
        """The verdicts counted, and the first wrong component in forward order."""
        run = self.run
        yield f"{self.label}: {self._counts()}"
        if self.absent:
            yield f"  {self.absent}"
        if run.first_wrong is not None:
            wrong = run.result(run.first_wrong)
            yield f"  {failure_line(wrong)}"
            told = [headline(wrong, run.results, run.order), *explained(run, wrong.component)]
            yield from (f"    {line}" for line in [*told, *where_arisen(run.results, run.order)])

    def _counts(self) -> str:
        """`4 pass, 5 fail, 2 unmeasured (1 listed), 1 could not be compared`; the last only if there are such."""
        counts = self.run.counts | {Verdict.UNMEASURED: self.run.counts[Verdict.UNMEASURED] - self.uncompared}
        told = counted(replace(self.run, counts=counts))
        return told + (f", {self.uncompared} could not be compared" if self.uncompared else "")


def conclude(told: Collection[Told], collected: Collected | None, crashed: bool) -> list[Conclusion]:
    """collected: None if no process came to tell what it collected; crashed: whether one did not."""
    concluded = []
    files = [*(collected.files if collected is not None else ()), *(each.file for each in told)]
    for file in dict.fromkeys(files):
        of_file = sorted((each for each in told if each.file == file), key=lambda each: (each.key, each.port))
        absent = _absent(file, len(of_file), collected, crashed)
        by_port = _by_port(of_file)
        for port, members in by_port.items():
            label = f"{file} on {port}" if len(by_port) > 1 else file
            gravest = _gravest(members)
            uncompared = sum(not (each.compared or each.skipped) for each in gravest)
            run = _run(file, port, gravest, collected, absent)
            concluded.append(Conclusion(label, run, uncompared, absent))
    return concluded


def _absent(file: str, told: int, collected: Collected | None, crashed: bool) -> str:
    of_file = collected.files.get(file) if collected is not None else None
    left = max(of_file.selected - told, 0) if of_file is not None else 0
    why = (
        [f"{left} of {of_file.selected} selected tests did not run to their end"] if of_file and left else []
    )
    why += ["a worker process crashed"] if crashed else []
    return f"incomplete: {', and '.join(why)}" if why else ""


def _by_port(told: Collection[Told]) -> dict[str, list[Told]]:
    """In their order. Tests that ended before they had a port are counted with the first one that there was."""
    first = next((each.port for each in told if each.port), "")
    by_port: dict[str, list[Told]] = {}
    for each in told:
        by_port.setdefault(each.port or first, []).append(each)
    return by_port


def _run(file: str, port: str, told: Sequence[Told], collected: Collected | None, absent: str) -> Run:
    """As a replay makes one. What was left out stands in its notes, and is no pass."""
    of_file = collected.files.get(file) if collected is not None else None
    by_place = {each.place: each.result.component for each in told}
    order = of_file.order if of_file is not None else [by_place[place] for place in sorted(by_place)]
    run = Run.from_results(file, port, [each.result for each in told], order)
    notes = dict.fromkeys(note for each in told for note in each.notes)
    run = replace(
        run,
        explanations=_explanations(told, order),
        notes=[*([absent] if absent else []), *where_arisen(run.results, order), *notes],
        verdict=Verdict.FAIL if absent else run.verdict,
    )
    if collected is None or of_file is None:
        return run
    return replace(
        run,
        digest=of_file.digest,
        recorded=of_file.recorded,
        environment=collected.environment,
        pictures=_pictures(run, collected),
    )


def _pictures(run: Run, collected: Collected) -> list[Picture]:
    """Those that one process would have kept of all."""
    mine = [each for each in collected.pictured if (each.file, each.port) == (run.golden, run.port)]
    pictures = {picture.place: picture for each in mine for picture in each.pictures}
    if not pictures:
        return []
    from harness.compare.pictures import Pictures

    kept = Pictures(run.order)
    for result in run.results:
        place = Place(result.component, result.case, result.dtype, result.mode)
        if place in pictures:
            kept.keep(result, partial(pictures.__getitem__, place))
    return kept.all()


def _gravest(told: Collection[Told]) -> list[Told]:
    """One for each comparison: of several tests of the same, the gravest."""
    gravest: dict[tuple[int, int, int, int], Told] = {}
    for each in told:
        known = gravest.get(each.key)
        if known is None or _gravity(each) > _gravity(known):
            gravest[each.key] = each
    return list(gravest.values())


def _gravity(told: Told) -> int:
    return (Verdict.PASS, Verdict.UNMEASURED, Verdict.FAIL).index(told.result.verdict)


def _explanations(told: Sequence[Told], order: Sequence[str]) -> list[Explanation]:
    """Each once: a family of components is explained together, in each of its tests."""
    explanations: list[Explanation] = []
    for each in told:
        explanations += [told for told in each.explanations if told not in explanations]
    return sorted(explanations, key=lambda explanation: order.index(explanation.component))


def missing_runs(collected: Collected | None) -> Iterator[Run]:
    """A golden file that is not there is in the report, too, and is no pass."""
    for file, sentence in (collected.missing if collected is not None else {}).items():
        yield replace(Run.from_results(file, "", [], []), notes=[sentence])


def margins(runs: Collection[Run], number: int) -> Iterator[str]:
    """The comparisons that are nearest to their limit, on either side of it, the nearest first."""
    results = [result for run in runs for result in run.results if 0 < result.over_limit < float("inf")]
    if not number:
        return
    yield f"nearest to their limit, {min(number, len(results))} of {len(results)} with an error"
    for result in sorted(results, key=lambda result: max(result.over_limit, 1 / result.over_limit))[:number]:
        place = Place(result.component, result.case, result.dtype, result.mode)
        yield f"  {amount(result.over_limit)} x limit   {place.component}   {place.case} {place.dtype} {place.mode}"
