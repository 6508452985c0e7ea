"""Faults in how `qwen_flax` is split: caught and named on four devices, in a process that has so many."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.audit.patched import read_faults

ROOT = Path(__file__).parents[3]
FAULTS_FILE = ROOT / "goldens" / "faults" / "qwen_flax_sharded.toml"
FAULTS = [fault.name for fault in read_faults(FAULTS_FILE)]


def audited(*faults):
    """Fault -> what became of it."""
    chosen = ("goldens/qwen2-tiny.h5", "--case", "left-padded", "--mesh", "dp=2,tp=2", "--json")
    named = [word for fault in faults for word in ("--fault", fault)]
    command = [sys.executable, "-m", "harness.cli", "audit", *chosen, "--faults", str(FAULTS_FILE), *named]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    told = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1200, check=False
    )
    assert told.returncode == 0, told.stderr
    return {result["fault"]: result for result in json.loads(told.stdout)["results"]}


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param(FAULTS, id="all", marks=pytest.mark.slow),
        pytest.param(["sum-over-devices-missing"], id="one"),
    ],
)
def test_what_devices_do_wrong_is_caught_where_it_is_and_named(faults):
    found = audited(*faults)
    assert sorted(found) == sorted(faults)
    for result in found.values():
        assert (result["verdict"], result["mode"], result["planted"]) == ("caught", "isolated", True), result
        assert not result["namable"] or result["naming"] == "named", result
