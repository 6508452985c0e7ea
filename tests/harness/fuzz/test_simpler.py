"""To what a configuration shrinks, of a port that is wrong in some only."""

import json
from pathlib import Path

import pytest

from harness.checkpoints import read_config
from harness.fuzz.simpler import SPECIAL, simplest

CHECKPOINTS = Path(__file__).parents[3] / "goldens" / "checkpoints"


def needs(layers=1, window=False, scaling=False):
    """Fails where there are so many layers, a window, scaled RoPE."""

    def fails(folder):
        config = read_config(folder)
        rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
        return (
            config["num_hidden_layers"] >= layers
            and (not window or config.get("use_sliding_window") is True)
            and (not scaling or rope.get("rope_type", "default") != "default")
        )

    return fails


@pytest.mark.parametrize(
    ("name", "needed", "left"),
    [
        ("qwen3-tiny", needs(), ["1 of 3 layers", "without its sliding window"]),
        ("qwen3-tiny", needs(layers=2, window=True), ["2 of 3 layers"]),
        ("qwen3-tiny", needs(layers=3, window=True), []),
        ("qwen2-tiny", needs(), ["1 of 3 layers"]),
        ("qwen2-deep", needs(layers=7), ["7 of 12 layers"]),
        ("qwen2-yarn", needs(), ["without scaled RoPE"]),
        ("qwen2-yarn", needs(scaling=True), []),
    ],
)
def test_what_is_not_needed_is_left_out(name, needed, left):
    assert simplest(CHECKPOINTS / name, needed) == left


def test_every_special_thing_is_taken_out_of_a_config_that_has_it():
    configs = {
        "its sliding window": {
            "sliding_window": 16,
            "use_sliding_window": True,
            "layer_types": ["sliding_attention"],
        },
        "scaled RoPE": {"rope_parameters": {"rope_type": "yarn", "rope_theta": 5.0, "factor": 2}},
    }
    for special, edit in SPECIAL.items():
        changed = json.loads(json.dumps(configs[special]))
        edit(changed)
        assert changed != configs[special]
        again = json.loads(json.dumps(changed))
        edit(again)
        assert again == changed, "nothing is left to take out"
