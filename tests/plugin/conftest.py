"""A project in a temporary folder, with a checkpoint, a golden file and one parity test."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes import write_checkpoint, write_golden

PARITY = """
    import pytest

    @pytest.mark.goldens("tiny.h5"{keywords})
    def test_component(goldens, port):
        goldens.check(port)
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    # This plugin and no other, however this environment was made.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p harness.plugin")
    checkpoint = write_checkpoint(pytester.path / "checkpoint")
    write_golden(pytester.path / "tiny.h5", ("float32", "bfloat16"), ("hello", "padded"), checkpoint)
    set_port(pytester, "make")
    return pytester


def set_port(project: pytest.Pytester, factory: str) -> None:
    project.makeini(f"[pytest]\ngoldens_port = tests.fakes:{factory}\n")


@pytest.fixture
def parity(project: pytest.Pytester) -> Callable[..., pytest.RunResult]:
    """Run the parity test with further keywords of its marker, on a port that `tests.fakes` makes."""

    def run(*arguments: str, keywords: str = "", factory: str = "make") -> pytest.RunResult:
        set_port(project, factory)
        project.makepyfile(test_parity=PARITY.format(keywords=keywords and f", {keywords}"))
        return project.runpytest("-p", "no:cacheprovider", *arguments)

    return run
