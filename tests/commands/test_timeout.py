"""`--timeout`: a port that does not come back ends an audit, fuzzing, a check and an explanation, too, with a sentence.

tests/misuse has the commands that replay a golden file.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes import write_checkpoint, write_golden

ROOT = Path(__file__).parents[2]
CHECKPOINT = ROOT / "goldens" / "checkpoints" / "qwen2-tiny"
ENDLESS = """
from pathlib import Path

import jax  # which is asked for its platform while the time runs: importing it may take seconds
from tests.fakes import NumpyPort

class Endless(NumpyPort):
    def apply(self, name, inputs):
        while name == "layers.0.q_proj":
            pass
        return super().apply(name, inputs)

    def trace(self, inputs, names):
        while True:
            pass

def make(checkpoint, *, dtype):
    return Endless(dtype)

def never(checkpoint, *, dtype):
    while True:
        pass

def never_a_copy(checkpoint, *, dtype):
    while Path(__file__).parent != Path.cwd():
        pass
    return NumpyPort(dtype)

class Once(NumpyPort):
    def apply(self, name, inputs):
        while name == "layers.0.q_proj" and name in self.applied:
            pass
        return {name: value + 1 for name, value in super().apply(name, inputs).items()}

def once(checkpoint, *, dtype):
    return Once(dtype)

class Raising(NumpyPort):
    def trace(self, inputs, names):
        raise ValueError("it always fails")

def never_again(checkpoint, *, dtype, made=[]):
    while made:
        pass
    made.append(checkpoint)
    return Raising(dtype)
"""
FAULT = """
[[fault]]
name = "silu-of-minus-x"
area = "MLP"
says = "silu is given minus x"
at = ["layers.*.act"]
replace = [{ file = "endless.py", find = "it always fails", with = "it never holds" }]
"""
FUZZ = ("fuzz", "--checkpoint", str(CHECKPOINT), "--dtype", "float32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("endless")
    (folder / "endless.py").write_text(ENDLESS)
    (folder / "faults.toml").write_text(FAULT)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_golden(Path("tiny.h5"), checkpoint=write_checkpoint(Path("checkpoint")))
    return folder


@pytest.mark.parametrize(
    ("arguments", "factory", "asked"),
    [
        (("audit", "tiny.h5"), "make", "layers.0.q_proj (hello float32 isolated)"),
        pytest.param(("audit", "tiny.h5"), "never", "its factory (float32)", marks=pytest.mark.slow),
        (("audit", "tiny.h5", "--faults", "faults.toml"), "never_a_copy", "its factory (float32)"),
        pytest.param(FUZZ, "make", "a whole run (input float32 end-to-end)", marks=pytest.mark.slow),
        (FUZZ, "never_again", "its factory (float32)"),
        (
            ("replay", "tiny.h5", "--mode", "isolated"),
            "once",
            "layers.0.q_proj (hello float32 isolated), to explain it",
        ),
        (("check", str(CHECKPOINT)), "never", "its factory (float32)"),
    ],
    ids=lambda value: " ".join(value[:1]) if isinstance(value, tuple) else None,
)
def test_a_port_that_does_not_come_back_ends_the_command(folder, arguments, factory, asked):
    command = [
        sys.executable,
        "-m",
        "harness.cli",
        *arguments,
        "--port",
        f"endless:{factory}",
        "--timeout",
        "3",
    ]
    ended = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        env={"PYTHONPATH": str(ROOT), "COLUMNS": "300"},
    )
    assert ended.returncode == 2
    assert f"the port did not come back from {asked} within 3 s" in ended.stderr
    assert "--timeout" in ended.stderr
    assert "Traceback" not in ended.stderr
