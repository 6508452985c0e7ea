"""The fixtures `goldens` and `port` behind the pytest plugin: one comparison, told as a test's outcome."""

import math
import shlex
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from harness.errors import GoldensError
from harness.marker import Comparison
from harness.model import FactIn, Mode, Verdict
from harness.replay.environment import platform_of_jax
from harness.report.arisen import where_arisen
from harness.report.result import Explanation, Result, with_listed
from harness.report.wording import amount, details, explanation_line, finding, recorded_with
from harness.settings import make_importable
from harness.store.reader import GoldenFile
from harness.tolerances import Tolerances

if TYPE_CHECKING:
    from harness.compare.pictures import Pictures
    from harness.diagnose.diagnosis import Told
    from harness.replay.port import Port
    from harness.replay.session import Session


@dataclass(frozen=True)
class NamedPort:
    """The port that the settings name; made for the golden's dtype, from the recorded checkpoint.

    spec: `MODULE:FACTORY`, or empty; folder: where the setting is, and a module that is not installed is looked for
    mesh: the devices to spread it over, as `dp=2,tp=4`, or empty for one
    """

    spec: str
    folder: Path
    mesh: str = ""


def port_name(port: Any) -> str:
    """How results call a port: as it was named, or by its type."""
    return port.spec if isinstance(port, NamedPort) else type(port).__name__


class Sessions:
    """Replay sessions of one test run, the latest only: a model at a time fits in memory.

    traced: golden file -> the components that the selected tests want of a forward pass
    pictures: golden file and port -> what errors look like; none if these are not wanted
    """

    def __init__(self, with_pictures: bool = False) -> None:
        self.traced: dict[Path, set[str]] = {}
        self.pictures: dict[tuple[Path, str], Pictures] = {}
        self._with_pictures = with_pictures
        self._latest: tuple[_Key, Session] | None = None
        self._explained: dict[tuple[str, str, str, Mode], Told] = {}
        self._arisen: dict[tuple[str, str, Mode], list[str]] = {}

    def session(self, comparison: Comparison, port: Any) -> "Session":
        """The session of this golden file, checkpoint and port. Raises GoldensError when there cannot be one."""
        key = _Key(comparison.file.path, comparison.asked.checkpoint, port, comparison.tolerances)
        if self._latest is None or not self._latest[0].is_same(key):
            from harness.replay.session import Session

            self._latest, self._explained, self._arisen = None, {}, {}
            names, folder = self.traced.get(key.path), _folder(comparison)
            factory, said = _factory(comparison, port), comparison.tolerances
            pictures = self._pictures(comparison.file, port)
            session = Session(comparison.file, factory, names, folder, pictures, said)
            self._latest = (key, session)
        return self._latest[1]

    def _pictures(self, file: GoldenFile, port: Any) -> "Pictures | None":
        from harness.compare.pictures import Pictures

        if not self._with_pictures:
            return None
        return self.pictures.setdefault((file.path, port_name(port)), Pictures(file.order))

    def explained(self, comparison: Comparison, result: Result, port: Any) -> "Told":
        """What explains a failure. Isolated, a whole family of components is explained at once."""
        from harness.diagnose.diagnosis import diagnose_one
        from harness.diagnose.explain import family
        from harness.replay.facts import explanation_of

        if result.verdict is not Verdict.FAIL:
            return [], []
        session, golden = self.session(comparison, port), comparison.recorded
        if isinstance(golden, FactIn):
            explanation = explanation_of(golden, session.found(golden))
            return ([] if explanation is None else [explanation]), []
        isolated = result.mode is Mode.ISOLATED
        which = family(comparison.file.component(golden.component)) if isolated else golden.component
        key = (which, "" if isolated else golden.case, golden.dtype, result.mode)
        if key not in self._explained:
            try:
                folder = _recorded_weights(comparison, port)
            except GoldensError as error:
                return [], [f"not explained: {error}"]
            self._explained[key] = diagnose_one(session, folder, golden, result.mode)
        explanations, notes = self._explained[key]
        return [each for each in explanations if each.component == result.component], notes

    def arisen(self, comparison: Comparison, result: Result, port: Any) -> list[str]:
        """Where NaN or infinity first arose in the run that a failure is of."""
        if result.arisen is None:
            return []
        file, key = comparison.file, (result.case, result.dtype, result.mode)
        if result.mode is Mode.ISOLATED:
            return [*where_arisen([result], file.order)]
        if key not in self._arisen:
            session, traced = self.session(comparison, port), self.traced.get(file.path)
            goldens = file.select(cases=(result.case,), dtypes=(result.dtype,))
            run = [session.result(g, result.mode) for g in goldens if not traced or g.component in traced]
            self._arisen[key] = [*where_arisen(run, file.order)]
        return self._arisen[key]


def _folder(comparison: Comparison) -> Path | None:
    """The recorded checkpoint, if it is at hand."""
    from harness.replay.session import checkpoint_folder

    try:
        return checkpoint_folder(comparison.file, comparison.asked.checkpoint)
    except GoldensError:
        return None


def _recorded_weights(comparison: Comparison, port: Any) -> Path:
    """The recorded checkpoint. That of a port that was given as an object has not been looked at yet."""
    from harness.checkpoints import refuse_other
    from harness.replay.session import checkpoint_folder

    folder, contents = (
        checkpoint_folder(comparison.file, comparison.asked.checkpoint),
        comparison.file.contents,
    )
    if not isinstance(port, NamedPort):
        refuse_other(folder, contents.provenance["checkpoint_files"], contents.config)
    return folder


@dataclass(frozen=True)
class _Key:
    """What a session is made of. A port is the same only if it is the same object."""

    path: Path
    checkpoint: str | None
    port: Any
    tolerances: Tolerances

    def is_same(self, other: "_Key") -> bool:
        mine, theirs = ((key.path, key.checkpoint, key.tolerances) for key in (self, other))
        return mine == theirs and self.port is other.port


def _factory(comparison: Comparison, port: Any) -> "Callable[[str], Port]":
    from harness.replay.mesh import mesh_of
    from harness.replay.port import Port
    from harness.replay.session import checked_factory

    checkpoint = comparison.asked.checkpoint
    if isinstance(port, NamedPort):
        if not port.spec:
            raise GoldensError(
                "no port is named: set goldens_port in pytest's settings, or port under [tool.goldens] in"
                " pyproject.toml, or define a fixture `port`"
            )
        make_importable(port.folder)
        mesh = mesh_of(port.mesh) if port.mesh else None
        return checked_factory(comparison.file, port.spec, checkpoint, mesh)
    if not isinstance(port, Port):
        raise GoldensError(f"goldens.check was given a {type(port).__name__}, which has no method 'trace'")
    if checkpoint is not None:
        raise GoldensError(
            f"the marker names checkpoint={checkpoint!r}, and goldens.check was given a {type(port).__name__}"
            " that is made already: leave checkpoint= out, or name the port in the settings"
        )
    return lambda dtype: port


class Goldens:
    """The fixture `goldens`: the comparison that this test stands for.

    again: what pytest is given to run it again
    result: of the latest check, None if there was none; port: what it was held against
    explanations, notes: of a failure
    """

    def __init__(
        self, comparison: Comparison, sessions: Sessions, again: Collection[str], root: Path
    ) -> None:
        self.comparison = comparison
        self.result: Result | None = None
        self.port = ""
        self.explanations: list[Explanation] = []
        self.notes: list[str] = []
        self._sessions = sessions
        self._again = again
        self._root = root

    def check(self, port: Any) -> None:
        """Compare `port` with this test's golden: pass, fail, or skip what is listed and xfail what is expected."""
        __tracebackhide__ = True
        comparison = self.comparison
        self.result, self.explanations, self.notes = None, [], []  # an earlier check says nothing of this one
        self.port = port_name(port)
        try:
            session = self._sessions.session(comparison, port)
            judged = with_listed(
                session.result(comparison.recorded, comparison.mode), comparison.asked.unmeasured
            )
            result = comparison.tolerances.expected(judged, platform_of_jax())
        except GoldensError as error:
            raise pytest.fail.Exception(str(error), pytrace=False) from None
        self.result = result
        if result.listed:
            pytest.skip(f"unmeasured ({result.reason}); listed: {result.listed}")
        if result.expected:
            pytest.xfail(f"{result.expected} ({finding(result)})")  # with --runxfail, it goes on
        if result.verdict is not Verdict.PASS:
            self.explanations, self.notes = self._sessions.explained(comparison, judged, port)
            behind = self._behind(result, self._sessions.arisen(comparison, result, port))
            self._fail("\n".join([first_line(result, self.explanations), *(f"  {line}" for line in behind)]))

    def _behind(self, result: Result, arisen: Collection[str]) -> list[str]:
        """The numbers, what explains them, where the golden is from, and how to run just this one again."""
        file = self.comparison.file
        told = recorded_with(file.contents.provenance)
        return [
            *details(result),
            *arisen,
            *map(explanation_line, self.explanations),
            *self.notes,
            f"golden: {shown(file.path, self._root)}, digest {file.digest[:12]}{told and f', {told}'}",
            f"again: pytest {shlex.join(self._again)}",
        ]

    def _fail(self, text: str) -> NoReturn:
        __tracebackhide__ = True
        pytest.fail(text, pytrace=False)


def first_line(result: Result, explanations: Collection[Explanation]) -> str:
    """A failure in a line that stands alone. pytest's short summary cuts it at its end: what matters comes first."""
    found = _found(result)
    names = [
        " / ".join(e.hypotheses) or e.text.partition(";")[0] for e in explanations if e.text not in found
    ]
    why = f": {', '.join(names)}" if names else ""
    where = f"{result.component}   {result.case} {result.dtype} {result.mode}"
    return f"{found}{why}   {where}   {result.verdict.upper()}"


def _found(result: Result) -> str:
    """The error against what passes; a reason where there is one."""
    if result.reason or not 0 < result.over_limit < math.inf:
        return finding(result)
    return f"error {amount(result.over_limit)} x limit"


def shown(path: Path, root: Path) -> str:
    """As short as it can be told: relative to `root` if it lies in it."""
    return str(path.relative_to(root) if path.is_relative_to(root) else path)
