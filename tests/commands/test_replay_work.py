"""`goldens replay --include` computes, and reads, what is asked for, and no more."""

import pytest

from harness.store.reader import GoldenFile
from tests.commandline import runner
from tests.fakes import NumpyPort, write_checkpoint, write_golden


@pytest.fixture
def goldens(monkeypatch, capsys, tmp_path):
    """Replay two cases in two dtypes: of five components, four are run by themselves."""
    checkpoint = write_checkpoint(tmp_path / "checkpoint")
    write_golden(tmp_path / "tiny.h5", ("float32", "bfloat16"), ("hello", "padded"), checkpoint)
    monkeypatch.chdir(tmp_path)
    run = runner(monkeypatch, capsys)

    def replay(*options):
        told = run("replay", "tiny.h5", "--port", "tests.fakes:make", *options)
        assert told.status == 0, told.err
        return told.out

    return replay


@pytest.fixture
def work(monkeypatch):
    """What ports are asked: `apply` with a component, `trace` with several; and which payloads are read."""
    asked, read = [], []
    trace, apply, payload = NumpyPort.trace, NumpyPort.apply, GoldenFile._read

    def tracing(self, inputs, names):
        asked.append(("trace", self.dtype.name, *sorted(names)))
        return trace(self, inputs, names)

    def applying(self, name, inputs):
        asked.append(("apply", self.dtype.name, name))
        return apply(self, name, inputs)

    def reading(self, tensor):
        read.append(tensor.path)
        return payload(self, tensor)

    monkeypatch.setattr(NumpyPort, "trace", tracing)
    monkeypatch.setattr(NumpyPort, "apply", applying)
    monkeypatch.setattr(GoldenFile, "_read", reading)
    return asked, read


def test_everything_is_a_pass_for_each_case_and_a_run_of_each_component(goldens, work):
    goldens()
    asked, read = work
    assert sorted({each[0]: sum(e[0] == each[0] for e in asked) for each in asked}.items()) == [
        ("apply", 2 * 2 * 4),
        ("trace", 2 * 2),
    ]
    assert len(read) == len(set(read)), "a payload is hashed once"


def test_one_component_of_one_case_is_run_once_and_traced_alone(goldens, work):
    goldens("--include", "layers.0.act", "--case", "padded", "--dtype", "float32")
    asked, read = work
    assert sorted(asked) == [("apply", "float32", "layers.0.act"), ("trace", "float32", "layers.0.act")]
    assert {path for path in read if path.startswith("/goldens")} == {
        "/goldens/float32/padded/layers.0.act/output",
        "/goldens/float32/padded/layers.0.q_proj/output",
    }


def test_isolated_there_is_no_pass(goldens, work):
    goldens("--include", "layers.0.*", "--exclude", "*.act", "--mode", "isolated", "--dtype", "bfloat16")
    asked, _ = work
    assert asked == [("apply", "bfloat16", "layers.0.q_proj")] * 2
