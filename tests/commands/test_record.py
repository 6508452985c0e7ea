"""`goldens record`: what it writes, what it never replaces, and what it refuses."""

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

from harness.store.reader import GoldenFile

RECORD = ("record", "suites/small.toml")
GOLDEN = Path("small.h5")


ONE_NORM = ("--case", "tiny-norm", "--keep", "components=norm")


@pytest.fixture
def recorded(goldens, small):
    """Run `goldens` where the suite is recorded already."""
    GOLDEN.write_bytes(small)
    return goldens


def test_a_suite_makes_a_golden_file_that_replays(goldens):
    suite = Path("suites/small.toml")
    suite.write_text(suite.read_text().replace('facts = ["config"]\n', ""))
    told = goldens(*RECORD)
    assert told.status == 0
    assert "148 goldens of 74 components in 2 cases, float32" in told.out
    assert all(line.startswith("warning: ") for line in told.err.splitlines())
    replayed = goldens("replay", "small.h5", "--json")
    assert replayed.status == 0, replayed.err
    run = json.loads(replayed.out)
    assert run["counts"]["fail"] == run["counts"]["unmeasured"] == 0
    of_components = [result for result in run["results"] if result["error"] is not None]
    assert len(of_components) == 278
    families = {result["kind"] for result in run["results"] if result["error"] is None}
    assert families == {"config", "parameters", "tokenizer", "chat_template", "sampling", "draws"}


def test_recording_again_changes_nothing_and_says_so(recorded, small):
    told = recorded(*RECORD)
    assert told.status == 0
    assert "recorded again, bit by bit the same; left as it is" in told.out
    assert GOLDEN.read_bytes() == small
    assert not list(Path().glob("*.new"))


def test_a_recording_that_differs_never_replaces_the_file(recorded, small, change_tensors):
    def scale(tensors):
        tensors["model.layers.1.mlp.up_proj.weight"] *= 2

    change_tensors(scale)
    told = recorded(*RECORD)
    assert told.status == 1
    assert "differs; left as it is" in told.out
    assert "parameter changed: model.layers.1.mlp.up_proj.weight" in told.out
    assert GOLDEN.read_bytes() == small
    assert GoldenFile.open("small.h5.new").digest != GoldenFile.open("small.h5").digest


def test_other_cases_are_a_difference(recorded, small):
    told = recorded(*RECORD, "--case", "random-1")
    assert told.status == 1
    assert "case gone: tiny-norm" in told.out
    assert GOLDEN.read_bytes() == small


def test_the_checkpoint_is_named_as_seen_from_the_golden_file(recorded):
    assert GoldenFile.open(GOLDEN).contents.provenance["checkpoint"] == "checkpoint"


def test_output_checkpoint_dtype_case_and_keep(goldens, tmp_path):
    told = goldens(
        *("record", "--checkpoint", str(tmp_path / "checkpoint"), "-o", "other.h5", "--dtype", "bfloat16"),
        *("--dtype", "float32", "--case", "random-1", "--keep", "layers=1", "--keep", "components=*.q_proj"),
    )
    assert told.status == 0, told.err
    file = GoldenFile.open("other.h5")
    assert file.dtypes == ["bfloat16", "float32"]
    assert [case.name for case in file.contents.cases] == ["random-1"]
    assert [component.name for component in file.contents.components] == ["layers.1.self_attn.q_proj"]


def test_provenance_says_what_was_run_and_nothing_of_the_environment(goldens, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "hush")
    assert goldens(*RECORD, *ONE_NORM).status == 0
    provenance = GoldenFile.open(GOLDEN).contents.provenance
    assert provenance["attention"] == "eager"
    assert provenance["architecture"] == "Qwen2ForCausalLM"
    assert {"torch", "transformers", "numpy", "h5py", "python"} <= set(provenance["versions"])
    assert set(provenance["checkpoint_files"]) == {"config.json", "model.safetensors"}
    assert b"hush" not in GOLDEN.read_bytes()


def test_a_case_of_the_prompts_file_that_the_suite_leaves_out(goldens):
    told = goldens(*RECORD, "--case", "hello", "--dtype", "float32", "--dtype", "float32")
    assert told.status == 0, told.err
    assert [case.name for case in GoldenFile.open(GOLDEN).contents.cases] == ["hello"]


def test_what_is_kept_is_said(goldens):
    kept = ("--keep", "components=norm,lm_head", "--keep", "tokens=0,-1")
    assert goldens(*RECORD, "--case", "tiny-norm", *kept).status == 0
    provenance = GoldenFile.open(GOLDEN).contents.provenance
    assert provenance["kept"] == "2 of 74 components"
    assert provenance["keep"] == "components=norm,lm_head tokens=0,-1"
    assert "2 of 74 components" in goldens("show", "small.h5").out


def test_a_damaged_file_is_neither_replaced_nor_in_the_way(goldens, small):
    GOLDEN.write_bytes(small[:1000])
    told = goldens(*RECORD)
    assert told.status == 2
    assert "move it away, then record again" in told.err
    assert len(GOLDEN.read_bytes()) == 1000


def test_a_golden_file_that_was_moved_asks_for_its_checkpoint(recorded):
    Path("elsewhere").mkdir()
    GOLDEN.rename("elsewhere/small.h5")
    replay = ("replay", "elsewhere/small.h5", "--include", "norm")
    told = recorded(*replay)
    assert told.status == 2
    assert "say where it is with --checkpoint DIR" in told.err
    assert recorded(*replay, "--checkpoint", "checkpoint").status == 0


def test_nan_is_no_golden(goldens, change_tensors):
    def spoil(tensors):
        tensors["model.layers.1.input_layernorm.weight"][3] = float("nan")

    change_tensors(spoil)
    assert "layers.1.input_layernorm is NaN or infinite" in refused(goldens(*RECORD))


def test_a_setting_that_the_port_does_not_know_is_refused_by_name(goldens, change_config):
    change_config(clip_qkv=8)
    assert goldens(*RECORD, *ONE_NORM).status == 0
    told = goldens("replay", "small.h5")
    assert told.status == 2
    assert told.err.count("\n") == 1
    assert "clip_qkv" in told.err


def refused(told):
    assert told.status == 2
    assert told.out == ""
    assert told.err.count("\n") == 1, told.err
    assert not list(Path().glob("*.h5*"))
    return told.err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["suites/none.toml"], "suites/none.toml: No such file or directory"),
        (["--checkpoint", "./nowhere"], "checkpoint ./nowhere is neither a folder nor a hub id"),
        (["--checkpoint", "suites"], "checkpoint suites has no config.json"),
        (["suites/small.toml", "--dtype", "int8"], "dtype 'int8' cannot be recorded: choose from float32"),
        (["suites/small.toml", "--case", "random"], "there is no case 'random' to record; nearest: random-1"),
        (["suites/small.toml", "--keep", "layers=9"], "there are layers 0 to 2"),
        (["suites/small.toml", "--keep", "q_proj"], "--keep 'q_proj' is not understood"),
        (["suites/small.toml", "--keep", "components=lm_haed"], "matches no component; nearest: lm_head"),
        (["suites/small.toml", "-o", "no/such/folder/x.h5"], "choose a folder that exists"),
    ],
)
def test_what_cannot_be_recorded_gets_one_sentence(goldens, arguments, sentence):
    assert sentence in refused(goldens("record", *arguments))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"model_type": "made-up"}, "made-up"),
        ({"rope_parameters": {"rope_type": "longrope", "factor": 2.0, "rope_theta": 1e6}}, "longrope"),
        ({"num_hidden_layers": 4}, "lacks tensors model.layers.3."),
        ({"num_hidden_layers": 2}, "has the surplus tensors model.layers.2."),
        ({"vocab_size": None}, "has no vocab_size"),
    ],
)
def test_a_checkpoint_that_cannot_be_recorded_gets_one_sentence(goldens, change_config, settings, sentence):
    change_config(**settings)
    assert sentence in refused(goldens(*RECORD))


def test_pickles_are_not_read(goldens, tmp_path):
    (tmp_path / "checkpoint" / "model.safetensors").rename(tmp_path / "checkpoint" / "pytorch_model.bin")
    assert "pickles are not read" in refused(goldens(*RECORD))
