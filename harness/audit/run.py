"""The audit: every fault planted into a port, one at a time, replayed, and, if it is caught, named."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from harness.audit.edited import copied, edited
from harness.audit.effect import changes, effect, why, why_answered
from harness.audit.fault import (
    Answer,
    DoesNotApply,
    EditedCheckpoint,
    EditedConfig,
    Fault,
    Lacking,
    Method,
    Overrides,
    Patch,
    Planting,
    Rewired,
)
from harness.audit.methods import asked_of, by_family, facts_in, fronted, same
from harness.audit.naming import is_wrong, naming_of
from harness.audit.outcome import LOADING, Effect, FaultResult, Naming, Verdict
from harness.audit.patched import Broken, copied_factory, patched_factory
from harness.audit.planted import Planted, Remembering, bare, planted
from harness.audit.reference import Reference
from harness.diagnose.decode import explain_decode
from harness.diagnose.explain import explain
from harness.diagnose.facts import explain_facts
from harness.diagnose.subject import Subject
from harness.diagnose.wiring import explain_wiring
from harness.errors import GoldensError, first_line
from harness.facts.table import FAMILIES
from harness.model import FactIn, Golden, Mode
from harness.model import Verdict as Compared
from harness.replay.modes import replays
from harness.replay.port import Cached, Isolated, Port, load_port, wired
from harness.replay.session import NOT_OFFERED, Session
from harness.replay.watch import UNWATCHED, Watch
from harness.report.result import Explanation, Result, first_wrong
from harness.store.reader import GoldenFile
from harness.weights import Weights

_PLANTINGS: dict[type, str] = {
    Answer: "answer",
    Overrides: "overrides",
    Rewired: "rewired",
    EditedConfig: "config",
    EditedCheckpoint: "checkpoint",
    Method: "method",
    Patch: "source",
}

_STUMBLES = tuple(
    f"the port raised {error.__name__}: "
    for error in (NameError, UnboundLocalError, AttributeError, TypeError, ImportError, ModuleNotFoundError)
)


class Refused(Exception):
    """The port was not made: the fault is caught when loading."""


@dataclass(frozen=True)
class Faulty:
    """A port with a fault in it.

    names: the components and facts that the fault is in; whole: it can be run from end to end
    facts: what it is asked for where no component shows the fault
    runs: its components may show it; of a fault in a method that no component is behind, they do not
    """

    port: Port
    names: Sequence[str]
    facts: Sequence[FactIn] = ()
    whole: bool = True
    runs: bool = True

    def modes(self) -> Iterator[Mode]:
        """How it can be run, most telling first."""
        if self.runs and isinstance(self.port, Isolated):
            yield Mode.ISOLATED
        if self.runs and self.whole:
            yield Mode.END_TO_END
        if self.runs and isinstance(self.port, Cached):
            yield Mode.DECODE

    @property
    def asked(self) -> Port:
        """The port that is asked for facts: where parameters are overridden, the one that has them."""
        overridden = self.port.overridden if isinstance(self.port, Planted) else None
        return overridden or self.port


@dataclass(frozen=True)
class Auditor:
    """A golden file and a port, into which faults are planted. goldens, facts: those that are replayed, of one dtype.

    spec: the port as MODULE:FACTORY; folder: the recorded checkpoint; mesh: the devices that it is spread over
    watch: how long it may take for one answer
    """

    file: GoldenFile
    goldens: Sequence[Golden]
    dtype: str
    spec: str
    folder: Path
    facts: Sequence[FactIn] = ()
    mesh: Any = None
    watch: Watch = UNWATCHED

    def _load(self, folder: Path) -> Port:
        return self._made(
            lambda checkpoint, dtype: load_port(self.spec, checkpoint, dtype, self.mesh), folder
        )

    def _made(self, make: Callable[[str, str], Port], folder: Path) -> Port:
        with self.watch.over_factory(self.dtype):
            return make(str(folder), self.dtype)

    @cached_property
    def weights(self) -> Weights:
        return Weights(self.folder)

    @cached_property
    def port(self) -> Port:
        """The port without a fault, which remembers what its components put out, if it runs them."""
        port = wired(self._load(self.folder), self.file.contents.components)
        return Remembering(port) if isinstance(port, Isolated) else port

    def refuse_wrong(self, faults: Sequence[Fault] = ()) -> None:
        """A port that fails by itself would catch every fault; one that does not hold when it is made from a copy,
        every one that is planted in a copy. Raises GoldensError.
        """
        self._refuse(self._by_itself)
        self._refuse(self.replay(self.port, Mode.END_TO_END))
        needed = [fact for fault in faults for fact in asked_of(fault.planting, self.facts)]
        wanted = {id(fact) for fact in needed}
        self._refuse(self._asked(bare(self.port), [fact for fact in self.facts if id(fact) in wanted])[0])
        if any(isinstance(fault.planting, EditedConfig | EditedCheckpoint) for fault in faults):
            with copied(self.folder) as copy:
                self._refuse_copy("checkpoint", lambda: self._load(copy))
        if any(isinstance(fault.planting, Patch) for fault in faults):
            make = copied_factory(self.spec, self.mesh)
            self._refuse_copy("package", lambda: self._made(make, self.folder))

    def _refuse_copy(self, what: str, make: Callable[[], Port]) -> None:
        """what: that of which the copy is."""
        told = f"{self.file.path}: the port {self.spec} does not hold when made from a copy of its {what}"
        why = "an audit could not tell a fault in the copy from the copying"
        try:
            mode = Mode.END_TO_END if self._first_whole else Mode.DECODE
            results = self.replay(make(), mode, self._first_whole or self._decoded_cases[0])
        except GoldensError as error:
            raise GoldensError(f"{told}: {first_line(error)}: {why}") from error
        wrong = first_wrong(results, self._order)
        if wrong is not None:
            raise GoldensError(f"{told}, first at {wrong.component} ({wrong.mode}): {why}")

    @cached_property
    def _first_whole(self) -> str:
        """The first case that is read at once, if there is one."""
        return next((g.case for g in self.goldens if replays(self.file, g, Mode.END_TO_END)), "")

    @cached_property
    def _decoded_cases(self) -> list[str]:
        """The cases that are read through the cache: those that the reference read so; without any, all."""
        cases = list(dict.fromkeys(golden.case for golden in self.goldens))
        return [case for case in cases if self.file.case(case).parts] or cases

    def _refuse(self, results: Sequence[Result]) -> None:
        wrong = first_wrong(results, self._order)
        if wrong is not None:
            raise GoldensError(
                f"{self.file.path}: the port {self.spec} fails without any fault, first at {wrong.component} "
                f"({wrong.mode}): an audit needs one that holds; `goldens replay` shows what is wrong"
            )

    @cached_property
    def _by_itself(self) -> list[Result]:
        """The port's components without a fault."""
        return self.replay(self.port, Mode.ISOLATED) if isinstance(self.port, Isolated) else []

    @cached_property
    def _decoded(self) -> list[Result]:
        """The port without a fault, token by token: takes long, and few faults show in nothing else."""
        port = bare(self.port)
        return [result for case in self._decoded_cases for result in self.replay(port, Mode.DECODE, case)]

    @property
    def _gap(self) -> str:
        """The first component that the port does not run by itself, so that no fault can be followed through it."""
        return next((result.component for result in self._by_itself if result.reason == NOT_OFFERED), "")

    @cached_property
    def _chains(self) -> bool:
        """Whether its components, one after another, give what the whole port gives: else every fault that is
        followed through them would be caught.
        """
        if self._gap or not self._first_whole:
            return False
        unchanged = Answer(("*",), lambda call: call.output)
        chain = Planted(self.port, self.file.contents.components, unchanged, self.weights)
        results = self.replay(chain, Mode.END_TO_END, self._first_whole) if chain.traces else []
        return first_wrong(results, self._order) is None

    def audit(self, fault: Fault) -> FaultResult:
        """Plant a fault, replay, and name it."""
        about = FaultResult(
            fault=fault.name,
            area=fault.area,
            says=fault.says,
            planting=_PLANTINGS[type(fault.planting)],
            verdict=Verdict.MISSED,
            namable=bool(fault.named_by),
        )
        try:
            with self.planted(fault) as faulty:
                return self._caught(about, fault, faulty) or self._missed(about, fault, faulty)
        except DoesNotApply as error:
            return replace(about, verdict=Verdict.NOT_PLANTED, reason=str(error))
        except Lacking as error:
            if fault.equivalent:
                return replace(about, verdict=Verdict.EQUIVALENT, reason=fault.equivalent)
            return replace(about, reason=str(error))
        except Refused as error:
            return replace(about, verdict=Verdict.CAUGHT, mode=LOADING, text=first_line(error))

    @contextmanager
    def planted(self, fault: Fault) -> Iterator[Faulty]:
        """The port with a fault, for as long as the context is open.

        Raises DoesNotApply, Lacking or Refused; Broken for a fault in the source with which the port is not made.
        """
        planting, components = fault.planting, self.file.contents.components
        facts, inside = asked_of(planting, self.facts), facts_in(planting, self.facts)
        if isinstance(planting, Answer | Overrides | Rewired):
            port = Planted(self.port, components, planting, self.weights)
            followed = isinstance(planting, Overrides) or self._chains
            if isinstance(planting, Rewired) and self._gap:
                raise Lacking(
                    f"the port does not run {self._gap} by itself: a fault in the wiring cannot be planted"
                )
            if isinstance(planting, Rewired) and not followed:
                raise DoesNotApply("components run one after another do not give what the whole port gives")
            yield Faulty(port, port.names, facts, whole=port.traces and followed)
        elif isinstance(planting, Method):
            names = planted(planting, (), facts=inside)
            yield Faulty(fronted(bare(self.port), planting), names, facts, runs=False)
        elif isinstance(planting, Patch):
            make = patched_factory(self.spec, fault, self.mesh)
            names = planted(planting, components, facts=inside)
            try:
                made = self._made(make, self.folder)
            except Broken:
                raise
            except GoldensError as error:
                raise Refused(error) from error
            yield Faulty(made, names, facts)
        else:
            names = planted(planting, components, facts=inside)
            with edited(self.folder, planting) as copy:
                try:
                    made = self._load(copy)
                except GoldensError as error:
                    raise Refused(error) from error
                yield Faulty(made, names, facts)

    def replay(self, port: Port, mode: Mode, case: str = "") -> list[Result]:
        """All cases, or one."""
        goldens = [
            golden
            for golden in self.goldens
            if case in ("", golden.case) and replays(self.file, golden, mode)
        ]
        session = Session(
            self.file, lambda dtype: port, [golden.component for golden in goldens], watch=self.watch
        )
        return list(session.replay(goldens, [mode]))

    def _until_wrong(self, port: Port, mode: Mode) -> list[Result]:
        """A replay that ends, where whole runs are replayed, with the first case in which something fails."""
        if mode is Mode.ISOLATED:
            return self.replay(port, mode)
        results: list[Result] = []
        every = dict.fromkeys(golden.case for golden in self.goldens)
        for case in self._decoded_cases if mode is Mode.DECODE else every:
            results += self.replay(port, mode, case)
            if first_wrong(results, self._order) is not None:
                break
        return results

    @property
    def _order(self) -> list[str]:
        return self.file.order

    def _caught(self, about: FaultResult, fault: Fault, faulty: Faulty) -> FaultResult | None:
        """By the first mode in which a component fails, or else by the first family of facts; None if nothing fails."""
        results: list[Result] = []
        for mode in faulty.modes():
            own = self._until_wrong(faulty.port, mode)
            results += own
            if isinstance(fault.planting, Patch):
                _refuse_broken(fault, own)
            if first_wrong(own, self._order) is None:
                continue
            if mode is Mode.DECODE:
                self._refuse(self._decoded)
            explanations = self._explained(faulty.port, results, mode)
            return self._told(replace(about, mode=str(mode)), fault, faulty, own, explanations)
        for family, facts in by_family(faulty.facts).items():
            answers, explanations = self._asked(faulty.asked, facts)
            if isinstance(fault.planting, Patch):
                _refuse_broken(fault, answers)
            if first_wrong(answers, self._order) is not None:
                words = family.replace("_", " ")
                return self._told(replace(about, mode=words), fault, faulty, answers, explanations)
        return None

    def _asked(self, port: Port, facts: Sequence[FactIn]) -> tuple[list[Result], list[Explanation]]:
        """What becomes of a port's answers, and what explains those that are wrong."""
        session = Session(self.file, lambda dtype: port, folder=self.folder, watch=self.watch)
        results = [session.result(fact, FAMILIES[fact.fact.family].mode) for fact in facts]
        return results, explain_facts((fact, session.found(fact)) for fact in facts)

    def _told(
        self,
        about: FaultResult,
        fault: Fault,
        faulty: Faulty,
        results: Sequence[Result],
        explanations: Sequence[Explanation],
    ) -> FaultResult:
        first = first_wrong(results, self._order)
        assert first is not None, "something failed"
        told = next((e for e in explanations if e.component == first.component), None)
        wrong = next((e for e in explanations if is_wrong(fault, e)), None)
        failed = [result for result in results if result.verdict is Compared.FAIL]
        return replace(
            about,
            verdict=Verdict.CAUGHT,
            first=first.component,
            planted=self._is_in(fault, faulty, first.component),
            cases=list(dict.fromkeys(result.case for result in failed)),
            naming=naming_of(fault, told) if wrong is None else Naming.WRONG,
            hypotheses=[] if told is None else told.hypotheses,
            text="" if told is None else told.text,
            misnamed="" if wrong is None else f"{wrong.component}: {wrong.text}",
        )

    def _is_in(self, fault: Fault, faulty: Faulty, name: str) -> bool:
        """Whether a fault is in a component or fact: in a setting, where the configuration was edited; in a parameter,
        where it is in the component that has it.
        """
        if isinstance(fault.planting, EditedConfig) and name.startswith("config."):
            return True
        parameters = {
            f"parameters.{parameter}"
            for component in self.file.contents.components
            if component.name in faulty.names
            for parameter in component.parameters.values()
        }
        return name in faulty.names or name in parameters

    def _explained(self, port: Port, results: Sequence[Result], mode: Mode) -> list[Explanation]:
        subject = Subject(self.file, lambda dtype: port, self.weights, watch=self.watch)
        if mode is Mode.ISOLATED:
            return explain(subject, results)
        if mode is Mode.DECODE:
            return explain_decode(subject, results)
        return explain_wiring(subject, results) if isinstance(port, Isolated) else []

    def _missed(self, about: FaultResult, fault: Fault, faulty: Faulty) -> FaultResult:
        """With how much the fault changes here, and why nothing sees it."""
        found = self._effect(fault.planting, faulty)
        if isinstance(fault.planting, Method) and not fault.equivalent:
            return replace(about, reason=why_answered(found), effect=found)
        if fault.equivalent and found.over_limit > 1:
            return replace(about, reason=f"said to be equivalent, but {changes(found)}", effect=found)
        if fault.equivalent:
            return replace(about, verdict=Verdict.EQUIVALENT, reason=fault.equivalent, effect=found)
        return replace(about, reason=why(found), effect=found)

    def _effect(self, planting: Planting, faulty: Faulty) -> Effect:
        """In float64 where the fault can be put into the reference itself, else between the ports."""
        if isinstance(planting, Method):
            return self._effect_on_facts(faulty)
        if isinstance(planting, EditedConfig | EditedCheckpoint | Patch):
            return effect(self.file, self.goldens, self.port, faulty.port, float64=False, watch=self.watch)
        components = self.file.contents.components
        reference = Reference(components, self.weights)
        wrong = Planted(reference, components, planting, self.weights)
        return effect(self.file, self.goldens, reference, wrong, float64=True, whole=reference.whole)

    def _effect_on_facts(self, faulty: Faulty) -> Effect:
        """Whether any answer is another one: there are no noise floors to tell by how much."""
        port, families = bare(self.port), by_family(faulty.facts)
        exact = all(
            same(*(FAMILIES[name].ask(each, fact.fact) for each in (port, faulty.port)))
            for name, facts in families.items()
            for fact in facts
        )
        return Effect(0.0, 0.0, "", "", exact, False, [name.replace("_", " ") for name in families])


def _refuse_broken(fault: Fault, results: Sequence[Result]) -> None:
    """A port that stumbles over its own names has a mistake that no golden file has to catch. Raises Broken."""
    for result in results:
        if result.reason.startswith(_STUMBLES):
            raise Broken(fault, f"at {result.component} ({result.mode}) {result.reason}")
