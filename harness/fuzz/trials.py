"""Inputs, each held against the reference once."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import GoldensError
from harness.fuzz.drawn import Drawn
from harness.fuzz.reference import Reference
from harness.model import Golden, Mode, Verdict
from harness.record.floors import WHOLE, Depth
from harness.replay.port import Port
from harness.replay.session import Session
from harness.replay.watch import UNWATCHED, Watch
from harness.report.result import Result
from harness.store.reader import GoldenFile

BLATANT = 1_000.0
"""Over the limit of a first look, from which on shrinking takes a failure for one without a second look. Of correct
ports the first look shows up to 2.2 times its limit, on a prompt of one token (docs/fuzz.md)."""


@dataclass(frozen=True)
class Compared:
    """What is compared of every input. include, exclude: globs of components."""

    modes: tuple[Mode, ...]
    include: tuple[str, ...]
    exclude: tuple[str, ...]


@dataclass
class Seen:
    """What was tried so far. unmeasured: of each component that was compared in no input, a result."""

    inputs: int = 0
    longest: int = 0
    rows: int = 0
    position: int = 0
    measured: set[str] = field(default_factory=set)
    unmeasured: dict[str, Result] = field(default_factory=dict)

    def add(self, drawn: Drawn) -> None:
        self.inputs += 1
        self.longest = max(self.longest, drawn.length)
        self.rows = max(self.rows, len(drawn.rows))
        self.position = max(self.position, drawn.start + drawn.length - 1)

    def note(self, result: Result) -> None:
        if result.verdict is not Verdict.UNMEASURED:
            self.measured.add(result.component)
            self.unmeasured.pop(result.component, None)
        elif result.component not in self.measured:
            self.unmeasured.setdefault(result.component, result)


class Trials:
    """Whether inputs fail, asked of the reference and the port side by side, each input once.

    A first look has the floors of one exact chain only, which are never larger than the rule's: what passes it passes.
    What does not is looked at by the whole rule, unless it fails by so much that no floor would change that.
    inputs: how many are run until one fails; what is drawn twice counts once
    seconds: after so many nothing more is run, and no other input fails; from the first failure on they count anew
    told: is told of each input before it is run, and of those before it
    watch: how long the port may take for one answer
    first: the first input that failed; until then it took `before` inputs
    cut: time was over; refused: what the reference said of an input that it cannot be run on, which ends the search
    """

    def __init__(
        self,
        reference: Reference,
        port: Port,
        compared: Compared,
        inputs: int,
        seconds: float,
        told: Callable[[Seen], None],
        watch: Watch = UNWATCHED,
    ) -> None:
        self._reference, self._port, self._compared, self._told = reference, port, compared, told
        self._watch = watch
        self._inputs, self._seconds, self._until = inputs, seconds, time.monotonic() + seconds
        self._known: dict[Drawn, bool] = {}
        self._trusting = True
        self.seen = Seen()
        self.first: Drawn | None = None
        self.before = 0
        self.cut = False
        self.refused: GoldensError | None = None

    def fails(self, drawn: Drawn) -> bool:
        if drawn in self._known:
            return self._known[drawn]
        if self.first is None and self.seen.inputs >= self._inputs:
            return False
        if self.refused is not None or time.monotonic() > self._until:
            self.cut = True
            return False
        self._told(self.seen)
        self.seen.add(drawn)
        try:
            failing = self._known[drawn] = self._failing(drawn)
        except GoldensError as error:
            self.refused = error
            return False
        if failing and self.first is None:
            self.first, self.before = drawn, self.seen.inputs
            self._until = time.monotonic() + self._seconds
        return failing

    def distrust(self) -> None:
        """Begin anew, with a second look at whatever fails: the first look took rounding for a failure."""
        self._trusting, self.first = False, None
        self._inputs += self.seen.inputs
        self._known = {drawn: failed for drawn, failed in self._known.items() if not failed}

    def session(
        self, inputs: Mapping[str, Drawn], depth: Depth = WHOLE, folder: Path | None = None
    ) -> Session:
        """The port held against the goldens of inputs by name."""
        file = self._reference.recorded(inputs, depth)
        names = [golden.component for golden in self._goldens(file)]
        return Session(file, lambda _: self._port, names, folder, watch=self._watch)

    def replay(self, session: Session, modes: tuple[Mode, ...]) -> list[Result]:
        return list(session.replay(self._goldens(session.file), modes))

    def _failing(self, drawn: Drawn) -> bool:
        modes = self._compared.modes
        first_look = self._judged(drawn, Depth(isolated=Mode.ISOLATED in modes, draws=0))
        for result in first_look:
            self.seen.note(result)
        failing = [result for result in first_look if result.verdict is Verdict.FAIL]
        if not failing or (self._trusting and any(_blatant(result) for result in failing)):
            return bool(failing)
        return any(result.verdict is Verdict.FAIL for result in self._judged(drawn, WHOLE))

    def _judged(self, drawn: Drawn, depth: Depth) -> list[Result]:
        return self.replay(self.session({"input": drawn}, depth), self._compared.modes)

    def _goldens(self, file: GoldenFile) -> list[Golden]:
        return file.select(self._compared.include, self._compared.exclude)


def _blatant(result: Result) -> bool:
    """Wrong in kind, or by so much that it is no rounding."""
    return result.error is None or result.over_limit > BLATANT
