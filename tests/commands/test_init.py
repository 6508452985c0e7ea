"""`goldens init`: what a draft proposes and what it leaves to its reviewer, and what it refuses."""

import importlib
import itertools
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import pytest
from flax import linen, nnx

from examples.linen_scan import load as scanned
from harness.ports import Param, Tap
from harness.ports.tap import UNDECIDED
from harness.store.reader import GoldenFile
from qwen_flax import checkpoint, config
from tests.commandline import runner, tell

ROOT = Path(__file__).parents[2]
GOLDEN = str(ROOT / "goldens" / "qwen2-tiny.h5")
CHECKPOINT = ROOT / "goldens" / "checkpoints" / "qwen2-tiny"
WIDTH, VOCABULARY = 112, 512
REPLAY = ("replay", GOLDEN, "--dtype", "float32", "--case", "left-padded", "--case", "checkpoint")
NO_FACTS_BUT_PARAMETERS = ("--exclude", "config.*", "--exclude", "sampling.*")


def load(checkpoint_folder, *, dtype):
    return checkpoint.load(checkpoint_folder, config.read(checkpoint_folder), dtype=dtype)


def ours():
    return load(CHECKPOINT, dtype="float32")


def run(model, token_ids, positions, attention_mask, query_index):
    return model(
        token_ids=token_ids, positions=positions, attention_mask=attention_mask, query_index=query_index
    )


def run_in_order(model, token_ids, positions, attention_mask, query_index):
    return model(token_ids, positions, attention_mask, query_index)


def run_to_hidden(model, token_ids, positions, attention_mask, query_index):
    return jnp.zeros(token_ids.shape)


def scan():
    return scanned.load(str(CHECKPOINT), "float32")


def ambiguous(layers=3):
    """Two norms in each layer that are both called like the reference's first, and a head that has no name."""

    def norm():
        return nnx.RMSNorm(WIDTH, rngs=nnx.Rngs(0))

    def layer():
        product = nnx.Linear(WIDTH, WIDTH, use_bias=False, rngs=nnx.Rngs(0))
        return nnx.Dict(norm_1=norm(), attention_norm=norm(), attention=nnx.Dict(query=product))

    embed = nnx.Embed(VOCABULARY, WIDTH, rngs=nnx.Rngs(0))
    return nnx.Dict(embed=embed, layers=nnx.List([layer() for _ in range(layers)]))


def shallow():
    return ambiguous(layers=2)


def run_ambiguous(model, token_ids, **_):
    x = model.embed(token_ids)
    for layer in model.layers:
        x = x + layer.attention.query(layer.norm_1(x)) + layer.attention_norm(x)
    return model.embed.attend(x)


pair = (linen.Embed(VOCABULARY, WIDTH), {"params": {"embedding": jnp.zeros((VOCABULARY, WIDTH))}})
number = 7


def of_two(first, second):
    return ours()


def broken():
    raise KeyError("weights")


class Draft:
    """A draft that was written, and what was told of it."""

    def __init__(self, folder, told):
        self.folder, self.told = folder, told
        self.text = (folder / "my_port.py").read_text(encoding="utf-8") if told.status == 0 else ""

    def imported(self):
        """The module that it is."""
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(self.folder)
            sys.modules.pop("my_port", None)
            return importlib.import_module("my_port")

    def comment_of(self, name):
        """What stands above the row of a component or a parameter."""
        above = self.text.partition(f'    "{name}":')[0].splitlines()
        lines = list(itertools.takewhile(lambda line: line.startswith("    #"), reversed(above)))
        return " ".join(line.removeprefix("    # ") for line in reversed(lines))


def drafted(folder, model, run=None, golden=GOLDEN):
    chosen = ["--run", f"{__name__}:{run}"] if run else []
    return Draft(folder, tell(folder, "init", golden, "--model", f"{__name__}:{model}", *chosen))


@pytest.fixture(scope="module")
def draft_of_ours(tmp_path_factory):
    return drafted(tmp_path_factory.mktemp("ours"), "load", "run")


@pytest.fixture(scope="module")
def draft_of_scan(tmp_path_factory):
    return drafted(tmp_path_factory.mktemp("scan"), "scan", "run_in_order")


@pytest.fixture
def goldens(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    yield runner(monkeypatch, capsys)
    sys.modules.pop("my_port", None)


def test_it_says_how_much_is_decided_and_what_to_type_next(draft_of_ours):
    told = draft_of_ours.told
    assert told.status == 0, told.err
    assert told.err == ""
    assert "components: 26 proposed, 2 undecided, 0 unmeasured" in told.out
    assert "parameters: 13 proposed, 2 undecided, 0 unmeasured" in told.out
    assert told.out.endswith(f"  goldens check-port {GOLDEN} --port my_port:make\n")


@pytest.mark.parametrize("draft", ["draft_of_ours", "draft_of_scan"])
def test_it_is_formatted_and_can_be_imported(draft, request):
    draft = request.getfixturevalue(draft)
    module = draft.imported()
    assert module.SIZES == {"K": 2, "G": 7, "D": 8}
    pytest.importorskip("ruff")
    formatted = [sys.executable, "-m", "ruff", "format", "--isolated", "--check", "my_port.py"]
    assert subprocess.run(formatted, cwd=draft.folder, check=False).returncode == 0


def test_a_row_says_what_it_rests_on(draft_of_ours, draft_of_scan):
    assert draft_of_ours.comment_of("layers.{n}.mlp.act") == "its name; B T F (3, 5, 160) in both"
    assert draft_of_scan.comment_of("norm") == "norm ~ final_norm; B T C (3, 5, 112) in both"
    assert draft_of_scan.comment_of("layers.{n}.attn_residual").startswith(
        "what post_attention_layernorm takes in; "
    )


def test_a_layout_is_left_out_only_where_all_sizes_differ(draft_of_ours, draft_of_scan):
    """Square, reversed, split, stacked, fused: each is left to the reviewer."""
    parameters = {each.name: each.shape for each in GoldenFile.open(GOLDEN).contents.parameters}
    variables = dict(load_variables(ours()))
    for name, where in draft_of_ours.imported().PARAMETERS.items():
        shape = parameters[name.format(n=0)]
        plain = variables[where.path.format(n=0)] == shape and len(set(shape)) == len(shape)
        assert where == Param(where.path, "" if plain else UNDECIDED)
    undecided = {
        name for name, where in draft_of_scan.imported().PARAMETERS.items() if where.layout == UNDECIDED
    }
    assert parameters.keys() & undecided == {"lm_head.weight"}
    assert len(undecided) == 13
    assert all(not where.layout or where.layout == UNDECIDED for where in tables(draft_of_scan))


def load_variables(model):
    for path, leaf in nnx.to_flat_state(nnx.state(model)):
        yield ".".join(map(str, path)), leaf.shape


def tables(draft):
    module = draft.imported()
    return [*module.COMPONENTS.values(), *module.PARAMETERS.values()]


def test_a_square_weight_is_never_proposed_as_it_is(draft_of_ours):
    told = draft_of_ours.comment_of("model.layers.{n}.self_attn.q_proj.weight")
    assert told.endswith("(112, 112) in both, which does not tell which axis is which")
    rows = draft_of_ours.imported().PARAMETERS
    assert rows["model.layers.{n}.self_attn.q_proj.weight"].layout == UNDECIDED
    assert rows["model.layers.{n}.self_attn.o_proj.weight"].layout == UNDECIDED


def test_an_undecided_layout_is_refused_where_it_is_used(draft_of_ours, goldens, tmp_path):
    (tmp_path / "my_port.py").write_text(draft_of_ours.text)
    told = goldens(*REPLAY, "--port", "my_port:make", "--include", "parameters.*.0.self_attn.q_proj.weight")
    assert told.status == 1
    undecided = "is undecided: write it as REFERENCE'S AXES -> PORT'S AXES"
    assert f"layout of layers.{{n}}.self_attn.q_proj.kernel {undecided}" in told.out
    asked = ("--include", "*.scores", "--mode", "isolated", "--port", "my_port:make")
    told = goldens("replay", GOLDEN, "--dtype", "float32", "--case", "left-padded", *asked)
    assert f"layout of layers.{{n}}.self_attn.scores {undecided}" in told.out


def test_what_a_reviewer_makes_of_it_replays(draft_of_ours, goldens, tmp_path):
    reviewed = draft_of_ours.text
    for step in ("scores", "probs"):
        reviewed = reviewed.replace(f'self_attn.{step}", layout=UNDECIDED', f'self_attn.{step}"')
    reviewed = reviewed.replace("layout=UNDECIDED", 'layout="O I -> O I"')
    (tmp_path / "my_port.py").write_text(reviewed)
    told = goldens(*REPLAY, "--port", "my_port:make", *NO_FACTS_BUT_PARAMETERS)
    assert told.out.splitlines()[-1].endswith("pass, 0 fail, 0 unmeasured"), told.out
    assert told.status == 0


def test_a_square_weight_that_is_reviewed_wrongly_is_found(draft_of_ours, goldens, tmp_path):
    """What a guess would have been: the shapes are the same either way round."""
    wrong = 'q_proj.kernel", layout="O I -> I O"'
    reviewed = draft_of_ours.text.replace('q_proj.kernel", layout=UNDECIDED', wrong)
    assert wrong in reviewed
    (tmp_path / "my_port.py").write_text(reviewed.replace("layout=UNDECIDED", 'layout="O I -> O I"'))
    name = "parameters.model.layers.0.self_attn.q_proj.weight"
    told = goldens(*REPLAY, "--port", "my_port:make", "--include", name)
    assert told.status == 1
    assert "transpos" in told.out


def test_stacked_and_fused_layers(draft_of_scan):
    module = draft_of_scan.imported()
    assert module.COMPONENTS["layers.{n}.input_layernorm"] == Tap("layers.attention_norm")
    assert module.COMPONENTS["layers.{n}.self_attn.q_proj"] == Tap(value="query", layout=UNDECIDED)
    assert module.COMPONENTS["layers.{n}.mlp.up_proj"].argument == "up"
    rotated = module.COMPONENTS["layers.{n}.self_attn.k_rope"]
    assert (rotated.function, rotated.nth) == ("examples.linen_scan.model:rotate", 1)
    parts = [
        module.PARAMETERS[f"model.layers.{{n}}.self_attn.{part}_proj.weight"].path for part in ("q", "k", "v")
    ]
    assert parts == ["layers.attention.qkv.kernel"] * 3
    fused = draft_of_scan.comment_of("model.layers.{n}.self_attn.q_proj.weight")
    assert fused.endswith("of 3 layers, with q_proj, k_proj, v_proj in one: declare its `part`, too")
    assert module.PARAMETERS["model.layers.{n}.input_layernorm.weight"] == Param(
        "layers.attention_norm.scale", UNDECIDED
    )


def test_two_candidates_are_both_named_and_none_is_chosen(goldens, tmp_path):
    draft = drafted(tmp_path, "ambiguous", "run_ambiguous")
    module = draft.imported()
    assert "layers.{n}.input_layernorm" not in module.COMPONENTS
    assert module.UNMEASURED["layers.*.input_layernorm"] == "undecided: several are like it"
    parameter = "model.layers.{n}.input_layernorm.weight"
    assert module.UNMEASURED["parameters.model.layers.*.input_layernorm.weight"]
    assert parameter not in module.PARAMETERS
    assert (
        '# undecided, "layers.{n}.input_layernorm" is one of\n'
        '    #     Tap("layers.{n}.norm_1")\n'
        '    #     Tap("layers.{n}.attention_norm")\n'
    ) in draft.text
    assert f'# undecided, "{parameter}" is one of' in draft.text
    assert module.COMPONENTS["lm_head"] == Tap("embed.attend")


def test_what_is_unmeasured_can_be_listed_for_a_replay(draft_of_scan, goldens, tmp_path):
    (tmp_path / "my_port.py").write_text(draft_of_scan.text)
    globs = draft_of_scan.imported().UNMEASURED
    assert "rotary_emb.cos" in globs
    listed = [word for glob, why in globs.items() for word in ("--unmeasured", f"{glob}={why}")]
    asked = ("--include", "rotary_emb.*", "--mode", "isolated", "--port", "my_port:make")
    told = goldens("replay", GOLDEN, "--dtype", "float32", "--case", "left-padded", *asked, *listed)
    assert "2 unmeasured" in told.out.splitlines()[-1]
    assert "no call of the model is like it" in told.out


def test_without_run_only_modules_are_known(goldens, tmp_path):
    draft = drafted(tmp_path, "ours")
    assert draft.told.status == 0, draft.told.err
    module = draft.imported()
    assert module.COMPONENTS["norm"] == Tap("norm", layout=UNDECIDED)
    assert draft.comment_of("norm") == "its name; B T C (3, 5, 112) in the reference, not seen in the model"
    assert not {"layers.{n}.self_attn.scores", "lm_head"} & module.COMPONENTS.keys()
    assert "# lm_head: what `run` gives" in draft.text
    assert module.PARAMETERS["model.norm.weight"] == Param("norm.weight")
    with pytest.raises(NotImplementedError, match="how the model is run is not written yet"):
        module.run(None)


def test_an_object_is_taken_as_it_is(goldens, tmp_path):
    draft = drafted(tmp_path, "pair")
    module = draft.imported()
    assert dict(module.PARAMETERS) == {"model.embed_tokens.weight": Param("embedding")}
    assert "module, variables = loaded_model\n" in draft.text


def test_a_draft_that_is_there_is_not_replaced(goldens, tmp_path):
    (tmp_path / "my_port.py").write_text("reviewed = True\n")
    told = goldens("init", GOLDEN, "--model", f"{__name__}:ours")
    assert told.status == 2
    assert told.err == (
        "goldens: my_port.py is there already, and is not replaced: name another file with -o FILE.py\n"
    )
    assert (tmp_path / "my_port.py").read_text() == "reviewed = True\n"


def test_the_next_command_names_the_draft_where_it_is(goldens, tmp_path):
    (tmp_path / "ports").mkdir()
    told = goldens("init", GOLDEN, "--model", f"{__name__}:pair", "-o", "ports/mine.py")
    assert told.out.splitlines()[-1].endswith(f"goldens check-port {GOLDEN} --port ports.mine:make")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--model", "not_there:model"], "model 'not_there:model': no module named 'not_there' can be imported"),
        (["--model", f"{__name__}:nothing"], f"module {__name__!r} has no 'nothing'"),
        (["--model", "model"], "model 'model' names nothing: write it as MODULE:NAME"),
        (["--model", f"{__name__}:number"], "is a int: expected an nnx.Module, a pair (linen module, variables)"),
        (["--model", f"{__name__}:of_two"], "takes first, second: expected an nnx.Module"),
        (["--model", f"{__name__}:broken"], "could not be made: it raised KeyError: 'weights'"),
        (["--model", f"{__name__}:ours", "--run", f"{__name__}:number"], "is a int, and cannot be called"),
        (["--model", f"{__name__}:ours", "--run", f"{__name__}:run_to_hidden"], "where logits (B T V) were expected"),
        (["--model", f"{__name__}:ours", "--run", f"{__name__}:of_two"], "cannot be run: called as run(model, "),
        (["--model", f"{__name__}:ours", "-o", "my-port.py"], "my-port.py cannot be imported: name the draft with -o"),
        (["--model", f"{__name__}:ours", "-o", "there/my_port.py"], "there is no folder there"),
    ],
)  # fmt: skip
def test_it_is_refused_with_one_sentence(arguments, sentence, goldens, tmp_path):
    told = goldens("init", GOLDEN, *arguments)
    assert told.status == 2
    assert sentence in told.err
    assert told.out == ""
    assert len(told.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_another_models_golden_file_is_refused(goldens, tmp_path):
    told = goldens("init", str(ROOT / "goldens" / "qwen3-tiny.h5"), "--model", f"{__name__}:ours")
    assert told.status == 2
    assert f"model '{__name__}:ours' is not the one of" in told.err
    assert "embed_tokens.embedding is (512, 112), where model.embed_tokens.weight is (384, 64)" in told.err
    assert list(tmp_path.iterdir()) == []


def test_a_model_of_another_depth_is_refused(goldens, tmp_path):
    told = goldens("init", GOLDEN, "--model", f"{__name__}:shallow")
    assert told.status == 2
    assert (
        "is (112,) in 2 layers, where model.layers.{n}.input_layernorm.weight is (112,) in 3 layers"
        in told.err
    )
