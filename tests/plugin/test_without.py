"""With and without the plugin, however plugins are loaded."""

import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def is_installed() -> bool:
    try:
        return bool(distribution("flax-goldens").entry_points.select(group="pytest11"))
    except PackageNotFoundError:
        return False


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_it.py").write_text(
        "import sys\n\n\ndef test_it(request):\n    print('plugin:', 'harness.plugin' in sys.modules)\n"
    )
    return tmp_path


def run(
    folder: Path, *arguments: str, environment: Mapping[str, str] = {}
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-s", "-p", "no:cacheprovider", *arguments]
    path = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    told = path | environment
    return subprocess.run(command, cwd=folder, env=told, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "environment", "loaded"),
    [
        ([], {}, True),
        (["-p", "no:goldens"], {}, False),
        ([], {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}, False),
        (["-p", "goldens"], {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}, True),
        (["-p", "harness.plugin"], {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}, True),
        ([], {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "harness.plugin"}, True),
    ],
    ids=["installed", "left out", "autoload off", "by name", "by module", "by variable"],
)
def test_it_is_there_when_it_is_wanted(
    folder: Path, arguments: list[str], environment: dict[str, str], loaded: bool
) -> None:
    if not environment and not is_installed():
        pytest.skip("runs from a checkout that is not installed")
    told = run(folder, *arguments, environment=environment)
    assert told.returncode == 0, told.stdout + told.stderr
    assert f"plugin: {loaded}" in told.stdout
    assert ("--goldens-dir" in run(folder, "--help", *arguments, environment=environment).stdout) is loaded


def test_left_out_its_marker_is_nobodys(folder: Path) -> None:
    (folder / "test_it.py").write_text(
        "import pytest\n\n\n@pytest.mark.goldens('tiny.h5')\ndef test_it(goldens, port):\n    goldens.check(port)\n"
    )
    told = run(folder, "-p", "no:goldens", environment={"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"})
    assert told.returncode == 1
    assert "fixture 'goldens' not found" in told.stdout
    assert "Unknown pytest.mark.goldens" in told.stdout
