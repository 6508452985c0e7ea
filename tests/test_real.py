"""The story's mistake on a real checkpoint, after `make real`: make nightly MODEL=DIR_OR_HUB_ID."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "real" / "real.h5"


@pytest.mark.skipif(not os.environ.get("MODEL"), reason="MODEL names no checkpoint")
def test_square_projections_left_untransposed_are_named_in_every_layer():
    asked = ["--port", "tests.ports:seed_rule", "--checkpoint", os.environ["MODEL"], "--dtype", "float32"]
    command = [sys.executable, "-m", "harness.cli", "replay", str(GOLDEN), "--case", "left-padded", "--json"]
    process = subprocess.run([*command, *asked], cwd=ROOT, capture_output=True, text=True, check=False)
    assert process.returncode == 1, process.stderr
    run = json.loads(process.stdout)
    failed = [result for result in run["results"] if result["verdict"] == "fail"]
    isolated = {result["component"] for result in failed if result["mode"] == "isolated"}
    layers = {result["component"].split(".")[1] for result in run["results"] if result["kind"] == "q_proj"}
    assert isolated == {f"layers.{n}.self_attn.{part}" for n in layers for part in ("q_proj", "o_proj")}
    assert run["first_wrong"]["component"] == "layers.0.self_attn.q_proj"
    end_to_end = [result["component"] for result in failed if result["mode"] == "end-to-end"]
    assert end_to_end[0] == "layers.0.self_attn.q_proj"
