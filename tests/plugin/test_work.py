"""Work that is not asked for is not done."""

import sys
from collections.abc import Callable

import pytest

from harness.store.reader import GoldenFile
from tests.fakes import NumpyPort

pytest_plugins = ["pytester"]
Run = Callable[..., pytest.RunResult]
HEAVY = {"torch", "jax", "flax", "numba", "numpy", "h5py", "ml_dtypes"}
LIGHT = {"harness"} | {f"harness.plugin{module}" for module in ("", ".gathered", ".items", ".options")}


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> list[frozenset[str]]:
    """The names that ports are asked for, a forward pass each."""
    asked: list[frozenset[str]] = []
    trace = NumpyPort.trace

    def counting(self, inputs, names):
        asked.append(frozenset(names))
        return trace(self, inputs, names)

    monkeypatch.setattr(NumpyPort, "trace", counting)
    return asked


def test_one_forward_pass_serves_a_case_and_dtype(parity: Run, traces: list[frozenset[str]]) -> None:
    parity().assert_outcomes(passed=36)
    assert len(traces) == 4


def test_deselected_components_are_not_computed(
    parity: Run, traces: list[frozenset[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    tensor = GoldenFile.tensor

    def noting(self, row):
        read.append(self.tensors[row].path)
        return tensor(self, row)

    monkeypatch.setattr(GoldenFile, "tensor", noting)
    parity("-k", "padded and float32 and end-to-end and act").assert_outcomes(passed=1, deselected=35)
    assert traces == [{"layers.0.act"}]
    assert {path for path in read if path.startswith("/goldens")} == {
        "/goldens/float32/padded/layers.0.act/output"
    }
    traces.clear()
    parity("-k", "isolated").assert_outcomes(passed=16, deselected=20)
    assert traces == []


@pytest.mark.parametrize("test", ["unrelated", "parity"])
def test_collection_imports_nothing_heavy(project: pytest.Pytester, test: str) -> None:
    project.makepyfile(
        test_unrelated="def test_it():\n    pass\n",
        test_parity="""
            import pytest

            @pytest.mark.goldens("tiny.h5")
            def test_component(goldens, port):
                goldens.check(port)
        """,
    )
    command = [sys.executable, "-X", "importtime", "-m", "pytest", "--trace-config", "--collect-only"]
    result = project.run(*command, f"test_{test}.py")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*: *harness/plugin/__init__.py"])
    imported = {line.rsplit("|", 1)[1].strip() for line in result.errlines if line.startswith("import time:")}
    assert not {name.split(".")[0] for name in imported} & HEAVY
    costly = {name for name in imported if name.split(".")[0] in ("harness", "msgspec", "rich", "xdist")}
    assert bool(costly - LIGHT) == (test == "parity")
