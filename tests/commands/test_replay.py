"""`goldens replay` of the project's own port: what it refuses, and how it says so."""

from pathlib import Path

import pytest

from qwen_flax.port import make

ROOT = Path(__file__).parents[2]
GOLDEN = str(ROOT / "goldens" / "qwen2-tiny.h5")
REPLAY = ("replay", GOLDEN, "--checkpoint", "checkpoint", "--case", "tiny-norm", "--dtype", "float32")


def refused(told):
    assert told.status == 2
    assert told.out == ""
    assert told.err.count("\n") == 1, told.err
    return told.err


def test_one_component_by_its_name(goldens):
    told = goldens(*REPLAY, "--include", "layers.1.self_attn.q_proj", "--mode", "isolated")
    assert told.status == 0, told.err
    assert "1 pass, 0 fail, 0 unmeasured" in told.out


def test_an_unknown_component_brings_the_nearest_names(goldens):
    assert "nearest: layers.1.self_attn.q_proj" in refused(
        goldens(*REPLAY, "--include", "layers.1.self_attn.q_prog")
    )


def test_a_dtype_that_was_not_recorded(goldens):
    assert "dtype 'float16' was not recorded" in refused(goldens("replay", GOLDEN, "--dtype", "float16"))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"rope_theta": 2e6}, "rope_theta is 2000000.0"),
        ({"rms_norm_eps": 1e-5}, "rms_norm_eps is 1e-05, recorded 1e-06"),
        ({"model_type": "llama"}, "model_type is 'llama', recorded 'qwen2'"),
    ],
)
def test_another_configuration_than_the_recorded_is_refused(goldens, change_config, settings, sentence):
    change_config(**settings)
    told = refused(goldens(*REPLAY))
    assert "is not the recorded one" in told
    assert sentence in told


def test_other_weights_than_the_recorded_are_refused(goldens, change_tensors):
    def nudge(tensors):
        tensors["model.norm.weight"][5] *= 2

    change_tensors(nudge)
    assert "model.safetensors differ by SHA-256" in refused(goldens(*REPLAY))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda tensors: tensors.pop("model.norm.weight"), "model.norm.weight"),
        (lambda tensors: tensors.update(extra=tensors["model.norm.weight"]), "extra"),
    ],
)
def test_a_missing_or_surplus_tensor_is_named_by_the_port(goldens, change_tensors, change, sentence):
    change_tensors(change)
    with pytest.raises(ValueError, match=sentence):
        make("checkpoint", dtype="float32")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"model_type": "mamba"}, "mamba"),
        ({"clip_qkv": 8}, "clip_qkv"),
    ],
)
def test_an_unsupported_setting_is_named_by_the_port(goldens, change_config, settings, sentence):
    change_config(**settings)
    with pytest.raises(ValueError, match=sentence):
        make("checkpoint", dtype="float32")
