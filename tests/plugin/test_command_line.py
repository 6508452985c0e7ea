"""What the command line shares with the plugin: the port that a project names."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes import write_checkpoint, write_golden

ROOT = Path(__file__).parents[2]


def goldens(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run as the installed command runs: the current folder is not on the path by itself."""
    code = "import sys; sys.path.remove(''); from harness.cli.app import main; main()"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "100", "TERMINAL_WIDTH": "100"}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with its port beside pyproject.toml, and golden files in a folder of their own."""
    (tmp_path / "pyproject.toml").write_text('[tool.goldens]\nport = "own_port:make"\n')
    (tmp_path / "own_port.py").write_text("from tests.fakes import make\n")
    (tmp_path / "data").mkdir()
    write_golden(tmp_path / "data" / "tiny.h5", checkpoint=write_checkpoint(tmp_path / "checkpoint"))
    return tmp_path


@pytest.mark.parametrize("below", ["", "data"])
def test_the_port_is_found_from_wherever_the_setting_is(project: Path, below: str) -> None:
    told = goldens(project / below, "replay", str(project / "data" / "tiny.h5"))
    assert told.returncode == 0, told.stderr


def test_a_port_named_on_the_command_line_is_looked_for_here(project: Path) -> None:
    (project / "data" / "own_port.py").write_text("from tests.fakes import make_faulty as make\n")
    asked = ("replay", "tiny.h5", "--port", "own_port:make")
    assert goldens(project / "data", *asked).returncode == 1
    assert goldens(project / "data", "replay", "tiny.h5").returncode == 0


def test_help_says_where_the_port_is_set(project: Path) -> None:
    words = " ".join(goldens(project, "replay", "--help").stdout.split())
    assert "The port; else port under [tool.goldens] in pyproject.toml." in words
