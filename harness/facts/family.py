"""What a family of facts is: how a port is asked for one, and how its answer is compared. Imports nothing heavy."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.model import Fact, Mode, Verdict

Weights = Mapping[str, Any]


@dataclass(frozen=True)
class Found:
    """What became of a port's answer.

    reason: why it fails, or what is to be known of a pass (a near tie); one sentence, which names what differs
    hypotheses, text: the mistake that explains a failure, by name and in words; several that cannot be told apart.
        Without words: so little is wrong that it fits these and says nothing by itself
    """

    verdict: Verdict
    reason: str = ""
    hypotheses: tuple[str, ...] = ()
    text: str = ""


PASSED = Found(Verdict.PASS)


def wrong(reason: str, *hypotheses: str, text: str = "") -> Found:
    """A failure, with the mistake that explains it if one does."""
    return Found(Verdict.FAIL, reason, hypotheses, text)


@dataclass(frozen=True)
class Context:
    """What is known beside a fact.

    dtype: of the port; weights: the recorded checkpoint's tensors, None where it is not at hand
    session: the replay session (`harness.replay.session.Session`), for what else the port did on a case
    """

    dtype: str
    weights: Weights | None
    session: Any = None


@dataclass(frozen=True)
class Family:
    """A family of facts.

    ask: (port, fact) -> the port's answer; raises `harness.replay.port.NotOffered`, saying which method is lacking
    judge: (fact, answer, context) -> what became of it
    mode: the replay that it belongs to: isolated, unless the port runs token by token
    every_dtype: the answer depends on the dtype that the port was made with
    """

    name: str
    ask: Callable[[Any, Fact], Any]
    judge: Callable[[Fact, Any, Context], Found]
    mode: Mode = Mode.ISOLATED
    every_dtype: bool = False
