"""Each misuse is answered with its sentence, and no two of them reach the same check."""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# pytester forgets what is imported while it runs, and neither JAX nor PyTorch can be imported twice.
import harness.fuzz.command
import harness.record.command  # noqa: F401
import qwen_flax.port  # noqa: F401
from tests.commandline import tell
from tests.fakes import write_checkpoint, write_golden
from tests.misuse.misuse import Misuse
from tests.misuse.projects import ROOT, Refusal, own_modules, refusals
from tests.misuse.table import MISUSES

pytest_plugins = ["pytester"]

_NAMES = re.compile(r"'[^']*'|`[^`]*`|\[[^]]*\]|[\w./*:=-]*[./*_=][\w./*:=-]*|\d+")
_SUITE = 'checkpoint = "model"\n\n[[randomized]]\nname = "short"\nseed = 1\n'


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is copied for each misuse."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "pyproject.toml").write_text('[tool.goldens]\nport = "my_port:make"\n')
    (folder / "my_port.py").write_text("from tests.fakes import *\n")
    (folder / "suite.toml").write_text(_SUITE)
    shutil.copytree(ROOT / "goldens" / "checkpoints" / "qwen2-tiny", folder / "model")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_golden(Path("tiny.h5"), checkpoint=write_checkpoint(Path("checkpoint")))
    return folder


@pytest.fixture(scope="module")
def reached() -> dict[tuple[str, ...], str]:
    """The check that a misuse came to -> what was done wrongly."""
    return {}


@pytest.fixture
def here(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The project, in a folder of its own."""
    folder = tmp_path / "here"
    shutil.copytree(project, folder)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    with own_modules(folder):
        yield folder


@pytest.mark.parametrize("misuse", MISUSES, ids=lambda misuse: f"{misuse.typed}: {misuse.what}")
def test_a_misuse_is_told(
    misuse: Misuse, here: Path, reached: dict[tuple[str, ...], str], request: pytest.FixtureRequest
) -> None:
    misuse.arrange(here)
    with refusals() as made:
        status, told = run(misuse, here, request)
    assert misuse.is_said(told), told
    assert status == misuse.status, told
    assert "Traceback" not in told
    check = _check(misuse, made, told)
    assert reached.setdefault(check, misuse.what) == misuse.what, check


def test_the_page_is_the_table() -> None:
    spec = importlib.util.spec_from_file_location("make_misuse", ROOT / "docs" / "make_misuse.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text(encoding="utf-8") == module.page(), "write it again: make docs"
    assert len(MISUSES) >= 120


@pytest.mark.parametrize("misuse", [misuse for misuse in MISUSES if misuse.what == "an exception"])
def test_the_traceback_is_there_for_who_asks(misuse: Misuse, here: Path) -> None:
    misuse.arrange(here)
    command = [sys.executable, "-m", "harness.cli", "--debug", *shlex.split(misuse.typed)[1:]]
    told = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False).stderr
    assert "Traceback" in told
    assert 'odd.py", line' in told


def run(misuse: Misuse, here: Path, request: pytest.FixtureRequest) -> tuple[int, str]:
    """Exit status, and what was told, with the project's folder left out."""
    command, *arguments = shlex.split(misuse.typed)
    if command == "pytest":
        pytester: pytest.Pytester = request.getfixturevalue("pytester")
        os.chdir(here)
        ours = ("-p", "harness.plugin", "-p", "no:cacheprovider", f"--rootdir={here}")
        answer = pytester.runpytest_inprocess(*ours, *arguments)
        status, told = int(answer.ret), f"{answer.stdout.str()}\n{answer.stderr.str()}"
    elif misuse.apart:
        typed = [sys.executable, "-m", "harness.cli", *arguments]
        ended = subprocess.run(typed, cwd=here, capture_output=True, text=True, check=False)
        status, told = ended.returncode, ended.stdout + ended.stderr
    else:
        answered = tell(here, *arguments, columns=300)
        status, told = answered.status, f"{answered.out}\n{answered.err}"
    return status, told.replace(f"{here}/", "").replace(f"{ROOT}/", "")


def _check(misuse: Misuse, made: list[Refusal], told: str) -> tuple[str, ...]:
    """Where the sentence was made; where another's, or a verdict, says it, only how it is worded."""
    places = [refusal.raised_at for refusal in made if misuse.is_said(refusal.says.replace(f"{ROOT}/", ""))]
    return (*(places[-1] if places else ()), _NAMES.sub("", misuse.says))
