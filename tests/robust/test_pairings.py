"""Wrong pairs: what is held against a golden file has to be what was recorded, or it is refused, or told by name.

design.md: "Weights other than the recorded ones, a dtype other than the asked one, a prompt cut short: refused, not
compared." Versions of libraries are provenance: told, and no verdict depends on them.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import tests.fakes
from tests.commandline import runner
from tests.rewritten import rewrite

pytest_plugins = ["pytester"]
ROOT = Path(__file__).parents[2]
PORT = ("--port", "tests.fakes:make")
ASKED = [
    ("replay", "tiny.h5", *PORT),
    ("explain", "tiny.h5", *PORT),
    ("audit", "tiny.h5", *PORT),
    ("check", "checkpoint", "-o", "tiny.h5", *PORT),
    ("check-port", "tiny.h5", *PORT),
]
RECORDED = {"torch": "2.0.0", "transformers": "4.99.0"}
PARITY = """
import pytest

@pytest.mark.goldens("tiny.h5", include="layers.0.q_proj", modes="isolated")
def test_component(goldens, port):
    goldens.check(port)
"""


@pytest.fixture
def goldens(monkeypatch, capsys, tmp_path):
    """A project with a golden file and the checkpoint that it was recorded from, beside it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CI", raising=False)
    checkpoint = tests.fakes.write_checkpoint(Path("checkpoint"))
    tests.fakes.write_golden(Path("tiny.h5"), checkpoint=checkpoint, provenance={"versions": RECORDED})
    return runner(monkeypatch, capsys)


def refused(told, sentence):
    assert told.status == 2, told.out
    assert told.out == ""
    assert told.err.count("\n") == 1, told.err
    assert sentence in told.err


def change_config(**settings):
    path = Path("checkpoint/config.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def change_weights():
    path = Path("checkpoint/model.safetensors")
    tensors = load_file(path)
    tensors["lm_head.weight"][0, 0] *= 1.001
    save_file(tensors, path)


commands = pytest.mark.parametrize("command", ASKED, ids=[command[0] for command in ASKED])


@commands
def test_other_weights_are_refused(goldens, command):
    change_weights()
    refused(goldens(*command), "is not the recorded one: model.safetensors differ by SHA-256")


@commands
def test_another_config_is_refused_by_its_setting(goldens, command):
    change_config(hidden_size=8)
    refused(goldens(*command), "is not the recorded one: hidden_size is 8, recorded 4")


def test_a_setting_more_or_less_is_another_config(goldens):
    change_config(rope_scaling={"type": "linear"})
    refused(goldens(*ASKED[0]), "rope_scaling is {'type': 'linear'}, recorded 'absent'")
    Path("checkpoint/config.json").write_text('{"model_type": "tiny"}')
    refused(goldens(*ASKED[0]), "hidden_size is 'absent', recorded 4")


def test_who_wrote_a_config_and_how_it_is_written_do_not_matter(goldens):
    text = json.dumps({"transformers_version": "9.9", "hidden_size": 4, "model_type": "tiny"}, indent=4)
    Path("checkpoint/config.json").write_text(text)
    assert goldens(*ASKED[0]).status == 0


def test_a_shard_more_or_less_is_other_weights(goldens):
    Path("checkpoint/extra.safetensors").write_bytes(Path("checkpoint/model.safetensors").read_bytes())
    refused(goldens(*ASKED[0]), "is not the recorded one: extra.safetensors differ by SHA-256")


@pytest.fixture
def parity(pytester, monkeypatch, goldens, tmp_path):
    """Run a parity test in the same project."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile(test_parity=PARITY)
    for name in ("tiny.h5", "checkpoint"):
        (pytester.path / name).symlink_to(tmp_path / name)
    pytester.chdir()

    def run(port="make"):
        pytester.makeini(f"[pytest]\ngoldens_port = tests.fakes:{port}\n")
        return pytester.runpytest("-p", "harness.plugin", "-p", "no:cacheprovider", "-rN")

    return run


@pytest.mark.parametrize(
    "change", [change_weights, lambda: change_config(hidden_size=8)], ids=["weights", "config"]
)
def test_pytest_refuses_them_too(parity, change):
    change()
    told = parity()
    told.assert_outcomes(failed=1)
    told.stdout.fnmatch_lines(["checkpoint *checkpoint is not the recorded one: *"])


def test_a_dtype_that_was_not_recorded_is_refused(goldens):
    refused(goldens(*ASKED[0], "--dtype", "bfloat16"), "dtype 'bfloat16' was not recorded")


def in_float64(checkpoint, *, dtype):
    return tests.fakes.NumpyPort("float64")


@pytest.mark.parametrize("mode", ["isolated", "end-to-end"])
def test_an_answer_in_another_dtype_is_not_compared(goldens, mode):
    told = goldens("replay", "tiny.h5", "--port", f"{__name__}:in_float64", "--mode", mode, "--json")
    assert told.status == 1
    results = json.loads(told.out)["results"]
    assert results
    for result in results:
        assert result["verdict"] == "fail"
        assert result["error"] is None
        assert result["reason"] == "the port answered in float64, asked for float32: not compared"


def test_versions_that_differ_are_told_and_decide_nothing(goldens, parity):
    told = goldens(*ASKED[0], "--json")
    assert told.status == 0
    run = json.loads(told.out)
    assert run["recorded"]["versions"] == RECORDED
    assert run["environment"]["versions"]["numpy"] == np.__version__
    parity("make_faulty").stdout.fnmatch_lines(
        ["  golden: tiny.h5, digest *, recorded with transformers 4.99.0, torch 2.0.0"]
    )


def test_a_page_says_what_was_recorded_with_what(goldens):
    assert goldens(*ASKED[0], "--report", "run.md").status == 0
    assert "torch 2.0.0, transformers 4.99.0" in Path("run.md").read_text()


def test_other_token_ids_are_another_case_whose_numbers_are_not_compared(goldens):
    """A file whose digests all hold, with one token exchanged: what a changed tokenizer makes of the same prompt."""

    def exchange(ids):
        ids[1, 0] = ids[0, 2]
        return ids

    rewrite(Path("tiny.h5"), Path("tiny.h5.new"), arrays={"cases/hello/token_ids": exchange})
    told = goldens("diff", "tiny.h5")
    assert told.status == 1
    assert "case changed: hello   token_ids[1][0] " in told.out
    found = json.loads(goldens("diff", "tiny.h5", "--json").out)
    assert sum(found["counts"].values()) == 0


def test_other_token_ids_under_the_recorded_numbers_fail(goldens):
    """The golden file itself is wrong: its embedding is of other tokens than it names."""
    rewrite(Path("tiny.h5"), Path("tiny.h5"), arrays={"cases/hello/token_ids": lambda ids: (ids + 1) % 16})
    told = goldens(*ASKED[0], "--json")
    assert told.status == 1
    wrong = json.loads(told.out)["first_wrong"]
    assert (wrong["component"], wrong["mode"]) == ("embed_tokens", "isolated")


def test_an_index_with_other_ids_than_its_payload_is_refused(goldens):
    """Ids changed where they lie, and nothing else: the payload's own digest refuses it."""
    data = bytearray(Path("tiny.h5").read_bytes())
    ids = tests.fakes.case_inputs(0)["token_ids"].astype(np.int64).tobytes()
    assert data.count(ids) == 1
    data[data.index(ids)] ^= 1
    Path("tiny.h5").write_bytes(data)
    refused(goldens(*ASKED[0]), "token_ids")


@pytest.fixture
def built_in(goldens, tmp_path):
    """Replay a built-in golden file from a copy of its checkpoint, which is there to be changed."""
    folder = tmp_path / "qwen2"
    shutil.copytree(ROOT / "goldens" / "checkpoints" / "qwen2-tiny", folder)
    asked = (
        "replay",
        str(ROOT / "goldens" / "qwen2-tiny.h5"),
        "--checkpoint",
        str(folder),
        "--dtype",
        "float32",
    )
    return lambda *further: goldens(*asked, *further), folder


def test_another_tokenizer_is_told_by_the_texts_that_it_reads_otherwise(built_in):
    """The recorded ids are what is replayed, so numbers hold; what is wrong is the fact `tokenizer`."""
    replay, folder = built_in
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["a"], vocabulary["e"] = vocabulary["e"], vocabulary["a"]
    path.write_text(json.dumps(tokenizer))
    port = ("--port", "qwen_flax.port:make")
    told = replay(*port, "--include", "tokenizer")
    assert told.status == 1, told.err
    assert told.out.count("tokenizer   ") > 10
    assert "isolated   FAIL   " in told.out
    numbers = replay(*port, "--include", "embed_tokens", "--case", "left-padded")
    assert numbers.status == 0, numbers.out


def test_other_weights_in_the_port_than_in_the_checkpoint_are_told_by_their_parameter(built_in):
    replay, _ = built_in
    name = "parameters.model.layers.1.self_attn.k_proj.bias"
    told = replay("--port", "tests.ports:without_key_bias", "--include", name)
    assert told.status == 1, told.err
    assert f"{name}   checkpoint float32 isolated   FAIL" in told.out
