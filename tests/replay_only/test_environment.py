"""Run in an environment without the extra `record`: `make test-replay-only`."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.replay_only

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["torch", "transformers", "hypothesis"])
def test_what_only_recording_needs_is_not_installed(name):
    assert importlib.util.find_spec(name) is None


def test_recording_says_what_to_install(tmp_path):
    command = Path(sys.executable).with_name("goldens")
    suite = ROOT / "goldens" / "suites" / "qwen2-tiny.toml"
    done = subprocess.run(
        [command, "record", suite, "-o", tmp_path / "new.h5"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "[record]" in done.stderr
    assert len(done.stderr.splitlines()) == 1
