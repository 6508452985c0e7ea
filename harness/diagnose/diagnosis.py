"""The diagnosis of a replay: what explains its failures, and what they do not show."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.diagnose.decode import explain_decode
from harness.diagnose.explain import explain, family
from harness.diagnose.facts import explain_facts
from harness.diagnose.patterns import cast_orders, low_precision
from harness.diagnose.subject import Subject
from harness.diagnose.wiring import explain_wiring
from harness.errors import GoldensError
from harness.guard.blindness import blind_spots_of_case
from harness.model import Golden, Mode, Verdict
from harness.replay.session import Session
from harness.report.result import Explanation, Result
from harness.weights import Weights

Told = tuple[list[Explanation], list[str]]
"""Explanations of what fails, and what else is to be known of it, a sentence each."""


def diagnose(
    session: Session, folder: Path, results: Sequence[Result], withheld: Collection[str] = ()
) -> Told:
    """Explain a whole replay. folder: the recorded checkpoint; withheld: hypotheses that may not be named."""
    facts = {(fact.component, fact.case, fact.dtype): fact for fact in session.file.select_facts()}
    asked = [facts.get((result.component, result.case, result.dtype)) for result in results]
    told = explain_facts((fact, session.found(fact)) for fact in asked if fact is not None)
    results = [result for result, fact in zip(results, asked, strict=True) if fact is None]
    explanations, notes = _isolated(session, folder, results, withheld)
    explanations += explain_wiring(_subject(session, {}), results)
    in_decode, more = _decode(session, folder, results, withheld)
    explanations += in_decode
    notes += [note for note in more if note not in notes]
    return [*told, *explanations], [*notes, *_blind(session, results)]


def diagnose_one(session: Session, folder: Path, golden: Golden, mode: Mode) -> Told:
    """The same for one golden that fails; what is needed beside it is replayed.

    Isolated, that is its whole family, whose components say something of each other, and which is explained with it.
    """
    results = list(_beside(session, golden, mode))
    if mode is Mode.ISOLATED:
        explanations, notes = _isolated(session, folder, results)
        return explanations, [*notes, *_blind(session, results)]
    if mode is Mode.DECODE:
        explanations, notes = _decode(session, folder, results)
        return explanations, [*notes, *_blind(session, results)]
    return explain_wiring(_subject(session, {}), results), list(_blind(session, results))


def _subject(session: Session, weights: Mapping[str, Any], withheld: Collection[str] = ()) -> Subject:
    return Subject(session.file, session.port, weights, withheld, session.watch)


def _isolated(
    session: Session, folder: Path, results: Sequence[Result], withheld: Collection[str] = ()
) -> Told:
    """What needs the checkpoint's weights. One that cannot be read costs the explanation, and no verdict."""
    try:
        subject = _subject(session, Weights(folder), withheld)
        explanations = explain(subject, results)
        notes = [*low_precision(subject, results, explanations), *cast_orders(subject, results)]
    except GoldensError as error:
        return [], [f"not explained: {error}"]
    return explanations, notes


def _decode(
    session: Session, folder: Path, results: Sequence[Result], withheld: Collection[str] = ()
) -> Told:
    """A whole run of the port's own, for which it is asked once more."""
    if not any(result.verdict is Verdict.FAIL for result in results if result.mode is Mode.DECODE):
        return [], []
    try:
        return explain_decode(_subject(session, Weights(folder), withheld), results), []
    except GoldensError as error:
        return [], [f"not explained: {error}"]


def _beside(session: Session, golden: Golden, mode: Mode) -> Iterator[Result]:
    """Isolated, its family in all cases; in a whole run, what it takes in, and both by themselves."""
    alike = _alike(session, golden, mode)
    for other in session.file.contents.goldens:
        if other.dtype != golden.dtype or not alike(other):
            continue
        if other.isolated is not None:
            yield session.isolated(other)
        if mode is not Mode.ISOLATED:
            yield session.result(other, mode)


def _alike(session: Session, golden: Golden, mode: Mode) -> Callable[[Golden], bool]:
    component = session.file.component(golden.component)
    if mode is Mode.ISOLATED:
        return lambda other: family(session.file.component(other.component)) == family(component)
    wanted = {component.name, component.composite_of, *component.inputs.values()}
    return lambda other: other.case == golden.case and other.component in wanted


def _blind(session: Session, results: Sequence[Result]) -> Iterator[str]:
    """What no case of the replay can show, when something fails."""
    if not any(result.verdict is Verdict.FAIL for result in results):
        return
    inputs = {case.name for case in session.file.contents.cases}  # facts have cases of their own
    cases = [case for case in dict.fromkeys(result.case for result in results) if case in inputs]
    if not cases:
        return
    spots = [blind_spots_of_case(session.file, case) for case in cases]
    for spot in spots[0]:
        if spot.misleads and all(spot.name in {other.name for other in others} for others in spots):
            yield f"{spot.says}: this failure says nothing of {spot.hides}"
