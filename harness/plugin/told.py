"""What tests tell of their comparisons, in plain types: they may run in other processes."""

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness.checks import Goldens, Sessions, shown
from harness.facts.table import BEFORE, FAMILIES
from harness.marker import Comparison, Missing
from harness.model import FactIn, Golden, Mode, Verdict
from harness.report.result import Environment, Explanation, Picture, Result
from harness.store.reader import GoldenFile


class Told(msgspec.Struct, frozen=True):
    """One test. file: as it is shown; key: sorts as a replay does; place: of the component, in forward order.

    port: what it was held against, empty if it did not come to that
    compared: whether there is a verdict; without one, `result` is unmeasured and says why
    skipped: without a verdict, since the test was not to run
    """

    file: str
    key: tuple[int, int, int, int]
    place: int
    port: str
    compared: bool
    skipped: bool
    result: Result
    explanations: list[Explanation]
    notes: list[str]


class OfFile(msgspec.Struct, frozen=True):
    """A golden file that tests were selected of.

    selected: how many tests; used: how many goldens these compare; left: dtype, case and component of all others
    """

    path: str
    selected: int
    used: int
    order: list[str]
    digest: str
    recorded: dict[str, Any]
    left: list[tuple[str, str, str]]


class Pictured(msgspec.Struct, frozen=True):
    """What errors of one golden file held against one port look like."""

    file: str
    port: str
    pictures: list[Picture]


class Collected(msgspec.Struct, frozen=True):
    """What one process collected. All of a run collect the same.

    files: by how they are shown; missing: files that are not there, and the sentence that says so
    deselected: whether tests with the marker were left out
    environment, pictured: if a report is to be written
    """

    files: dict[str, OfFile] = {}
    missing: dict[str, str] = {}
    deselected: bool = False
    environment: Environment | None = None
    pictured: list[Pictured] = []


def tell(
    comparison: Comparison, checked: Goldens | None, report: pytest.TestReport, root: Path
) -> dict[str, Any]:
    """What a test's report carries. checked: None if the test ended before there was a verdict."""
    result = checked.result if checked is not None else None
    told = Told(
        file=shown(comparison.file.path, root),
        key=_key(comparison),
        place=comparison.place,
        port=checked.port if checked is not None else "",
        compared=result is not None,
        skipped=report.skipped,
        result=result or _uncompared(comparison, report),
        explanations=checked.explanations if checked is not None else [],
        notes=checked.notes if checked is not None else [],
    )
    return msgspec.to_builtins(told)


def _uncompared(comparison: Comparison, report: pytest.TestReport) -> Result:
    recorded, why = comparison.recorded, _why(report)
    return Result(
        component=recorded.component,
        kind=_kind(comparison),
        case=recorded.case,
        dtype=recorded.dtype,
        mode=comparison.mode,
        verdict=Verdict.UNMEASURED,
        reason="the test was skipped" if report.skipped else f"could not be compared: {why}",
        listed=why if report.skipped else "",
    )


def _kind(comparison: Comparison) -> str:
    recorded = comparison.recorded
    if isinstance(recorded, FactIn):
        return recorded.fact.family
    return comparison.file.component(recorded.component).kind


def _why(report: pytest.TestReport) -> str:
    """In one line, why a test was skipped, or ended early."""
    if hasattr(report, "wasxfail"):
        return report.wasxfail or "expected to fail"
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    text = str(report.longrepr if crash is None else crash.message).strip()
    return text.splitlines()[0] if text else "no reason is told"


def _key(comparison: Comparison) -> tuple[int, int, int, int]:
    file, recorded = comparison.file, comparison.recorded
    return (
        file.dtypes.index(recorded.dtype),
        _cases(file).index(recorded.case),
        list(Mode).index(comparison.mode),
        comparison.place,
    )


@lru_cache(maxsize=16)
def _cases(file: GoldenFile) -> list[str]:
    """Cases as a replay comes to them, those of facts among them."""
    facts = file.contents.facts
    before = [fact.case for fact in facts if FAMILIES[fact.family] in BEFORE]
    cases = [case.name for case in file.contents.cases]
    return list(dict.fromkeys([*before, *cases, *(fact.case for fact in facts)]))


def properties(checked: Goldens) -> list[tuple[str, object]]:
    """What JUnit XML tells of a comparison, beside its outcome; errors only where there are numbers."""
    result = checked.result
    assert result is not None
    told: dict[str, object] = {
        "golden": checked.comparison.file.path.name,
        "component": result.component,
        "kind": result.kind,
        "case": result.case,
        "dtype": result.dtype,
        "mode": str(result.mode),
        "verdict": str(result.verdict),
    }
    if result.error is not None:
        told |= {"error_over_limit": result.over_limit, "error_over_floor": result.over_floor}
    return [(f"goldens.{name}", value) for name, value in told.items()]


def collected(
    comparisons: Iterable[Comparison],
    missing: Iterable[Missing],
    root: Path,
    deselected: bool,
) -> Collected:
    """What the selected tests of this process are."""
    by_file: dict[Path, list[Comparison]] = {}
    for comparison in comparisons:
        by_file.setdefault(comparison.file.path, []).append(comparison)
    return Collected(
        files={shown(path, root): _of_file(members) for path, members in by_file.items()},
        missing={shown(each.path, root): each.says for each in missing},
        deselected=deselected,
    )


def pictured(sessions: Sessions, root: Path) -> list[Pictured]:
    return [
        Pictured(shown(path, root), port, pictures.all())
        for (path, port), pictures in sessions.pictures.items()
    ]


def _of_file(members: list[Comparison]) -> OfFile:
    file = members[0].file
    used = {_once(comparison.recorded) for comparison in members}
    every = [*map(_once, file.select()), *map(_once, file.select_facts())]
    return OfFile(
        path=str(file.path),
        selected=len(members),
        used=len(used),
        order=file.order,
        digest=file.digest,
        recorded=dict(file.contents.provenance),
        left=[golden for golden in dict.fromkeys(every) if golden not in used],
    )


def _once(recorded: Golden | FactIn) -> tuple[str, str, str]:
    """Dtype, case, component; no dtype for a fact that is asked in any one."""
    dtype = recorded.fact.dtype if isinstance(recorded, FactIn) else recorded.dtype
    return dtype, recorded.case, recorded.component
