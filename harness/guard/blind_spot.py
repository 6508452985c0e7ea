"""A blind spot: something that a golden file, or one case of it, cannot show. numpy only."""

from dataclasses import dataclass
from typing import Any

from harness.store.reader import GoldenFile

RANDOMIZED = "add a `[[randomized]]` entry"
CHECKPOINT = "only another checkpoint can show it"


@dataclass(frozen=True)
class BlindSpot:
    """What cannot be seen.

    name: of what is lacking, `single token`; says: the same as a clause, "every case is one token"
    hides: the mistakes that pass; remedy: what to record to catch them
    misleads: a failure in such a case looks like that of another mistake
    """

    name: str
    says: str
    hides: str
    remedy: str
    misleads: bool = False

    def __str__(self) -> str:
        return f"{self.says}: hides {self.hides}; {self.remedy}"


def recorded_positions(file: GoldenFile, case: str) -> Any:
    """The token positions at which something of a case is recorded (T); of a text that was written, the cache is."""
    inputs = file.case_inputs(case)
    return inputs["query_index" if file.case(case).parts else "kept"]


def add_case(file: GoldenFile, name: str) -> str:
    """The remedy of a built-in case; of a drawn one where that case was not enough."""
    there = any(case.name == name for case in file.contents.cases)
    return RANDOMIZED if there else f"add the case `{name}`"
