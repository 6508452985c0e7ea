"""Short runs of the scripts beside this; `make robust` runs them for long."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("script", "arguments", "said"),
    [
        ("damaged", ["--files", "120", "--seed", "5"], "tried 120"),
        ("interrupted", ["--kills", "12", "--seed", "5"], "incomplete or lost 0"),
        ("together", ["--rounds", "2"], "refused 2 times in 2"),
    ],
)
def test_a_short_run(script, arguments, said):
    command = [sys.executable, "-m", f"tests.robust.{script}", *arguments]
    told = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert told.returncode == 0, told.stdout + told.stderr
    assert said in told.stdout
