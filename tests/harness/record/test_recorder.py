"""Recording: what is in the file is what `transformers` computes, and what is not known is refused."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from harness.checkpoints import read_config  # noqa: E402
from harness.errors import GoldensError  # noqa: E402
from harness.record.keep import parse  # noqa: E402
from harness.record.recorder import Request, Silent, record  # noqa: E402
from harness.record.reference import TORCH_DTYPES  # noqa: E402
from harness.review.diff import Agreement, compare  # noqa: E402
from harness.store.reader import GoldenFile  # noqa: E402
from harness.store.verify import verify  # noqa: E402

SHAPE = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
LONGROPE = {
    "rope_type": "longrope",
    "factor": 2.0,
    "short_factor": [1.0] * 4,
    "long_factor": [2.0] * 4,
    "original_max_position_embeddings": 8,
}
FAMILIES = {
    "llama": ("Llama", {"mlp_bias": True}),
    "mistral": ("Mistral", {"sliding_window": 4, "head_dim": 8}),
    "qwen2": ("Qwen2", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}),
    "qwen3": ("Qwen3", {"head_dim": 16, "tie_word_embeddings": True}),
}


def make_checkpoint(folder, family="llama", **changes):
    """A model with random numbers everywhere, biases and norm weights too."""
    prefix, extra = FAMILIES.get(family, (family, {}))
    config = getattr(transformers, f"{prefix}Config")(**{**SHAPE, **extra, **changes})
    torch.manual_seed(1)
    model = getattr(transformers, f"{prefix}ForCausalLM")(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.3 + (1.0 if "norm" in name else 0.0))
    model.save_pretrained(folder)
    return folder


def inputs(name="mixed", batch=2, length=9, pad=3, seed=0):
    ids = np.random.default_rng(seed).integers(0, SHAPE["vocab_size"], (batch, length)).astype(np.int32)
    mask = np.ones((batch, length), np.int32)
    mask[0, :pad] = 0
    positions = np.maximum(mask.cumsum(1) - 1, 0).astype(np.int32)
    return SimpleNamespace(
        name=name, origin="randomized", detail="", token_ids=ids, attention_mask=mask, positions=positions
    )


def make_golden(folder, path, cases=None, dtypes=("float32",), keep=()):
    cases = (inputs(),) if cases is None else cases
    request = Request(str(folder), "folder", folder, read_config(folder), cases, dtypes, parse(list(keep)))
    record(request, path, Silent())
    return GoldenFile.open(path)


def run_reference(folder, case, dtype="float32"):
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=TORCH_DTYPES[dtype], attn_implementation="eager"
    )
    with torch.inference_mode():
        return model(
            input_ids=torch.from_numpy(case.token_ids).long(),
            attention_mask=torch.from_numpy(case.attention_mask).long(),
            position_ids=torch.from_numpy(case.positions).long(),
            output_hidden_states=True,
            output_attentions=True,
        )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_goldens_are_what_transformers_computes(tmp_path, family, dtype):
    """Held against what the model hands out by itself: hidden states, attentions and logits."""
    folder, case = make_checkpoint(tmp_path / "model", family), inputs()
    file = make_golden(folder, tmp_path / "g.h5", dtypes=(dtype,))
    expected = run_reference(folder, case, dtype)
    golden = {g.component: file.output(g) for g in file.contents.goldens}

    def same(name, tensor):
        if tensor.dtype == torch.bfloat16:
            tensor = tensor.contiguous().view(torch.uint16)
            np.testing.assert_array_equal(golden[name].view(np.uint16), tensor.numpy())
        else:
            np.testing.assert_array_equal(golden[name], tensor.numpy())

    same("embed_tokens", expected.hidden_states[0])
    same("layers.0.mlp_residual", expected.hidden_states[1])
    same("layers.0", expected.hidden_states[1])
    same("norm", expected.hidden_states[2])
    same("lm_head", expected.logits)
    for layer in range(2):
        same(f"layers.{layer}.self_attn.probs", expected.attentions[layer])
    assert not list(verify(tmp_path / "g.h5") or [])


@pytest.mark.parametrize("family", FAMILIES)
def test_every_module_is_a_component(tmp_path, family):
    folder = make_checkpoint(tmp_path / "model", family)
    file = make_golden(folder, tmp_path / "g.h5")
    names = {component.name for component in file.contents.components}
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    for path, module in model.named_modules():
        if not list(module.children()) and not path.endswith(("rotary_emb", "act_fn")):
            assert path.removeprefix("model.") in names
    assert {"layers.1.self_attn.scores", "layers.1.mlp.gated", "rotary_emb.sin"} <= names
    assert ("layers.0.self_attn.q_norm" in names) == (family == "qwen3")


def test_inputs_are_links_to_what_produced_them(tmp_path):
    file = make_golden(make_checkpoint(tmp_path / "model"), tmp_path / "g.h5")
    golden = {g.component: g for g in file.contents.goldens}
    name = "layers.1.self_attn"
    assert golden[f"{name}.q_proj"].inputs["x"] == golden["layers.1.input_layernorm"].output
    assert golden[f"{name}.context"].inputs["v"] == golden[f"{name}.v_expanded"].output
    assert golden["layers.1.attn_residual"].inputs["residual"] == golden["layers.0.mlp_residual"].output
    assert golden["layers.1"].output == golden["layers.1.mlp_residual"].output
    assert len({tensor.path for tensor in file.tensors}) == len(file.tensors)


def test_float16_is_recorded_too(tmp_path):
    file = make_golden(make_checkpoint(tmp_path / "model"), tmp_path / "g.h5", dtypes=("float16",))
    assert file.dtypes == ["float16"]


def test_recording_twice_is_the_same_and_agrees(tmp_path):
    folder = make_checkpoint(tmp_path / "model")
    first, second = (make_golden(folder, tmp_path / f"{n}.h5") for n in "ab")
    assert first.digest == second.digest
    diff = compare(first, second)
    assert diff.agrees
    assert diff.counts[Agreement.IDENTICAL] == len(first.contents.goldens)


def test_another_checkpoint_or_case_does_not_agree(tmp_path):
    first = make_golden(make_checkpoint(tmp_path / "a"), tmp_path / "a.h5")
    other_case = make_golden(tmp_path / "a", tmp_path / "b.h5", cases=(inputs(seed=1),))
    diff = compare(first, other_case)
    assert not diff.agrees
    assert [(change.what, change.name, change.change) for change in diff.changes] == [
        ("case", "mixed", "changed")
    ]
    assert not diff.differences, "other tokens make other numbers"
    other_eps = make_golden(make_checkpoint(tmp_path / "c", rms_norm_eps=1e-4), tmp_path / "c.h5")
    diff = compare(first, other_eps)
    assert not diff.agrees
    assert ("setting", "rms_norm_eps") in [(change.what, change.name) for change in diff.changes]


def test_other_numbers_do_not_agree(tmp_path):
    """The same in every term, but for the numbers: as another version of a library may compute them."""
    folder = make_checkpoint(tmp_path / "model")
    file = make_golden(folder, tmp_path / "a.h5")
    for golden in file.contents.goldens:
        if golden.component == "layers.1.mlp.act":
            array = np.array(file.output(golden))
            array[0, 5, 7] += 1
            file._arrays[golden.output] = array
    diff = compare(make_golden(folder, tmp_path / "b.h5"), file)
    differing = [d.component for d in diff.differences if d.agreement is Agreement.DIFFERS]
    assert differing == ["layers.1.mlp.act"]


def test_tiny_floors_are_finite_and_modelled(tmp_path):
    file = make_golden(make_checkpoint(tmp_path / "model"), tmp_path / "g.h5", dtypes=("float32", "bfloat16"))
    for golden in file.contents.goldens:
        component = file.component(golden.component)
        assert (golden.isolated is None) == (component.composite_of is not None)
        if not component.exact:
            assert golden.end_to_end.modelled.whole > 0
            assert golden.end_to_end.measured.whole < 4 * golden.end_to_end.modelled.whole


@pytest.mark.parametrize(
    ("family", "changes", "coarser", "because"),
    [
        ("Llama", {"hidden_act": "gelu_new"}, {"layers.0.mlp.act", "layers.1.mlp.act"}, "NewGELUActivation"),
        ("Llama", {"rope_parameters": {**LONGROPE, "rope_theta": 1e4}}, {"rotary_emb"}, "rope_type"),
    ],
)
def test_what_is_not_known_is_recorded_as_a_module(tmp_path, family, changes, coarser, because):
    """All else stays as fine as it is."""
    folder = make_checkpoint(tmp_path / "model", family, **changes)
    file = make_golden(folder, tmp_path / "g.h5", dtypes=("float32", "bfloat16"))
    modules = file.contents.provenance["modules"]
    assert set(modules) == coarser
    assert all(because in reason for reason in modules.values())
    assert {c.name for c in file.contents.components} >= {"layers.1.self_attn.q_rope", "layers.1.mlp.gated"}
    for golden in file.contents.goldens:
        assert golden.end_to_end.measured.whole <= 4 * golden.end_to_end.modelled.whole


def test_what_is_not_built_of_these_parts_is_refused(tmp_path):
    folder = make_checkpoint(tmp_path / "model", "GPTNeoX")
    with pytest.raises(GoldensError, match=r"GPTNeoXForCausalLM has no gpt_neox\.embed_tokens"):
        make_golden(folder, tmp_path / "g.h5")
    assert not list(tmp_path.glob("g.h5*"))


@pytest.mark.parametrize(
    ("change", "named"), [("drop", "lacks tensors model.norm"), ("add", "surplus tensors x")]
)
def test_a_checkpoint_that_is_not_whole_is_refused(tmp_path, change, named):
    from safetensors.torch import load_file, save_file

    path = make_checkpoint(tmp_path / "model") / "model.safetensors"
    tensors = load_file(path)
    if change == "drop":
        del tensors["model.norm.weight"]
    else:
        tensors["x"] = torch.ones(2)
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(GoldensError, match=named):
        make_golden(path.parent, tmp_path / "g.h5")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("keep") / "model")


@pytest.fixture(scope="module")
def whole(folder):
    file = make_golden(folder, folder.parent / "whole.h5")
    return {g.component: file.output(g) for g in file.contents.goldens}


class TestKeep:
    def kept(self, folder, tmp_path, *keep):
        return make_golden(folder, tmp_path / "g.h5", keep=keep)

    def test_components(self, folder, tmp_path):
        file = self.kept(folder, tmp_path, "components=*.q_proj,lm_head")
        names = [component.name for component in file.contents.components]
        assert names == ["layers.0.self_attn.q_proj", "layers.1.self_attn.q_proj", "lm_head"]
        assert all(file.inputs(golden) for golden in file.contents.goldens)

    def test_layers(self, folder, tmp_path):
        file = self.kept(folder, tmp_path, "layers=-1")
        assert {c.name.split(".")[1] for c in file.contents.components if c.name.startswith("layers")} == {
            "1"
        }

    def test_tokens(self, folder, whole, tmp_path):
        file = self.kept(folder, tmp_path, "tokens=4,6-7,-1")
        golden = {g.component: g for g in file.contents.goldens}
        rows = [4, 6, 7, 8]
        np.testing.assert_array_equal(file.case_inputs("mixed")["kept"], rows)
        name = "layers.1.self_attn"
        np.testing.assert_array_equal(file.output(golden["norm"]), whole["norm"][:, rows])
        np.testing.assert_array_equal(
            file.output(golden[f"{name}.probs"]), whole[f"{name}.probs"][:, :, rows]
        )
        taken = file.inputs(golden[f"{name}.scores"])
        np.testing.assert_array_equal(taken["q"], whole[f"{name}.q_rope"][:, :, rows])
        np.testing.assert_array_equal(taken["k"], whole[f"{name}.k_expanded"])
        np.testing.assert_array_equal(file.inputs(golden[f"{name}.probs"])["query_index"], rows)

    @pytest.mark.parametrize(
        "spec", ["layer=1", "tokens", "tokens=x", "layers=7", "components=nothing.*", "tokens=50"]
    )
    def test_misuse_is_one_sentence(self, folder, tmp_path, spec):
        with pytest.raises(GoldensError) as error:
            self.kept(folder, tmp_path, spec)
        assert "\n" not in str(error.value)
        assert not list(tmp_path.glob("g.h5*"))


def test_config_is_stored_as_it_was_read(tmp_path):
    folder = make_checkpoint(tmp_path / "model")
    file = make_golden(folder, tmp_path / "g.h5")
    assert file.contents.config == json.loads((folder / "config.json").read_text())
