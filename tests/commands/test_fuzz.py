"""`goldens fuzz`: what it finds, to what it shrinks it, what it saves, and what it refuses."""

import json
import tomllib
from pathlib import Path

import pytest

pytest.importorskip("torch")

from tests import fuzz_ports  # noqa: F401 - jax is imported before the command runs

FUZZ = ("fuzz", "--checkpoint", "checkpoint", "--port")
SMALL = ("--max-tokens", "4", "--max-rows", "1", "--examples", "4")
BATCHES = ("--max-tokens", "4", "--max-rows", "2", "--examples", "8")


def test_a_right_port_holds_and_the_same_seed_draws_the_same_inputs(goldens):
    told = goldens(*FUZZ, "qwen_flax.port:make", *SMALL, "--seed", "3")
    assert told.status == 0, told.err
    first = told.out.rpartition(";")[0]
    assert first.startswith(
        "4 inputs, none fails: rows of up to 4 tokens, at most 1 a batch, positions up to "
    )
    assert goldens(*FUZZ, "qwen_flax.port:make", *SMALL, "--seed", "3").out.rpartition(";")[0] == first
    assert not list(Path().glob(".hypothesis"))


def test_what_fails_is_shrunk_and_told(goldens):
    """Ids of 500 and more are misread: one token shows it."""
    small = ("--max-tokens", "2", "--max-rows", "1", "--examples", "30", "--include", "embed_tokens")
    told = goldens(*FUZZ, "tests.fuzz_ports:late_token", *small, "--json")
    assert told.status == 1
    fuzz = json.loads(told.out)
    assert fuzz["verdict"] == "fail"
    assert fuzz["failure"]["smallest"] == {
        "rows": [[500]],
        "padding": "none",
        "start_position": 0,
        "says": "1 row of 1 token, no padding, from position 0",
    }
    assert fuzz["failure"]["run"]["first_wrong"]["component"] == "embed_tokens"
    assert fuzz["failure"]["configuration"] == ["1 of 3 layers"]
    said = "it fails with a simpler checkpoint, too: 1 of 3 layers"
    assert f"smallest: 1 row of 1 token, no padding, from position 0\n{said}\n  500\n" in told.err
    assert "embed_tokens   smallest float32 end-to-end   FAIL   112 of 112 elements differ" in told.err


@pytest.mark.slow
def test_an_exception_inside_the_port_is_a_failure_and_repeated_by_its_command(goldens):
    told = goldens(*FUZZ, "tests.fuzz_ports:raises_on_batches", *BATCHES, "--json")
    assert told.status == 1
    assert "smallest: 2 rows of 1 and 1 tokens, no padding, from position 0" in told.err
    assert "the port raised IndexError: one row only" in told.err
    fuzz = json.loads(told.out)
    again = json.loads(goldens(*fuzz["command"].split()[1:], "--json").out)
    assert again["failure"]["found"] == fuzz["failure"]["found"]
    assert again["failure"]["smallest"] == fuzz["failure"]["smallest"]


def test_what_is_compared_in_no_input_is_no_pass_unless_it_is_listed(goldens):
    asked = (*FUZZ, "tests.fuzz_ports:logits_only", *SMALL, "--include", "norm", "--include", "lm_head")
    told = goldens(*asked)
    assert told.status == 1
    assert "compared in no input: the port does not offer this component\n  norm\n" in told.out
    assert "4 inputs, none fails, but norm unmeasured" in told.out
    assert goldens(*asked, "--unmeasured", "norm=only logits are handed out").status == 0


def test_a_saved_input_is_recorded_and_fails(goldens, tmp_path):
    Path("mine.toml").write_text('[[case]]\nname = "one"\ntoken_ids = [1]')
    told = goldens(
        *(*FUZZ, "tests.fuzz_ports:raises_on_batches", *BATCHES, "--save", "mine.toml", "--name", "late")
    )
    assert "added to mine.toml" in told.out
    saved = tomllib.loads(Path("mine.toml").read_text())["case"]
    assert saved == [
        {"name": "one", "token_ids": [1]},
        {"name": "late", "rows": [[0], [0]]},
    ]
    (tmp_path / "suites" / "found.toml").write_text(
        'checkpoint = "../checkpoint"\nprompts = "../mine.toml"\ncases = ["late"]\nfacts = []\n'
    )
    assert goldens("record", "suites/found.toml").status == 0
    wrong = goldens(
        "replay", "found.h5", "--port", "tests.fuzz_ports:raises_on_batches", "--include", "lm_head"
    )
    assert wrong.status == 1
    assert goldens("replay", "found.h5", "--include", "lm_head").status == 0


def test_without_time_nothing_is_compared_and_that_is_no_pass(goldens):
    told = goldens(*FUZZ, "qwen_flax.port:make", *SMALL, "--seconds", "0")
    assert told.status == 1
    assert told.out.startswith("0 inputs, and nothing of them was compared; seed 0, ")
    assert told.out.endswith("when time was over\n")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["fuzz"], "nothing to fuzz: name a checkpoint with --checkpoint DIR_OR_HUB_ID, or a SUITE.toml"),
        ([*FUZZ, "no_such:make"], "no module named 'no_such'"),
        (["fuzz", "--checkpoint", "nowhere"], "checkpoint nowhere is neither a folder nor a hub id"),
        (
            ["fuzz", "suites/small.toml", "--dtype", "int8"],
            "dtype 'int8' is none of float32, bfloat16, float16",
        ),
        (["fuzz", "suites/small.toml", *SMALL, "--include", "layers.0.p_proj"], "nearest: layers.0.mlp"),
        (["fuzz", "suites/small.toml", "--save", "taken.toml"], "taken.toml has a case fuzz-0 already"),
        (["fuzz", "suites/small.toml", "--save", "no/p.toml"], "no is no folder"),
        (["fuzz", "suites/small.toml", "--unmeasured", "*"], "write it as GLOB=REASON"),
    ],
)
def test_what_cannot_be_asked_gets_one_sentence(goldens, arguments, sentence):
    Path("taken.toml").write_text('[[case]]\nname = "fuzz-0"\ntoken_ids = [1]\n')
    told = goldens(*arguments)
    assert told.status == 2
    assert sentence in told.err
    assert told.err.count("\n") == 1


@pytest.mark.slow
def test_a_fault_past_position_100_with_padding_is_shrunk_to_the_least_prompt(goldens):
    """102 tokens, so that there is an index over 100, and a shorter row beside them, so that there is padding."""
    port, prompts = "tests.fuzz_ports:long_and_padded", ("--save", "suites/found.prompts", "--name", "long")
    told = goldens(*FUZZ, port, "--max-tokens", "256", "--max-rows", "2", *prompts, "--json")
    assert told.status == 1
    failure = json.loads(told.out)["failure"]
    assert [len(row) for row in failure["smallest"]["rows"]] == [102, 1]
    assert failure["smallest"]["padding"] == "left"
    assert failure["smallest"]["start_position"] == 0
    assert failure["run"]["first_wrong"]["component"] == "layers.0.self_attn.probs"
    named = {name for each in failure["run"]["explanations"] for name in each["hypotheses"]}
    assert "padding_ignored" in named

    suite = 'checkpoint = "../checkpoint"\nprompts = "found.prompts"\ncases = ["long"]\nfacts = []\n'
    Path("suites/found.toml").write_text(suite)
    assert goldens("record", "suites/found.toml").status == 0
    assert goldens("replay", "found.h5", "--port", port).status == 1
    assert goldens("replay", "found.h5").status == 0


@pytest.mark.slow
def test_a_fault_that_only_a_cache_shows_is_shrunk_too(goldens):
    """A slot past 5 is one position late: 7 tokens show it, of which the last is read by itself."""
    small = ("--max-tokens", "24", "--max-rows", "1", "--mode", "decode", "--json")
    told = goldens(*FUZZ, "tests.fuzz_ports:late_in_cache", *small)
    assert told.status == 1, told.err
    failure = json.loads(told.out)["failure"]
    assert failure["smallest"]["says"] == "1 row of 7 tokens, no padding, from position 0"
    assert failure["run"]["first_wrong"]["component"] == "rotary_emb.cos"
    assert failure["configuration"] == ["1 of 3 layers"]
