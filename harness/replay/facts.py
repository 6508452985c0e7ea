"""Facts: a port asked for what it makes of settings, texts and logits, and its answer compared."""

from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import GoldensError, told
from harness.facts.family import Context, Found, wrong
from harness.facts.table import FAMILIES
from harness.model import FactIn, Verdict
from harness.replay.port import NotOffered
from harness.report.result import Explanation, Result
from harness.weights import Weights

if TYPE_CHECKING:
    from harness.replay.session import Session


def replay_fact(session: "Session", fact: FactIn) -> Found:
    """What became of a port's answer. Whatever the port raises is a failure of what it was asked."""
    family = FAMILIES[fact.fact.family]
    try:
        answer = family.ask(session.port(fact.dtype), fact.fact)
    except NotOffered as error:
        return Found(Verdict.UNMEASURED, str(error))
    except GoldensError:
        raise
    except Exception as error:
        return wrong(f"the port raised {told(error)}")
    return family.judge(fact.fact, answer, Context(fact.dtype, session.weights, session))


def result_of(fact: FactIn, found: Found) -> Result:
    family = FAMILIES[fact.fact.family]
    return Result(
        component=fact.component,
        kind=family.name,
        case=fact.case,
        dtype=fact.dtype,
        mode=family.mode,
        verdict=found.verdict,
        reason=found.reason,
    )


def explanation_of(fact: FactIn, found: Found) -> Explanation | None:
    """The mistake that explains a failure, if one does."""
    if found.verdict is not Verdict.FAIL or not found.text:
        return None
    return Explanation(fact.component, list(found.hypotheses), found.text)


def weights_in(folder: Path | None) -> Weights | None:
    """The recorded checkpoint's tensors, if it is at hand and can be read."""
    try:
        return None if folder is None else Weights(folder)
    except GoldensError:
        return None
