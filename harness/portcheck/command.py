"""`goldens check-port` as it is asked for from outside: a port held against itself."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console

from harness.errors import GoldensError
from harness.model import Component, Mode, Verdict
from harness.portcheck.alone import Alone
from harness.portcheck.asked import Asked, Broken
from harness.portcheck.cached import InParts
from harness.portcheck.outcome import FORMAT, Contradiction, PortCheck, Power, Unmeasured
from harness.portcheck.parameters import parameters
from harness.portcheck.powers import config, powers
from harness.portcheck.trouble import Trouble, contradictions
from harness.portcheck.whole import Whole
from harness.replay.port import wired
from harness.replay.session import NOT_OFFERED, checked_factory
from harness.replay.watch import Watch
from harness.store.reader import GoldenFile


@dataclass(frozen=True)
class Question:
    """port: `MODULE:FACTORY`; checkpoint: where it is here; cases, dtypes: empty for one case, in every dtype.

    mesh: the devices to spread the port over, as a `jax.sharding.Mesh`
    timeout: the seconds that the port may take for one answer
    """

    port: str
    checkpoint: str | None
    cases: tuple[str, ...]
    dtypes: tuple[str, ...]
    mesh: Any = None
    timeout: float | None = None


def check(file: GoldenFile, question: Question, progress: Console) -> PortCheck:
    """Ask the port all that it offers, on inputs of the golden file. Raises GoldensError."""
    chosen = _cases(file, question)
    factory = checked_factory(file, question.port, question.checkpoint, question.mesh)
    found, watch = _Found(), Watch(question.timeout)
    offered: list[Power] = []
    for dtype, cases in chosen.items():
        with watch.over_factory(dtype):
            port = wired(factory(dtype), file.contents.components)
        with watch.over(f"its parameters or its config ({dtype})"):
            offered = offered or powers(port)
        for case in cases:
            with progress.status(f"{file.path.name}: {case}, {dtype}"):
                found.ask(Asked(file, port, case, dtype, watch), once=case == cases[0])
    return PortCheck(
        format=FORMAT,
        golden=str(file.path),
        port=question.port,
        verdict=Verdict.FAIL if found.contradictions else Verdict.PASS,
        asked=chosen,
        powers=offered,
        unmeasured=found.unmeasured,
        unverified=list(dict.fromkeys(found.unverified)),
        contradictions=found.contradictions,
    )


class _Found:
    """What was found so far."""

    def __init__(self) -> None:
        self.contradictions: list[Contradiction] = []
        self.unmeasured: list[Unmeasured] = []
        self.unverified: list[str] = []

    def ask(self, asked: Asked, once: bool) -> None:
        """once: also what does not depend on the case."""
        try:
            whole = Whole(asked)
        except Broken as broken:
            self._add(asked, [broken.trouble])
            return
        if not whole.steady:
            self._add(asked, whole.troubles)
            return
        alone, in_parts = Alone(asked, whole), InParts(asked, whole)
        self._add(asked, [*whole.troubles, *alone.troubles, *in_parts.troubles])
        if not once:
            return
        self._add(asked, [*parameters(asked, whole), *config(asked.port)])
        self.unverified += alone.unverified
        lacking = [(Mode.ISOLATED, reason, components) for reason, components in alone.lacking.items()]
        lacking += [
            (Mode.END_TO_END, NOT_OFFERED, whole.lacking),
            (Mode.DECODE, NOT_OFFERED, in_parts.lacking),
        ]
        self.unmeasured += [
            Unmeasured(mode, asked.dtype, reason, _by_kind(components))
            for mode, reason, components in lacking
            if components
        ]

    def _add(self, asked: Asked, troubles: Iterable[Trouble]) -> None:
        self.contradictions += contradictions(troubles, asked.case, asked.dtype)


def _by_kind(components: Iterable[Component]) -> dict[str, list[str]]:
    kinds: dict[str, list[str]] = {}
    for component in components:
        kinds.setdefault(component.kind, []).append(component.name)
    return kinds


def _cases(file: GoldenFile, question: Question) -> dict[str, list[str]]:
    """The cases to ask about, by dtype. Raises GoldensError for what the file has not."""
    goldens = file.select(cases=question.cases, dtypes=question.dtypes)
    if not goldens:
        raise GoldensError(
            f"{', '.join(question.cases)} of {file.path} has nothing that a port is run on: name another case"
        )
    recorded: dict[str, list[str]] = {}
    for golden in goldens:
        of_dtype = recorded.setdefault(golden.dtype, [])
        if golden.case not in of_dtype:
            of_dtype.append(golden.case)
    if question.cases:
        return recorded
    return {dtype: [max(cases, key=lambda case: _shows(file, case))] for dtype, cases in recorded.items()}


def _shows(file: GoldenFile, case: str) -> tuple[bool, bool, bool, int]:
    """How much of a port a case shows: padding, several texts, more than one token; of several such, the shortest."""
    inputs = file.case_inputs(case)
    texts, tokens = inputs["token_ids"].shape
    return bool(np.any(inputs["attention_mask"] == 0)), texts > 1, tokens > 1, -tokens
