"""What a port prints, wherever it does, is no result: stdout has results alone."""

import json
import os
import subprocess
import sys

import pytest

from tests.commandline import runner
from tests.fakes import write_checkpoint, write_golden

PORT = """
from tests.fakes import NumpyPort

print("while it is imported")

class Talking(NumpyPort):
    def trace(self, inputs, names):
        print("in trace")
        return super().trace(inputs, names)

    def apply(self, name, inputs):
        print("in apply")
        return super().apply(name, inputs)

def make(checkpoint, *, dtype):
    print("while it is made")
    return Talking(dtype)
"""
PRINTED = ("while it is imported", "while it is made", "in trace", "in apply")


@pytest.fixture
def project(monkeypatch, tmp_path):
    write_golden(tmp_path / "tiny.h5", checkpoint=write_checkpoint(tmp_path / "checkpoint"))
    (tmp_path / "talking.py").write_text(PORT)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("talking", None)


@pytest.fixture
def goldens(project, monkeypatch, capsys):
    """Run a command on `tiny.h5` with a port that prints."""
    run = runner(monkeypatch, capsys)
    return lambda command, *options: run(command, "tiny.h5", "--port", "talking:make", *options)


@pytest.mark.parametrize("command", ["replay", "explain", "check-port", "audit"])
def test_json_stays_json(goldens, command):
    options = ("--fault", "logits") if command == "audit" else ()
    told = goldens(command, "--json", *options)
    assert isinstance(json.loads(told.out), dict), told.out
    assert all(line in told.err for line in PRINTED[:2]), told.err


@pytest.mark.parametrize("command", ["replay", "explain", "check-port"])
def test_where_people_read_results_it_is_not_among_them(goldens, command):
    told = goldens(command)
    assert told.status == 0, told.err
    assert told.out
    assert [line for line in PRINTED if line in told.out] == []
    assert all(line in told.err for line in PRINTED)


def test_a_recording_of_a_port_is_told_alone(project, monkeypatch, capsys):
    options = ("--from-port", "--like", "tiny.h5", "--port", "talking:make", "-o", "own.h5")
    told = runner(monkeypatch, capsys)("record", *options)
    assert told.status == 0, told.err
    assert "own.h5" in told.out
    assert [line for line in PRINTED if line in told.out] == []


def test_results_told_before_a_port_ended_the_process_are_told(project):
    """The second golden file is never told: the port does not come back from it."""
    (project / "ending.py").write_text(
        PORT.replace('print("in trace")', "self.traces += 1\n        if ended(): import time; time.sleep(60)")
        + "\nmade = []\n\ndef ended():\n    made.append(1)\n    return len(made) > 1\n"
    )
    command = [sys.executable, "-m", "harness.cli", "replay", "tiny.h5", "tiny.h5", "--port", "ending:make"]
    asked = [*command, "--json", "--mode", "end-to-end", "--timeout", "2"]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    told = subprocess.run(asked, capture_output=True, text=True, timeout=60, env=buffered)
    assert told.returncode == 2, told.stderr
    assert "did not come back from a whole run" in told.stderr
    assert json.loads(told.stdout)["verdict"] == "pass"
