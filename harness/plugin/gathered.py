"""What is gathered of all tests, in whichever processes they ran, and what follows from it after the last one."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pytest

from harness.plugin.items import comparison_of, missing_of
from harness.plugin.options import SETTINGS

if TYPE_CHECKING:
    from harness.checks import Sessions
    from harness.plugin.told import Collected, Told
    from harness.report.result import Run


SESSIONS: "pytest.StashKey[Sessions]" = pytest.StashKey()


class Gathered:
    """Reports of tests, and what the processes collected. With pytest-xdist, its workers only tell."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._settings = config.stash[SETTINGS]
        self._told: list[dict[str, Any]] = []
        self._collected: list[dict[str, Any]] = []
        self._deselected = False
        self._broken = False
        self._crashed = False
        self._lines: list[str] = []

    def pytest_deselected(self, items: Iterable[pytest.Item]) -> None:
        self._deselected |= any(comparison_of(item) or missing_of(item) for item in items)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._broken |= not report.passed

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if hasattr(report, "goldens") and report.outcome in ("passed", "failed", "skipped"):
            self._told.append(report.goldens)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object | None) -> None:
        """A worker of pytest-xdist has ended, or crashed."""
        collected = getattr(node, "workeroutput", {}).get("goldens")
        if error is not None or collected is None:
            self._crashed = True
        else:
            self._collected.append(collected)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        told_here: dict[str, Any] | None = getattr(self._config, "workeroutput", None)
        if told_here is not None:
            told_here["goldens"] = self._collect(session)
            return
        if not _distributed(self._config):
            self._collected.append(self._collect(session))
        wanted = self._told or self._settings.own_folder or self._settings.reports
        if wanted and not self._config.option.collectonly:
            self._conclude(session)

    def _collect(self, session: pytest.Session) -> dict[str, Any]:
        """What this process collected, in plain types."""
        items = getattr(session, "items", [])
        comparisons = [each for each in map(comparison_of, items) if each is not None]
        missing = [each for each in map(missing_of, items) if each is not None]
        if not comparisons and not missing:
            return {"deselected": self._deselected}
        import msgspec

        from harness.plugin.told import collected, pictured
        from harness.replay.environment import environment

        root = self._config.rootpath
        found = collected(comparisons, missing, root, self._deselected)
        if self._settings.reports and comparisons:
            sessions = self._config.stash[SESSIONS]
            ran_on = msgspec.structs.replace(environment(root), mesh=self._settings.mesh)
            found = msgspec.structs.replace(found, environment=ran_on, pictured=pictured(sessions, root))
        return msgspec.to_builtins(found)

    def _conclude(self, session: pytest.Session) -> None:
        import msgspec

        from harness.plugin.conclusion import conclude, margins, missing_runs
        from harness.plugin.told import Told

        told = msgspec.convert(self._told, list[Told])
        collected = self._merged()
        concluded = conclude(told, collected, self._crashed)
        runs = [conclusion.run for conclusion in concluded]
        self._lines += [line for conclusion in concluded for line in conclusion.lines()]
        self._lines += margins(runs, self._settings.margins)
        held = self._judge_unused(told, collected)
        held &= self._write_reports([*runs, *missing_runs(collected)])
        if not held and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _merged(self) -> "Collected | None":
        """All collected the same; what JAX runs on is known by those that ran it, and each has pictures of its own."""
        import msgspec

        from harness.plugin.told import Collected

        found = msgspec.convert(self._collected, list[Collected])
        if not found:
            return None
        environments = [each.environment for each in found if each.environment is not None]
        ran_on = next((each for each in environments if each.device), next(iter(environments), None))
        pictured = [of_port for each in found for of_port in each.pictured]
        return msgspec.structs.replace(found[0], environment=ran_on, pictured=pictured)

    def _judge_unused(self, told: "list[Told]", collected: "Collected | None") -> bool:
        """Whether the run may pass."""
        from harness.plugin.unused import not_judged, unused

        settings, root = self._settings, self._config.rootpath
        if settings.unused == "ignore":
            return True
        why = not_judged(self._config, told, collected, self._crashed, self._broken)
        if why or collected is None:
            if settings.asked_unused:
                self._lines.append(f"unused goldens are not judged: {why}")
            return True
        found = list(unused(collected, settings.folder if settings.own_folder else None, root))
        if not found:
            return True
        fails = settings.unused == "fail"
        outcome = "fail this run" if fails else "are no failure here"
        self._lines.append(f"unused goldens, which {outcome} (goldens_unused = {settings.unused}):")
        self._lines += [f"  {line}" for line in found]
        return not fails

    def _write_reports(self, runs: "list[Run]") -> bool:
        """Whether they could be written."""
        from harness.errors import GoldensError
        from harness.report.files import write_report

        held = True
        for path in self._settings.reports:
            if not runs:
                self._lines.append(f"no report {path}: no test compared anything")
                continue
            try:
                write_report(runs, path)
                self._lines.append(f"report: {path}")
            except GoldensError as error:
                self._lines.append(f"no report {path}: {error}")
                held = False
        return held

    def pytest_terminal_summary(self, terminalreporter: "pytest.TerminalReporter") -> None:
        if self._lines:
            terminalreporter.write_sep("=", "goldens")
            for line in self._lines:
                terminalreporter.write_line(line)


def _distributed(config: pytest.Config) -> bool:
    """Whether other processes run the tests."""
    return config.pluginmanager.hasplugin("dsession")
