"""Ports with one mistake each, replayed against built-in goldens: what is said of them."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GOLDEN = str(ROOT / "goldens" / "qwen2-tiny.h5")


@pytest.fixture
def results(goldens, monkeypatch):
    """Replay a port of tests.ports in float32 and return the exit status and the failed results."""
    monkeypatch.syspath_prepend(str(ROOT))

    def replay(port, *more, golden=GOLDEN):
        checkpoint = ("--checkpoint", "checkpoint", "--dtype", "float32")
        told = goldens("replay", golden, "--port", f"tests.ports:{port}", *checkpoint, "--json", *more)
        assert told.status in (0, 1), told.err
        run = json.loads(told.out)
        return told.status, [result for result in run["results"] if result["verdict"] == "fail"]

    return replay


def test_a_prompt_cut_short_does_not_pass_for_the_positions_it_has(goldens, results):
    """Only the first positions are recorded, and they are right: but the port did not read the prompt."""
    recorded = goldens(
        *("record", "suites/small.toml", "-o", "first.h5", "--case", "random-1", "--keep", "tokens=0-3"),
        *("--keep", "components=norm,lm_head"),
    )
    assert recorded.status == 0, recorded.err
    status, failed = results("cut_short", "--mode", "end-to-end", golden="first.h5")
    assert status == 1
    assert {result["component"] for result in failed} == {"norm", "lm_head"}
    assert failed[1]["reason"] == "shape (2, 4, 512), where the whole output has (2, 5, 512)"


def test_axes_in_another_order_are_told_as_the_port_gave_them(results):
    _, failed = results(
        "heads_inside", "--case", "left-padded", "--include", "*.q_rope", "--mode", "end-to-end"
    )
    assert {result["reason"] for result in failed} == {
        "shape (2, 9, 14, 8), where the whole output has (2, 14, 9, 8)"
    }


@pytest.mark.parametrize(
    ("port", "component"),
    [
        ("without_key_bias", "layers.1.self_attn.k_proj"),
        ("one_wrong_element", "layers.2.mlp.down_proj"),
    ],
)
def test_one_mistake_is_one_failure(results, port, component):
    status, failed = results(port, "--case", "far", "--mode", "isolated")
    assert status == 1
    assert [result["component"] for result in failed] == [component]
