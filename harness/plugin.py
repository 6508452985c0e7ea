"""pytest: a thin face over the rooms. One test a component, named by golden file, case, dtype and mode.

Nothing but pytest is imported until a test uses the marker `goldens`, and nothing heavy until one runs.
"""

from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from _pytest.nodes import Node

    from harness.checks import Goldens, NamedPort, Sessions
    from harness.store.reader import GoldenFile

_FILES = pytest.StashKey["dict[Path, GoldenFile]"]()
_SESSIONS = pytest.StashKey["Sessions"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini("goldens_dir", "Where golden files named by markers lie, relative to rootdir.", default="")
    parser.addini("goldens_port", "The port, as MODULE:FACTORY; else [tool.goldens] port.", default="")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "goldens(file, ..., include=, exclude=, cases=, dtypes=, modes=, unmeasured=, checkpoint=):"
        " compare a port with golden files, a test for each component.",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    markers = list(metafunc.definition.iter_markers_with_node("goldens"))
    if not markers or "goldens" not in metafunc.fixturenames:
        return
    from harness.errors import GoldensError
    from harness.marker import comparisons, read_marker

    config = metafunc.config
    files = config.stash.setdefault(_FILES, {})
    try:
        marker = _only(markers)
        asked = read_marker(marker.args, marker.kwargs, config.rootpath, config.getini("goldens_dir"))
        found = comparisons(asked, lambda path: _open(files, path))
    except GoldensError as error:
        raise pytest.Collector.CollectError(f"{metafunc.definition.nodeid}: {error}") from error
    metafunc.parametrize("goldens", found, ids=[comparison.id for comparison in found], indirect=True)


def _only(markers: "list[tuple[Node, pytest.Mark]]") -> pytest.Mark:
    """The marker of the nearest function, class or module that has one. Raises GoldensError when it has several."""
    from harness.errors import GoldensError

    nearest = markers[0][0]
    own = [marker for node, marker in markers if node is nearest]
    if len(own) > 1:
        raise GoldensError(
            f"{nearest.name} has the marker goldens {len(own)} times: name all files in one marker, or write a"
            " test for each"
        )
    return own[0]


def _open(files: "dict[Path, GoldenFile]", path: Path) -> "GoldenFile":
    """Once for all tests."""
    from harness.store.reader import GoldenFile

    if path not in files:
        files[path] = GoldenFile.open(path)
    return files[path]


def pytest_collection_finish(session: pytest.Session) -> None:
    """A forward pass hands out what the selected tests want, and no more."""
    for item in session.items:
        comparison = _comparison(item)
        if comparison is not None:
            traced = _sessions(session.config).traced.setdefault(comparison.file.path, set())
            traced.add(comparison.recorded.component)


def _comparison(item: pytest.Item) -> Any:
    marked = item.get_closest_marker("goldens") is not None
    callspec = getattr(item, "callspec", None)
    return callspec.params.get("goldens") if marked and callspec is not None else None


def _sessions(config: pytest.Config) -> "Sessions":
    from harness.checks import Sessions

    return config.stash.setdefault(_SESSIONS, Sessions())


@pytest.fixture
def goldens(request: pytest.FixtureRequest) -> "Goldens":
    """The comparison that this test stands for: `goldens.check(port)`."""
    from harness.checks import Goldens

    if not hasattr(request, "param"):
        pytest.fail(
            f"{request.node.nodeid} uses the fixture `goldens` and has no marker:"
            ' add @pytest.mark.goldens("FILE.h5")',
            pytrace=False,
        )
    config = request.config
    return Goldens(request.param, _sessions(config), request.node.nodeid, config.rootpath)


@pytest.fixture(scope="session")
def port(pytestconfig: pytest.Config) -> "NamedPort":
    """The port that the settings name. Define a fixture of this name to test another object."""
    from harness.checks import NamedPort
    from harness.settings import port_setting, project_folder

    root = pytestconfig.rootpath
    spec = pytestconfig.getini("goldens_port")
    return NamedPort(spec, root) if spec else NamedPort(port_setting(root), project_folder(root))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """A marked test that compares nothing is no pass."""
    outcome = yield
    if item.get_closest_marker("goldens") is not None and _checked(item) is None:
        pytest.fail("marked with goldens, and nothing was compared: call goldens.check(port)", pytrace=False)
    return outcome


def _checked(item: pytest.Item) -> "Goldens | None":
    """The fixture of a marked test, if it has compared anything."""
    from harness.checks import Goldens

    fixture = getattr(item, "funcargs", {}).get("goldens")
    return fixture if isinstance(fixture, Goldens) and fixture.result is not None else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """The result rides on the test's report, in plain types: tests may run in other processes."""
    report = yield
    comparison = _comparison(item) if call.when != "teardown" else None
    checked = _checked(item) if comparison is not None and call.when == "call" else None
    if comparison is not None and (checked is not None or report.failed):
        from harness.checks import told

        result = checked.result if checked is not None else None
        report.goldens = told(comparison, result, item.config.rootpath)  # type: ignore[attr-defined]
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for members in terminalreporter.stats.values() for report in members]
    marked = [report.goldens for report in reports if hasattr(report, "goldens")]
    if marked:
        from harness.checks import summary

        terminalreporter.write_sep("=", "goldens")
        for line in summary(marked):
            terminalreporter.write_line(line)
