"""The fixtures `goldens` and `port` behind the pytest plugin: one comparison, told as a test's outcome."""

import shlex
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec
import pytest

from harness.errors import GoldensError
from harness.marker import Comparison
from harness.model import FactIn, Mode, Verdict
from harness.report.result import Result, Run, with_listed
from harness.report.wording import details, explanation_line, failure_line, headline
from harness.settings import make_importable

if TYPE_CHECKING:
    from harness.diagnose.diagnosis import Told
    from harness.replay.port import Port
    from harness.replay.session import Session


@dataclass(frozen=True)
class NamedPort:
    """The port that the settings name; made for the golden's dtype, from the recorded checkpoint.

    spec: `MODULE:FACTORY`, or empty; folder: where the setting is, and a module that is not installed is looked for
    """

    spec: str
    folder: Path


class Sessions:
    """Replay sessions of one test run, the latest only: a model at a time fits in memory.

    traced: golden file -> the components that the selected tests want of a forward pass
    """

    def __init__(self) -> None:
        self.traced: dict[Path, set[str]] = {}
        self._latest: tuple[_Key, Session] | None = None
        self._explained: dict[tuple[str, str, str, Mode], Told] = {}

    def session(self, comparison: Comparison, port: Any) -> "Session":
        """The session of this golden file, checkpoint and port. Raises GoldensError when there cannot be one."""
        key = _Key(comparison.file.path, comparison.asked.checkpoint, port)
        if self._latest is None or not self._latest[0].is_same(key):
            from harness.replay.session import Session

            self._latest, self._explained = None, {}
            names, folder = self.traced.get(key.path), _folder(comparison)
            session = Session(comparison.file, _factory(comparison, port), names, folder)
            self._latest = (key, session)
        return self._latest[1]

    def explained(self, comparison: Comparison, result: Result, port: Any) -> list[str]:
        """What explains a failure, in lines. Isolated, a whole family of components is explained at once."""
        from harness.diagnose.diagnosis import diagnose_one
        from harness.diagnose.explain import family
        from harness.replay.facts import explanation_of

        if result.verdict is not Verdict.FAIL:
            return []
        session, golden = self.session(comparison, port), comparison.recorded
        if isinstance(golden, FactIn):
            explanation = explanation_of(golden, session.found(golden))
            return [] if explanation is None else [explanation_line(explanation)]
        isolated = result.mode is Mode.ISOLATED
        which = family(comparison.file.component(golden.component)) if isolated else golden.component
        key = (which, "" if isolated else golden.case, golden.dtype, result.mode)
        if key not in self._explained:
            try:
                folder = _recorded_weights(comparison, port)
            except GoldensError as error:
                return [f"not explained: {error}"]
            self._explained[key] = diagnose_one(session, folder, golden, result.mode)
        explanations, notes = self._explained[key]
        return [explanation_line(e) for e in explanations if e.component == result.component] + notes


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

    def is_same(self, other: "_Key") -> bool:
        places = (self.path, self.checkpoint) == (other.path, other.checkpoint)
        return places and self.port is other.port


def _factory(comparison: Comparison, port: Any) -> "Callable[[str], Port]":
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
        return checked_factory(comparison.file, port.spec, checkpoint)
    if not isinstance(port, Port):
        raise GoldensError(f"goldens.check was given a {type(port).__name__}, which has no method 'trace'")
    if checkpoint is not None:
        raise GoldensError(
            f"the marker names checkpoint={checkpoint!r}, and goldens.check was given a {type(port).__name__}"
            " that is made already: leave checkpoint= out, or name the port in the settings"
        )
    return lambda dtype: port


class Goldens:
    """The fixture `goldens`: the comparison that this test stands for."""

    def __init__(self, comparison: Comparison, sessions: Sessions, nodeid: str, root: Path) -> None:
        self.comparison = comparison
        self.result: Result | None = None
        self._sessions = sessions
        self._nodeid = nodeid
        self._root = root

    def check(self, port: Any) -> None:
        """Compare `port` with this test's golden: pass, fail, or, unmeasured and listed, skip."""
        __tracebackhide__ = True
        comparison = self.comparison
        self.result = None  # an earlier check says nothing of one that breaks off
        try:
            session = self._sessions.session(comparison, port)
            result = session.result(comparison.recorded, comparison.mode)
        except GoldensError as error:
            raise pytest.fail.Exception(str(error), pytrace=False) from None
        self.result = with_listed(result, comparison.asked.unmeasured)
        if self.result.listed:
            pytest.skip(f"unmeasured ({self.result.reason}); listed: {self.result.listed}")
        if self.result.verdict is not Verdict.PASS:
            behind = self._behind(self.result, self._sessions.explained(comparison, self.result, port))
            self._fail("\n".join([failure_line(self.result), *(f"  {line}" for line in behind)]))

    def _behind(self, result: Result, explained: Collection[str]) -> list[str]:
        """The numbers, what explains them, where the golden is from, and how to run just this one again."""
        file = self.comparison.file
        versions = file.contents.provenance.get("versions", {})
        told = ", ".join(f"{name} {versions[name]}" for name in ("transformers", "torch") if name in versions)
        return [
            *details(result),
            *explained,
            f"golden: {_shown(file.path, self._root)}, digest {file.digest[:12]}{told and f', recorded with {told}'}",
            f"again: pytest {shlex.quote(self._nodeid)}",
        ]

    def _fail(self, text: str) -> NoReturn:
        __tracebackhide__ = True
        pytest.fail(text, pytrace=False)


def told(comparison: Comparison, result: Result | None, root: Path) -> dict[str, Any]:
    """What a test's report carries: plain types only. No result: the test failed before there was one."""
    return {
        "file": _shown(comparison.file.path, root),
        "place": comparison.place,
        "component": comparison.recorded.component,
        "result": msgspec.to_builtins(result),
    }


def _shown(path: Path, root: Path) -> str:
    """As short as it can be told: relative to `root` if it lies in it."""
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def summary(marked: Collection[dict[str, Any]]) -> Iterator[str]:
    """For each golden file: the verdicts counted, and the first wrong component in forward order."""
    for path in dict.fromkeys(report["file"] for report in marked):
        reports = sorted((r for r in marked if r["file"] == path), key=lambda r: r["place"])
        order = list(dict.fromkeys(report["component"] for report in reports))
        results = [msgspec.convert(r["result"], Result) for r in reports if r["result"] is not None]
        run = Run.from_results(path, "", results, order)
        yield f"{path}: {_counts(run, len(reports) - len(results))}"
        if run.first_wrong is not None:
            wrong = run.result(run.first_wrong)
            yield f"  {failure_line(wrong)}"
            yield f"    {headline(wrong, results, order)}"


def _counts(run: Run, uncompared: int) -> str:
    """`4 pass, 5 fail, 2 unmeasured (1 listed), 1 could not be compared`; the last only if there are such."""
    listed = sum(bool(result.listed) for result in run.results)
    return (
        ", ".join(f"{count} {verdict}" for verdict, count in run.counts.items())
        + (f" ({listed} listed)" if listed else "")
        + (f", {uncompared} could not be compared" if uncompared else "")
    )
