"""What an audit finds, as `goldens audit --json` writes it. Imports nothing heavy."""

import enum
from collections.abc import Iterable
from typing import Self

import msgspec

from harness.report.result import writable

FORMAT = 1
LOADING = "loading"


class Verdict(enum.StrEnum):
    """What became of a fault. Equivalent ones are missed by everything, rightly."""

    CAUGHT = "caught"
    MISSED = "missed"
    EQUIVALENT = "equivalent"
    NOT_PLANTED = "not planted"


class Naming(enum.StrEnum):
    """How the diagnosis named a fault that was caught. None: it was caught before any component ran."""

    NAMED = "named"
    ONE_OF = "one of"
    NOT_NAMED = "not named"
    WRONG = "wrong"
    NONE = ""


class Effect(msgspec.Struct, frozen=True):
    """How much a missed fault changes, in the worst view of the worst golden.

    modes: those in which anything was compared, or families of facts; where there is none, nothing is known

    over_floor, over_limit: in noise floors, and in what passes
    component, case: where; exact: every answer is bit by bit that of the port without the fault
    float64: computed in float64 from the reference; else measured between the port with and without the fault
    """

    over_floor: float
    over_limit: float
    component: str
    case: str
    exact: bool
    float64: bool
    modes: list[str] = []


class FaultResult(msgspec.Struct, frozen=True):
    """One fault, planted into a port and replayed against one golden file.

    planting: `answer`, `overrides`, `rewired`, `config`, `checkpoint`, `method` or `source`; a fault of the port's
        source may have the name of one of the catalogue
    mode: what caught it first: `loading`, `isolated`, `end-to-end`, `decode`, or a family of facts: `chat template`
    first: the first wrong component or fact, planted: whether the fault is in it; of a fault caught when loading,
        nothing
    cases: those in which it is caught; where whole runs are replayed, the first one
    namable: whether any hypothesis is known to be its right name
    hypotheses, text: what the diagnosis says of the first wrong component
    misnamed: where the name is wrong, the component that has it, and what is said of it
    reason: why it is missed, equivalent or not planted
    """

    fault: str
    area: str
    says: str
    planting: str
    verdict: Verdict
    mode: str = ""
    first: str = ""
    planted: bool = False
    cases: list[str] = []
    naming: Naming = Naming.NONE
    namable: bool = False
    hypotheses: list[str] = []
    text: str = ""
    misnamed: str = ""
    reason: str = ""
    effect: Effect | None = None

    @property
    def ran(self) -> bool:
        """Whether it was caught by what the port did: one caught when loading has no first wrong component."""
        return self.verdict is Verdict.CAUGHT and self.mode != LOADING

    @property
    def key(self) -> tuple[str, str]:
        """Which fault it is, in all golden files alike."""
        return self.planting, self.fault


class Audit(msgspec.Struct, frozen=True):
    """The faults of the catalogue against one golden file in one dtype.

    score: the share of the faults that it catches, of all that can be planted and are not equivalent
    JSON has numbers that are not finite as text, as `harness.report.result` says.
    """

    format: int
    golden: str
    port: str
    dtype: str
    score: float
    counts: dict[Verdict, int]
    results: list[FaultResult]

    @classmethod
    def from_results(cls, golden: str, port: str, dtype: str, results: Iterable[FaultResult]) -> Self:
        results = list(results)
        counts = {verdict: sum(result.verdict is verdict for result in results) for verdict in Verdict}
        return cls(FORMAT, golden, port, dtype, score(results), counts, results)

    def to_json(self) -> bytes:
        return msgspec.json.encode(writable(msgspec.to_builtins(self)))


def score(results: Iterable[FaultResult]) -> float:
    """Caught, of those caught or missed; each fault counts once, and is caught if any golden file catches it."""
    verdicts: dict[tuple[str, str], set[Verdict]] = {}
    for result in results:
        verdicts.setdefault(result.key, set()).add(result.verdict)
    caught = sum(Verdict.CAUGHT in found for found in verdicts.values())
    missed = sum(Verdict.MISSED in found and Verdict.CAUGHT not in found for found in verdicts.values())
    return caught / (caught + missed) if caught + missed else 0.0


def unplanted(results: Iterable[FaultResult]) -> tuple[int, int]:
    """How many faults there are, and how many of them no golden file has a place for."""
    verdicts: dict[tuple[str, str], set[Verdict]] = {}
    for result in results:
        verdicts.setdefault(result.key, set()).add(result.verdict)
    return len(verdicts), sum(found == {Verdict.NOT_PLANTED} for found in verdicts.values())


def witness(missed: FaultResult, audits: Iterable[Audit]) -> str:
    """The golden file and case that catch a fault that another one misses; empty if none does."""
    for audit in audits:
        for result in audit.results:
            if result.key == missed.key and result.verdict is Verdict.CAUGHT:
                return f"{audit.golden}{f' ({result.cases[0]})' if result.cases else ''}"
    return ""
