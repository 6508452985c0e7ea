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
from harness.model import Verdict
from harness.report.result import Result, Run, with_listed
from harness.report.wording import details, failure_line, headline
from harness.settings import make_importable

if TYPE_CHECKING:
    from harness.replay.port import Port
    from harness.replay.session import Session


@dataclass(frozen=True)
class NamedPort:
    """The port that the settings name; made for the golden's dtype, from the recorded checkpoint.

    spec: `MODULE:FACTORY`, or empty; folder: where a module that is not installed is looked for
    """

    spec: str
    folder: Path


class Sessions:
    """Replay sessions of one test run, the latest only: a model at a time fits in memory.

    traced: golden file -> the components that the selected tests want of a forward pass
    """

    def __init__(self) -> None:
        self.traced: dict[Path, set[str]] = {}
        self._latest: tuple[Path, Any, Session] | None = None

    def session(self, comparison: Comparison, port: Any) -> "Session":
        """The session of this golden file and port. Raises GoldensError when there cannot be one."""
        path = comparison.file.path
        if self._latest is None or self._latest[0] != path or self._latest[1] is not port:
            from harness.replay.session import Session

            self._latest = None
            names: Collection[str] | None = self.traced.get(path)
            session = Session(comparison.file, _factory(comparison, port), names)
            self._latest = (path, port, session)
        return self._latest[2]


def _factory(comparison: Comparison, port: Any) -> "Callable[[str], Port]":
    from harness.replay.port import Port
    from harness.replay.session import checked_factory

    if isinstance(port, NamedPort):
        if not port.spec:
            raise GoldensError(
                "no port is named: set goldens_port in pytest's settings, or port under [tool.goldens] in"
                " pyproject.toml, or define a fixture `port`"
            )
        make_importable(port.folder)
        checkpoint = comparison.asked.checkpoint
        if checkpoint and (port.folder / checkpoint).is_dir():
            checkpoint = str(port.folder / checkpoint)
        return checked_factory(comparison.file, port.spec, checkpoint)
    if not isinstance(port, Port):
        raise GoldensError(f"goldens.check was given a {type(port).__name__}, which has no method 'trace'")
    return lambda dtype: port


class Goldens:
    """The fixture `goldens`: the comparison that this test stands for."""

    def __init__(self, comparison: Comparison, sessions: Sessions, nodeid: str) -> None:
        self.comparison = comparison
        self.result: Result | None = None
        self._sessions = sessions
        self._nodeid = nodeid

    def check(self, port: Any) -> None:
        """Compare `port` with this test's golden: pass, fail, or, unmeasured and listed, skip."""
        __tracebackhide__ = True
        comparison = self.comparison
        try:
            session = self._sessions.session(comparison, port)
            result = session.result(comparison.golden, comparison.mode)
        except GoldensError as error:
            self._fail(str(error))
        self.result = with_listed(result, comparison.asked.unmeasured)
        if self.result.listed:
            pytest.skip(f"unmeasured ({self.result.reason}); listed: {self.result.listed}")
        if self.result.verdict is not Verdict.PASS:
            self._fail(
                "\n".join([failure_line(self.result), *(f"  {line}" for line in self._behind(self.result))])
            )

    def _behind(self, result: Result) -> list[str]:
        """The numbers, where the golden is from, and how to run just this one again."""
        file = self.comparison.file
        versions = file.contents.provenance.get("versions", {})
        told = ", ".join(f"{name} {versions[name]}" for name in ("transformers", "torch") if name in versions)
        return [
            *details(result),
            f"golden: {file.path.name}, digest {file.digest[:12]}{told and f', recorded with {told}'}",
            f"again: pytest {shlex.quote(self._nodeid)}",
        ]

    def _fail(self, text: str) -> NoReturn:
        __tracebackhide__ = True
        pytest.fail(text, pytrace=False)


def told(checked: Goldens) -> dict[str, Any]:
    """What a test's report carries: plain types only."""
    comparison = checked.comparison
    return {
        "file": str(comparison.file.path),
        "place": comparison.place,
        "result": msgspec.to_builtins(checked.result),
    }


def summary(compared: Collection[dict[str, Any]]) -> Iterator[str]:
    """For each golden file: the verdicts counted, and the first wrong component in forward order."""
    for path in dict.fromkeys(report["file"] for report in compared):
        reports = [report for report in compared if report["file"] == path]
        order = list(
            dict.fromkeys(r["result"]["component"] for r in sorted(reports, key=lambda r: r["place"]))
        )
        results = [msgspec.convert(report["result"], Result) for report in reports]
        run = Run.from_results(path, "", results, order)
        listed = sum(bool(result.listed) for result in results)
        yield (
            f"{Path(path).name}: "
            + ", ".join(f"{count} {verdict}" for verdict, count in run.counts.items())
            + (f" ({listed} listed)" if listed else "")
        )
        if run.first_wrong is not None:
            wrong = run.result(run.first_wrong)
            yield f"  {failure_line(wrong)}"
            yield f"    {headline(wrong, results, order)}"
