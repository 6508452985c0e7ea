"""The mistake of the story: square projections left untransposed. Every shape is right."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "goldens" / "qwen2-tiny.h5"


@pytest.fixture(scope="module")
def replayed():
    command = [sys.executable, "-m", "harness.cli", "replay", str(GOLDEN), "--json"]
    asked = ["--port", "tests.ports:seed_rule", "--case", "chinese", "--case", "left-padded"]
    process = subprocess.run([*command, *asked], cwd=ROOT, capture_output=True, text=True, check=False)
    assert process.returncode == 1, process.stderr
    return json.loads(process.stdout)


def failed(run, mode, dtype):
    return {
        result["component"]
        for result in run["results"]
        if (result["verdict"], result["mode"], result["dtype"]) == ("fail", mode, dtype)
    }


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_isolated_it_is_the_square_projections_and_nothing_else(replayed, dtype):
    square = {f"layers.{n}.self_attn.{part}" for n in range(3) for part in ("q_proj", "o_proj")}
    assert failed(replayed, "isolated", dtype) == square


def test_the_first_wrong_component_is_named(replayed):
    assert replayed["first_wrong"]["component"] == "layers.0.self_attn.q_proj"
    assert replayed["first_wrong"]["mode"] == "isolated"


def test_end_to_end_the_same_one_fails_first(replayed):
    order = [result["component"] for result in replayed["results"]]
    assert min(failed(replayed, "end-to-end", "float32"), key=order.index) == "layers.0.self_attn.q_proj"


def test_the_error_is_a_mistake_and_no_rounding(replayed):
    errors = [
        result["error"]["whole"] / result["limit"]["whole"]
        for result in replayed["results"]
        if result["kind"] == "q_proj" and (result["mode"], result["dtype"]) == ("isolated", "float32")
    ]
    assert min(errors) > 1e4
