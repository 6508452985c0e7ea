"""Any decoder that `transformers` has: recorded step by step where its steps are known, coarser where they are not.

docs/checkpoints.md has the table that these tests hold.
"""

import re
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from harness.diagnose.diagnosis import diagnose  # noqa: E402
from harness.model import Mode, Verdict  # noqa: E402
from harness.record.decoder import find_decoder  # noqa: E402
from harness.record.discover import coarser_in, discover  # noqa: E402
from harness.record.reference import load  # noqa: E402
from harness.replay.session import Session  # noqa: E402
from tests.architectures import ARCHITECTURES, make  # noqa: E402
from tests.commandline import runner  # noqa: E402
from tests.harness.record.test_recorder import inputs, make_golden, run_reference  # noqa: E402
from tests.torch_port import TorchPort  # noqa: E402

ATTENTION = {"rotary_emb", "layers.0.self_attn", "layers.1.self_attn"}
COARSER = {
    ("cohere", "float32"): ATTENTION,
    ("cohere", "bfloat16"): ATTENTION,
    ("olmo2", "bfloat16"): ATTENTION,
    ("qwen3_moe", "float32"): {"layers.0.mlp", "layers.1.mlp"},
    ("qwen3_moe", "bfloat16"): {"layers.0.mlp", "layers.1.mlp"},
}
"""What is recorded as a module; all else is recorded step by step."""
UNSEEN = re.compile(r".*(_expanded|scores|_part|scores_capped|attn_residual)")
"""What passes by nowhere in the reference's code."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folders: dict[str, Path] = {}

    def made(architecture):
        if architecture not in folders:
            folders[architecture] = make(tmp_path_factory.mktemp(architecture) / "model", architecture)
        return folders[architecture]

    return made


@pytest.fixture(scope="module")
def golden(checkpoint, tmp_path_factory):
    files = {}

    def recorded(architecture, dtype="float32"):
        if (architecture, dtype) not in files:
            path = tmp_path_factory.mktemp("goldens") / f"{architecture}.h5"
            case = inputs(batch=2, length=7, pad=2)
            files[architecture, dtype] = make_golden(checkpoint(architecture), path, (case,), (dtype,))
        return files[architecture, dtype]

    return recorded


def replayed(file, port, modes=(Mode.ISOLATED, Mode.END_TO_END)):
    session = Session(file, lambda dtype: port)
    results = list(session.replay(file.contents.goldens, modes))
    return session, results


def failing(results, mode):
    return [r.component for r in results if r.mode is mode and r.verdict is Verdict.FAIL]


def explained(session, folder, results):
    """component -> what explains its failure"""
    explanations, _ = diagnose(session, folder, results)
    return {explanation.component: explanation for explanation in explanations}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_is_known_of_it(checkpoint, architecture, dtype):
    """Every step is proved bit-equal on the way; what is coarser is no more than the table says."""
    found = coarser_in(discover(find_decoder(load(checkpoint(architecture), dtype))))
    assert set(found) == COARSER.get((architecture, dtype), set())
    assert all(found.values())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_reference_s_own_model_replays(checkpoint, golden, architecture):
    """All that passes by in it is compared, and passes; by itself, every module does."""
    file = golden(architecture)
    _, results = replayed(file, TorchPort(checkpoint(architecture), "float32"))
    assert not failing(results, Mode.ISOLATED)
    assert not failing(results, Mode.END_TO_END)
    left = {r.component for r in results if r.mode is Mode.END_TO_END and r.verdict is Verdict.UNMEASURED}
    composites = {c.name for c in file.contents.components if c.composite_of}
    assert all(name in composites or UNSEEN.fullmatch(name) for name in left)


@pytest.mark.parametrize("architecture", ["gemma2", "granite", "cohere", "qwen3_moe"])
def test_logits_and_layers_are_what_transformers_computes(checkpoint, golden, architecture):
    file, case = golden(architecture), inputs(batch=2, length=7, pad=2)
    expected = run_reference(checkpoint(architecture), case)
    outputs = {g.component: file.output(g) for g in file.contents.goldens}
    np.testing.assert_array_equal(outputs["lm_head"], expected.logits)
    np.testing.assert_array_equal(outputs["layers.0"], expected.hidden_states[1])
    np.testing.assert_array_equal(outputs["norm"], expected.hidden_states[-1])


def weaker(name):
    """A parameter a tenth smaller."""

    def spoil(model):
        with torch.no_grad():
            model.get_parameter(name).mul_(0.9)

    return spoil


def without_one(model):
    with torch.no_grad():
        model.model.layers[1].input_layernorm.weight.sub_(1)


def uncapped(model):
    model.model.layers[0].self_attn.attn_logit_softcapping = None


def uncapped_logits(model):
    model.config.final_logit_softcapping = None


def other_scale(model):
    model.model.layers[0].self_attn.scaling *= 1.1


FAULTS = [
    ("gemma", without_one, "layers.1.input_layernorm", "weight_without_one"),
    ("gemma2", uncapped, "layers.0.self_attn.probs", ""),
    ("gemma2", uncapped_logits, "lm_head", ""),
    ("gemma3", weaker("model.layers.1.self_attn.k_norm.weight"), "layers.1.self_attn.k_norm", ""),
    ("phi3", weaker("model.layers.1.self_attn.qkv_proj.weight"), "layers.1.self_attn.qkv_proj", ""),
    ("starcoder2", weaker("model.layers.0.mlp.c_fc.bias"), "layers.0.mlp.c_fc", ""),
    (
        "olmo2",
        weaker("model.layers.0.post_feedforward_layernorm.weight"),
        "layers.0.post_feedforward_layernorm",
        "",
    ),
    ("granite", other_scale, "layers.0.self_attn.probs", ""),
    ("cohere", weaker("model.layers.1.self_attn.o_proj.weight"), "layers.1.self_attn", ""),
    ("qwen3_moe", weaker("model.layers.0.mlp.gate.weight"), "layers.0.mlp", ""),
]


@pytest.mark.parametrize(("architecture", "spoil", "component", "named"), FAULTS)
def test_a_fault_fails_where_it_is(checkpoint, golden, architecture, spoil, component, named):
    file = golden(architecture)
    session, results = replayed(file, TorchPort(checkpoint(architecture), "float32", spoil))
    assert failing(results, Mode.END_TO_END)[0] == component
    alone = failing(results, Mode.ISOLATED)
    assert alone == [component] or not alone
    if named:
        assert named in explained(session, checkpoint(architecture), results)[component].hypotheses


MISTAKES = [
    ("lm_head", lambda model, x: x, "cap_missing"),
    ("lm_head", lambda model, x: x.clamp(-3, 3), "clipped"),
    ("embed_tokens", lambda model, ids: model.model.embed_tokens.weight[ids], "scale_missing"),
    ("layers.0.mlp.act", lambda model, x: torch.nn.functional.silu(x), "silu"),
]


@pytest.mark.parametrize(("component", "answer", "named"), MISTAKES)
def test_a_mistake_in_a_step_of_its_own_is_named(checkpoint, golden, component, answer, named):
    file = golden("gemma2")
    port = TorchPort(checkpoint("gemma2"), "float32", answers={component: answer})
    session, results = replayed(file, port, [Mode.ISOLATED])
    assert explained(session, checkpoint("gemma2"), results)[component].hypotheses == [named]


def test_a_module_has_no_mistakes_that_could_be_named(checkpoint, golden):
    port = TorchPort(checkpoint("qwen3_moe"), "float32", weaker("model.layers.0.mlp.gate.weight"))
    session, results = replayed(golden("qwen3_moe"), port, [Mode.ISOLATED])
    [explanation] = explained(session, checkpoint("qwen3_moe"), results).values()
    assert explanation.text == "recorded as a module: no step of it is known, so none was tried"


def test_what_is_coarser_is_told(checkpoint, tmp_path, monkeypatch, capsys):
    run, suite = runner(monkeypatch, capsys), tmp_path / "moe.toml"
    suite.write_text(
        f'checkpoint = "{checkpoint("qwen3_moe")}"\ngolden = "moe.h5"\nfacts = ["config", "parameters"]\n'
        '[[randomized]]\nname = "drawn"\nseed = 1\nlength = 6\n'
    )
    told = run("record", str(suite))
    assert told.status == 0
    [line] = [line for line in told.err.splitlines() if line.startswith("coarser: ")]
    assert line.startswith("coarser: layers.0.mlp, layers.1.mlp recorded as a module: a Qwen3MoeSparse")
    shown = run("show", str(tmp_path / "moe.h5"))
    assert "layers.0.mlp a Qwen3MoeSparse" in " ".join(shown.out.split())
