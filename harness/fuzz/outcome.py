"""What a fuzz found, which is also what `goldens fuzz --json` writes. Imports nothing heavy."""

from typing import Self

import msgspec

from harness.fuzz.drawn import Drawn
from harness.model import Verdict
from harness.report.result import Run, writable

FORMAT = 1


class Input(msgspec.Struct, frozen=True):
    """An input as prompts files have it. says: the same in words."""

    rows: list[list[int]]
    padding: str
    start_position: int
    says: str

    @classmethod
    def of(cls, drawn: Drawn) -> Self:
        return cls([list(row) for row in drawn.rows], drawn.padding, drawn.start, drawn.says)


class Failure(msgspec.Struct, frozen=True):
    """smallest, found: the least input that fails, and the first one that did
    run: the replay of the smallest by the whole rule, in every mode that was asked for and isolated
    both: of both inputs, where the smallest alone leaves open what explains it
    configuration: in what a checkpoint can be simpler on which the smallest still fails
    """

    smallest: Input
    found: Input
    run: Run
    both: Run | None = None
    configuration: list[str] = []


class Unmeasured(msgspec.Struct, frozen=True):
    """A component that was compared in no input. listed: why it may be so, if somebody said so."""

    component: str
    reason: str
    listed: str = ""


class Fuzz(msgspec.Struct, frozen=True):
    """inputs: how many were held against the reference before one failed; shrinking: how many after it
    longest: tokens of the longest row among them; rows: the most rows; position: the farthest one
    cut: time was over before all inputs were drawn; command: repeats it; saved: where the input was written to
    """

    format: int
    checkpoint: str
    port: str
    dtype: str
    modes: list[str]
    seed: int
    verdict: Verdict
    inputs: int
    shrinking: int
    longest: int
    rows: int
    position: int
    seconds: float
    cut: bool
    command: str
    unmeasured: list[Unmeasured] = []
    failure: Failure | None = None
    saved: str = ""

    @property
    def holds(self) -> bool:
        return self.verdict is Verdict.PASS

    def to_json(self) -> bytes:
        return msgspec.json.encode(writable(msgspec.to_builtins(self)))
