"""Facts that are read off the loaded reference: settings as it uses them, parameters as it holds them."""

import hashlib
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402

from harness.errors import GoldensError  # noqa: E402
from harness.facts.config import CONFIG  # noqa: E402
from harness.facts.family import Context  # noqa: E402
from harness.facts.fingerprint import fingerprint  # noqa: E402
from harness.model import Verdict  # noqa: E402
from harness.record import reference  # noqa: E402
from harness.record.decoder import find_decoder  # noqa: E402
from harness.record.discover import discover  # noqa: E402
from harness.record.facts.config import config_facts  # noqa: E402
from harness.record.facts.parameters import parameter_facts, parameter_names  # noqa: E402
from harness.record.reference import TORCH_DTYPES  # noqa: E402
from harness.replay.port import load_port  # noqa: E402
from tests.harness.record.test_recorder import SHAPE, make_checkpoint  # noqa: E402

ROPE = {
    "linear": {"rope_type": "linear", "factor": 4.0},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "original_max_position_embeddings": 64,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
    },
}


def told(folder):
    """Setting -> value, of the reference loaded from a folder."""
    model = reference.load(folder, "float32")
    facts = config_facts(model, discover(find_decoder(model)))
    assert {(fact.family, fact.case) for fact in facts} == {("config", "checkpoint")}
    return {fact.component.removeprefix("config."): fact.expected for fact in facts}


def set_json(path, **changes):
    content = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**content, **changes}))


def test_settings_are_those_of_the_architecture(tmp_path):
    llama = told(make_checkpoint(tmp_path / "llama"))
    assert {name: llama[name] for name in SHAPE} == SHAPE
    assert (llama["head_dim"], llama["scaling"]) == (8, 8**-0.5)
    assert (llama["qkv_bias"], llama["o_bias"], llama["mlp_bias"], llama["qk_norm"]) == (
        False,
        False,
        True,
        False,
    )
    mistral = told(make_checkpoint(tmp_path / "mistral", "mistral"))
    assert mistral["windows"] == [4, 4]
    qwen2 = told(make_checkpoint(tmp_path / "qwen2", "qwen2"))
    assert (qwen2["windows"], qwen2["qkv_bias"], qwen2["o_bias"]) == ([None, 4], True, False)
    qwen3 = told(make_checkpoint(tmp_path / "qwen3", "qwen3"))
    assert (qwen3["head_dim"], qwen3["scaling"], qwen3["num_attention_heads"]) == (16, 0.25, 4)
    assert (qwen3["qk_norm"], qwen3["tie_word_embeddings"], qwen3["hidden_act"]) == (True, True, "silu")
    assert (llama["tie_word_embeddings"], llama["rope_scaling"], llama["rope_theta"]) == (
        False,
        None,
        10_000.0,
    )


def test_a_window_that_is_off_is_not_told(tmp_path):
    folder = make_checkpoint(tmp_path / "off", "qwen2", use_sliding_window=False)
    set_json(folder / "config.json", sliding_window=4)
    assert told(folder)["windows"] == [None, None]


@pytest.mark.parametrize("rope_type", ROPE)
def test_scaling_of_positions_has_what_angles_follow_from(rope_type, tmp_path):
    folder = make_checkpoint(
        tmp_path / "scaled",
        "qwen2",
        max_position_embeddings=256,
        rope_parameters={"rope_theta": 1e5, **ROPE[rope_type]},
    )
    scaling = told(folder)["rope_scaling"]
    assert ROPE[rope_type].items() <= scaling.items()
    assert (
        set(scaling) - set(ROPE[rope_type])
        == {
            "linear": set(),
            "dynamic": {"original_max_position_embeddings"},
            "yarn": {"attention_factor", "beta_fast", "beta_slow", "truncate"},
            "llama3": set(),
        }[rope_type]
    )
    if rope_type == "dynamic":
        assert scaling["original_max_position_embeddings"] == 256
    agrees(folder)


def agrees(folder):
    """The port of this project understands the same."""
    model = reference.load(folder, "float32")
    port = load_port("qwen_flax.port:make", str(folder), "float32")
    for fact in config_facts(model, discover(find_decoder(model))):
        found = CONFIG.judge(fact, CONFIG.ask(port, fact), Context("float32", None))
        assert found.verdict is Verdict.PASS, (fact, found)


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_the_port_of_this_project_understands_the_same(family, tmp_path):
    folder = make_checkpoint(tmp_path / family, family)
    set_json(folder / "config.json", eos_token_id=3)
    set_json(folder / "generation_config.json", do_sample=True, top_p=0.8, eos_token_id=[3, 2])
    agrees(folder)


SAMPLING = ("do_sample", "repetition_penalty", "temperature", "top_k", "top_p", "min_p")


@pytest.mark.parametrize(
    ("written", "in_effect"),
    [
        ({}, (False, None, None, None, None, None)),
        ({"do_sample": True}, (True, None, None, 50, None, None)),
        (
            {"do_sample": True, "temperature": 0.7, "top_k": 20, "top_p": 0.8},
            (True, None, 0.7, 20, 0.8, None),
        ),
        ({"do_sample": True, "min_p": 0.1, "top_k": 0}, (True, None, None, None, None, 0.1)),
        (
            {"do_sample": False, "repetition_penalty": 1.05, "top_k": 20},
            (False, 1.05, None, None, None, None),
        ),
    ],
)
def test_generation_settings_are_those_in_effect(written, in_effect, tmp_path):
    folder = make_checkpoint(tmp_path / "checkpoint", "qwen2")
    (folder / "generation_config.json").write_text(json.dumps(written))
    settings = told(folder)
    assert tuple(settings[f"generation.{name}"] for name in SAMPLING) == in_effect
    agrees(folder)


@pytest.mark.parametrize(
    ("of_config", "of_generation", "ids"), [(3, [9, 4], [4, 9]), (3, None, [3]), ([5, 3], None, [3, 5])]
)
def test_ids_that_end_a_text(of_config, of_generation, ids, tmp_path):
    folder = make_checkpoint(tmp_path / "checkpoint", "qwen2")
    set_json(folder / "config.json", eos_token_id=of_config)
    (folder / "generation_config.json").unlink()
    if of_generation is not None:
        set_json(folder / "generation_config.json", eos_token_id=of_generation)
    assert told(folder)["eos_token_ids"] == ids


@pytest.mark.parametrize(
    ("key", "dtype"), [("dtype", "bfloat16"), ("torch_dtype", "float16"), ("dtype", None)]
)
def test_the_dtype_is_that_of_the_file_not_the_one_that_was_asked_for(key, dtype, tmp_path):
    folder = make_checkpoint(tmp_path / "checkpoint", "qwen2")
    content = json.loads((folder / "config.json").read_text())
    content.pop("dtype", None)
    (folder / "config.json").write_text(json.dumps({**content, key: dtype}))
    assert told(folder)["dtype"] == dtype


def test_parameters_are_rounded_as_the_reference_rounds_them(tmp_path):
    folder = make_checkpoint(tmp_path / "checkpoint", "qwen3")
    names = parameter_names(reference.load(folder, "float32"))
    listed, *facts = parameter_facts(folder, tuple(TORCH_DTYPES), names)
    assert listed.component == "parameters"
    assert listed.expected["tied"] == {"lm_head.weight": "model.embed_tokens.weight"}
    assert [f"parameters.{name}" for name in listed.expected["names"]] == [fact.component for fact in facts]
    for dtype in TORCH_DTYPES:
        loaded = dict(reference.load(folder, dtype).named_parameters())
        assert list(loaded) == listed.expected["names"]
        for fact in facts:
            tensor = loaded[fact.component.removeprefix("parameters.")].detach()
            data = tensor.contiguous().view(-1).view(torch.uint8).numpy()
            assert fact.expected["sha256"][dtype] == hashlib.sha256(data.tobytes()).hexdigest()
            assert fact.expected["shape"] == list(tensor.shape)
            assert fact.expected["stored"] == "float32"


def test_a_tied_parameter_may_be_stored_under_its_other_name(tmp_path):
    folder = make_checkpoint(tmp_path / "checkpoint", "qwen3")
    names = parameter_names(reference.load(folder, "float32"))
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    facts = {fact.component: fact for fact in parameter_facts(folder, ("float32",), names)}
    expected = facts["parameters.model.embed_tokens.weight"].expected["sha256"]["float32"]
    assert expected == fingerprint(np.asarray(tensors["lm_head.weight"]), "float32")
    del tensors["model.norm.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(GoldensError, match=r"has no tensor model\.norm\.weight"):
        parameter_facts(folder, ("float32",), names)
