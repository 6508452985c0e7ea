"""pytest: a thin face over the rooms. One test a component, named by golden file, case, dtype and mode.

Nothing but pytest is imported until a test uses the marker `goldens`, and nothing heavy until one runs. What is known
after the run, in whichever processes it ran, is in `gathered`.
"""

from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.plugin.gathered import SESSIONS, Gathered
from harness.plugin.items import comparison_of, missing_of
from harness.plugin.options import SETTINGS, add_options, read_settings

if TYPE_CHECKING:
    from _pytest.nodes import Node

    from harness.checks import Goldens, NamedPort, Sessions
    from harness.marker import Asked
    from harness.store.reader import GoldenFile
    from harness.tolerances import Tolerances

_FILES = pytest.StashKey["dict[Path, GoldenFile]"]()
_TOLERANCES = pytest.StashKey["Tolerances"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "goldens(file, ..., include=, exclude=, cases=, dtypes=, modes=, unmeasured=, rtol=, atol=, reason=,"
        " checkpoint=): compare a port with golden files, a test for each component.",
    )
    config.stash[SETTINGS] = read_settings(config)
    config.pluginmanager.register(Gathered(config), "goldens-gathered")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    markers = list(metafunc.definition.iter_markers_with_node("goldens"))
    if not markers or "goldens" not in metafunc.fixturenames:
        return
    from harness.errors import GoldensError
    from harness.marker import read_marker

    config = metafunc.config
    settings = config.stash[SETTINGS]
    try:
        marker = _only(markers)
        asked = read_marker(marker.args, marker.kwargs, config.rootpath, settings.folder)
        params = _params(asked, config)
    except GoldensError as error:
        raise pytest.Collector.CollectError(f"{metafunc.definition.nodeid}: {error}") from error
    metafunc.parametrize("goldens", params, indirect=True)


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


def _params(asked: "Asked", config: pytest.Config) -> list[Any]:
    """A test for each comparison, and one for each golden file that is not there."""
    from harness.marker import comparisons, divided

    files = config.stash.setdefault(_FILES, {})
    there, missing = divided(asked, config.rootpath)
    found = comparisons(there, lambda path: _open(files, path), _tolerances(config)) if there.files else []
    skip = config.stash[SETTINGS].missing == "skip"
    return [
        *(pytest.param(comparison, id=comparison.id) for comparison in found),
        *(
            pytest.param(each, id=each.name, marks=[pytest.mark.skip(reason=each.says)] if skip else [])
            for each in missing
        ),
    ]


def _open(files: "dict[Path, GoldenFile]", path: Path) -> "GoldenFile":
    """Once for all tests."""
    from harness.store.reader import GoldenFile

    if path not in files:
        files[path] = GoldenFile.open(path)
    return files[path]


def _tolerances(config: pytest.Config) -> "Tolerances":
    """The project's tolerance file, read once; none, if there is none."""
    from harness.settings import tolerance_setting
    from harness.tolerances import read

    if _TOLERANCES not in config.stash:
        named = config.getini("goldens_tolerances")
        path = config.rootpath / named if named else tolerance_setting(config.rootpath)
        config.stash[_TOLERANCES] = read(path)
    return config.stash[_TOLERANCES]


def pytest_collection_finish(session: pytest.Session) -> None:
    """A forward pass hands out what the selected tests want, and no more."""
    for item in session.items:
        comparison = comparison_of(item)
        if comparison is not None:
            traced = _sessions(session.config).traced.setdefault(comparison.file.path, set())
            traced.add(comparison.recorded.component)


def _sessions(config: pytest.Config) -> "Sessions":
    from harness.checks import Sessions

    wanted = bool(config.stash[SETTINGS].reports)
    return config.stash.setdefault(SESSIONS, Sessions(with_pictures=wanted))


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
    again = [*config.stash[SETTINGS].flags, request.node.nodeid]
    return Goldens(request.param, _sessions(config), again, config.rootpath)


@pytest.fixture(scope="session")
def port(pytestconfig: pytest.Config) -> "NamedPort":
    """The port that the settings name. Define a fixture of this name to test another object."""
    from harness.checks import NamedPort
    from harness.settings import port_setting, project_folder

    settings, root = pytestconfig.stash[SETTINGS], pytestconfig.rootpath
    if settings.port:
        return NamedPort(settings.port, settings.port_folder, settings.mesh)
    return NamedPort(port_setting(root), project_folder(root), settings.mesh)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """A marked test that compares nothing is no pass."""
    missing = missing_of(item)
    if missing is not None:
        pytest.fail(missing.says, pytrace=False)
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
    comparison = comparison_of(item) if call.when != "teardown" else None
    checked = _checked(item) if comparison is not None and call.when == "call" else None
    if checked is not None:
        from harness.plugin.told import properties

        item.user_properties += properties(checked)
    report = yield
    if comparison is not None and (call.when == "call" or not report.passed):
        from harness.plugin.told import tell

        report.goldens = tell(comparison, checked, report, item.config.rootpath)  # type: ignore[attr-defined]
    return report


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `--dist loadgroup`, what one forward pass serves stays in one process."""
    if config.getoption("dist") != "loadgroup":
        return None
    from harness.plugin.grouped import Grouped

    return Grouped(config, log)
