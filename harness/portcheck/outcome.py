"""What a port offers, and where it contradicts itself, as `goldens check-port --json` writes it.

Imports nothing heavy.
"""

from typing import Self

import msgspec

from harness.model import Mode, Verdict

FORMAT = 1


class Power(msgspec.Struct, frozen=True):
    """Methods that say something together. lets: what replay can do with them; why: they are not offered."""

    methods: list[str]
    offered: bool
    lets: str
    why: str = ""


class Unmeasured(msgspec.Struct, frozen=True):
    """Components that a replay in `mode` would call unmeasured, for one reason; kinds: kind -> its components."""

    mode: Mode
    dtype: str
    reason: str
    kinds: dict[str, list[str]]


class Contradiction(msgspec.Struct, frozen=True):
    """method: of the port, that says otherwise than another, or than the contract
    components: that it is about, in forward order; says: one sentence, with the way out
    """

    method: str
    components: list[str]
    case: str
    dtype: str
    says: str


class PortCheck(msgspec.Struct, frozen=True):
    """A port held against itself, with the inputs of a golden file.

    verdict: fail if there is any contradiction, else pass: no number of the golden file is looked at
    asked: the cases, by dtype
    unverified: components that `apply` runs, and that could not be held against `trace`, which does not hand them out
    """

    format: int
    golden: str
    port: str
    verdict: Verdict
    asked: dict[str, list[str]]
    powers: list[Power]
    unmeasured: list[Unmeasured]
    unverified: list[str]
    contradictions: list[Contradiction]

    @property
    def holds(self) -> bool:
        return self.verdict is Verdict.PASS

    def to_json(self) -> bytes:
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        return msgspec.json.decode(text, type=cls)
