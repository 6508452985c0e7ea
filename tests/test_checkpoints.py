"""The built-in checkpoints: the same bytes wherever they are made, and nothing in them hides a mistake."""

import json
import subprocess
import sys
from pathlib import Path

import ml_dtypes  # noqa: F401  teaches numpy the name bfloat16
import numpy as np
import pytest
from safetensors.numpy import load_file

FOLDER = Path(__file__).parents[1] / "goldens" / "checkpoints"
SCALED = ("qwen2-linear", "qwen2-dynamic", "qwen2-yarn", "qwen2-llama3")
NAMES = ("qwen2-tiny", "qwen3-tiny", "qwen2-deep", "qwen2-eight", *SCALED)
SENTENCE = "Water boils at one hundred degrees, 水在一百度沸腾。"


def weights(name):
    return {
        key: value.astype(np.float64) for key, value in load_file(FOLDER / name / "model.safetensors").items()
    }


def rms(values, axis=None):
    return np.sqrt(np.mean(np.square(values), axis=axis))


def test_making_them_again_gives_the_bytes_in_git(tmp_path):
    subprocess.run([sys.executable, FOLDER / "make.py", tmp_path], check=True, capture_output=True)
    made = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    kept = {
        path.relative_to(FOLDER): path.read_bytes()
        for name in NAMES
        for path in (FOLDER / name).rglob("*")
        if path.is_file()
    }
    assert sorted(made) == sorted(kept)
    assert [str(path) for path in made if made[path] != kept[path]] == []


@pytest.mark.parametrize("name", NAMES)
def test_no_parameter_is_neutral_and_no_two_are_alike(name):
    tensors = weights(name)
    for key, value in tensors.items():
        assert np.isfinite(value).all(), key
        assert value.ndim == 2 or len(np.unique(value)) > 4, key
        assert rms(value) > 0.01, key
    payloads = [value.tobytes() for value in tensors.values()]
    assert len(set(payloads)) == len(payloads)


@pytest.mark.parametrize("name", ["qwen2-tiny", "qwen2-deep", "qwen2-eight", *SCALED])
def test_key_biases_are_large_in_places(name):
    for key, value in weights(name).items():
        if key.endswith("k_proj.bias"):
            assert np.abs(value).max() > 4 * np.median(np.abs(value)), key


def test_query_and_key_norms_differ_within_every_rotary_pair():
    for key, value in weights("qwen3-tiny").items():
        if key.endswith(("q_norm.weight", "k_norm.weight")):
            first, second = np.split(value, 2)
            assert (first != second).all(), key


@pytest.mark.parametrize("name", NAMES)
def test_a_few_embedding_rows_are_tiny_and_none_is_zero(name):
    rows = rms(weights(name)["model.embed_tokens.weight"], axis=1)
    assert np.sum(rows < 0.005) == 6
    assert rows.min() > 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_the_tokenizer_is_smaller_than_the_vocabulary_and_gives_the_text_back(name):
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(FOLDER / name)
    ids = tokenizer(SENTENCE)["input_ids"]
    assert ids == list(SENTENCE.encode())
    assert tokenizer.decode(ids) == SENTENCE
    assert len(tokenizer) == 259 < json.loads((FOLDER / name / "config.json").read_text())["vocab_size"]
    chat = [{"role": "user", "content": "Hi"}]
    text = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    assert text == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer(text)["input_ids"][0] == 257


@pytest.fixture(scope="module", params=[(name, dtype) for name in NAMES for dtype in ("float32", "bfloat16")])
def reference_run(request):
    """The reference on one sentence: (config, output with hidden states and attentions)."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    name, dtype = request.param
    model, loading = transformers.AutoModelForCausalLM.from_pretrained(
        FOLDER / name, dtype=getattr(torch, dtype), attn_implementation="eager", output_loading_info=True
    )
    assert not any(loading.values()), loading
    with torch.no_grad():
        ids = torch.tensor([list(SENTENCE.encode())])
        return model.config, model(ids, output_hidden_states=True, output_attentions=True)


def test_the_residual_stream_grows_and_neither_explodes_nor_dies(reference_run):
    _, output = reference_run
    sizes = [rms(state.float().numpy()) for state in output.hidden_states[:-1]]
    assert 0.02 < sizes[0] < 0.05
    assert sizes == sorted(sizes)
    assert len(sizes) == 1 or 0.9 < sizes[-1] < 3
    spread = output.logits.float().numpy().std(axis=-1)
    assert ((spread > 1.5) & (spread < 5)).all()


def test_attention_is_far_from_uniform_and_far_from_one_hot(reference_run):
    _, output = reference_run
    for attention in output.attentions:
        likeliest = attention[:, :, 8:].float().numpy().max(axis=-1).mean()
        assert 0.4 < likeliest < 0.75


def test_settings_that_are_easily_misread_are_read(reference_run):
    config, _ = reference_run
    assert config.rope_parameters["rope_theta"] in (1e6, 5e6)
    assert config.rms_norm_eps == 1e-6
    sliding = ["sliding" in kind for kind in config.layer_types]
    assert sliding == [config.model_type == "qwen3" and layer >= 1 for layer in range(len(sliding))]


def test_scaled_ropes_are_scaled_in_four_ways_as_both_versions_write_it(reference_run):
    config, _ = reference_run
    name = Path(config.name_or_path).name
    expected = name.removeprefix("qwen2-") if name in SCALED else "default"
    assert config.rope_parameters["rope_type"] == expected
    raw = json.loads((FOLDER / name / "config.json").read_text())
    assert ("rope_scaling" in raw) is (name in ("qwen2-linear", "qwen2-yarn"))


@pytest.mark.parametrize("name", SCALED)
def test_a_checkpoint_with_a_scaled_rope_is_small(name):
    assert max(path.stat().st_size for path in (FOLDER / name).iterdir()) < 60_000
