"""The diagnosis of a replay: what explains its failures, and what they do not show."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from harness.audit.blindness import blind_spots_of_case
from harness.diagnose.explain import explain
from harness.diagnose.patterns import cast_orders, low_precision
from harness.diagnose.subject import Subject
from harness.diagnose.wiring import explain_wiring
from harness.errors import GoldensError
from harness.model import Golden, Mode, Verdict
from harness.replay.session import Session
from harness.report.result import Explanation, Result
from harness.weights import Weights

_TELLING = ("single token", "identical tokens")
"""What cases may lack that makes a failure look like another one."""


def diagnose(
    session: Session, folder: Path, results: Sequence[Result], withheld: Collection[str] = ()
) -> tuple[list[Explanation], list[str]]:
    """Explanations of what fails, and what else is to be known of it, a sentence each.

    folder: the recorded checkpoint; withheld: hypotheses that may not be named
    A checkpoint that cannot be read costs the explanation, and no verdict.
    """
    try:
        weights = Weights(folder)
    except GoldensError as error:
        return [], [f"not explained: {error}"]
    subject = Subject(session.file, session.port, weights, withheld)
    explanations = [*explain(subject, results), *explain_wiring(subject, results)]
    notes = [*low_precision(subject, results), *cast_orders(subject, results), *_blind(subject, results)]
    return explanations, notes


def diagnose_one(
    session: Session, folder: Path, golden: Golden, mode: Mode
) -> tuple[list[Explanation], list[str]]:
    """The same for a single golden that fails in a mode: what is needed beside it is replayed."""
    return diagnose(session, folder, list(_beside(session, golden, mode)))


def _beside(session: Session, golden: Golden, mode: Mode) -> Iterator[Result]:
    """Isolated, the component in its other cases; end to end, what it takes in, and both by themselves."""
    goldens = session.file.contents.goldens
    if mode is Mode.ISOLATED:
        for other in goldens:
            if (other.component, other.dtype) == (golden.component, golden.dtype):
                yield session.isolated(other)
        return
    wanted = {golden.component, *session.file.component(golden.component).inputs.values()}
    for other in goldens:
        if (other.case, other.dtype) == (golden.case, golden.dtype) and other.component in wanted:
            if other.isolated is not None:
                yield session.isolated(other)
            yield session.end_to_end(other)


def _blind(subject: Subject, results: Sequence[Result]) -> Iterator[str]:
    """What no case of the replay can show, when something fails."""
    if not any(result.verdict is Verdict.FAIL for result in results):
        return
    cases = list(dict.fromkeys(result.case for result in results))
    spots = [blind_spots_of_case(subject.file, case) for case in cases]
    for spot in spots[0]:
        if spot.name in _TELLING and all(spot.name in {other.name for other in others} for others in spots):
            yield f"{spot.says}: this failure says nothing of {spot.hides}"
