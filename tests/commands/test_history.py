"""`goldens replay --history` and `goldens history`: runs are kept, and held against each other."""

import json
from pathlib import Path

import msgspec
import pytest

from harness.history.entry import Entry
from harness.history.log import read

GOLDEN = str(Path(__file__).parents[2] / "goldens" / "qwen2-tiny.h5")
REPLAY = (
    "replay",
    GOLDEN,
    "--case",
    "tiny-norm",
    "--dtype",
    "float32",
    "--mode",
    "isolated",
    "--history",
    "h.jsonl",
)
Q_PROJ, K_PROJ = "layers.0.self_attn.q_proj", "layers.0.self_attn.k_proj"


@pytest.fixture
def kept(goldens, tmp_path):
    """Two runs of the right port."""
    for _ in range(2):
        assert goldens(*REPLAY, "--include", Q_PROJ, "--include", K_PROJ).status == 0
    return tmp_path / "h.jsonl"


def rewritten(path, component, margin):
    """The last run with another margin of a component, in its first group."""
    lines = path.read_text().splitlines()
    last = json.loads(lines[-1])
    last["groups"][0]["margins"][last["components"].index(component)] = margin
    path.write_text("\n".join([*lines[:-1], json.dumps(last)]) + "\n")


def test_runs_are_added_and_shown(goldens, kept):
    told = goldens("history", str(kept))
    assert told.status == 0, told.err
    assert "2 comparisons made by both with the same limit" in told.out
    assert "nothing got worse" in told.out
    assert len(read(kept)) == 2


def test_what_got_worse_is_named_and_does_not_hold(goldens, kept):
    rewritten(kept, Q_PROJ, 3.0)
    told = goldens("history", str(kept))
    assert told.status == 1
    assert "1 got worse" in told.out
    assert Q_PROJ in told.out


def test_what_one_run_alone_compared_is_listed(goldens, kept):
    assert goldens(*REPLAY, "--include", K_PROJ).status == 0
    told = goldens("history", str(kept))
    assert told.status == 0
    assert f"1 of 2 components in tiny-norm, float32 isolated: {Q_PROJ}" in told.out


def test_an_earlier_run(goldens, kept):
    rewritten(kept, Q_PROJ, 3.0)
    assert goldens(*REPLAY, "--include", Q_PROJ).status == 0
    assert goldens("history", str(kept)).status == 0
    assert "nothing got worse" in goldens("history", str(kept), "--against", "2").out


def test_json(goldens, kept):
    told = goldens("history", str(kept), "--json")
    document = json.loads(told.out)
    assert document["golden"] == GOLDEN
    assert [change["component"] for change in document["changes"]] == [Q_PROJ, K_PROJ]


def test_half_a_line_is_left_out_and_the_next_run_begins_a_new_one(goldens, kept):
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-100])
    assert len(read(kept)) == 1
    assert goldens(*REPLAY, "--include", Q_PROJ).status == 0
    assert [type(entry) for entry in read(kept)] == [Entry, Entry]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("hello", "line 1, is no JSON"),
        ('{"format": 1}', "line 1, is no run of a history"),
        (None, "cannot be read"),
    ],
)
def test_what_is_no_history(goldens, tmp_path, text, sentence):
    path = tmp_path / "other.jsonl"
    if text is not None:
        path.write_text(text)
    told = goldens("history", str(path))
    assert told.status == 2
    assert sentence in told.err
    assert told.err.count("\n") == 1


def test_a_later_format_is_refused(goldens, kept):
    entry = msgspec.json.decode(kept.read_bytes().splitlines()[0])
    kept.write_bytes(msgspec.json.encode(entry | {"format": 2}) + b"\n")
    assert "has format 2" in goldens("history", str(kept)).err


def test_a_golden_file_that_has_no_run(goldens, kept):
    told = goldens("history", str(kept), "--golden", "other.h5")
    assert told.status == 2
    assert "has no run of other.h5; it has runs of" in told.err


def test_a_history_that_cannot_be_kept_is_refused_before_the_port_runs(goldens, tmp_path):
    (tmp_path / "h.jsonl").mkdir()
    told = goldens(*REPLAY, "--include", Q_PROJ)
    assert (told.status, told.out) == (2, "")
    assert "the history h.jsonl cannot be read: Is a directory" in told.err
