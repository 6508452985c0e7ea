"""A port that makes NaN or infinity fails with where and when it first arose, and not with all that follows."""

import json
from pathlib import Path

import numpy as np
import pytest

import tests.fakes as fakes
import tests.robust.not_finite  # noqa: F401
from harness.store.reader import GoldenFile
from tests.commandline import runner

ROOT = Path(__file__).parents[2]
TINY = ("replay", str(ROOT / "goldens" / "qwen2-tiny.h5"), "--case", "left-padded", "--dtype", "float32")
PORTS = "tests.robust.not_finite"
WHOLE = ("--mode", "end-to-end")


@pytest.fixture
def goldens(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    return runner(monkeypatch, capsys)


@pytest.fixture(scope="module")
def first_token():
    """Of the first text of the case that is not padding."""
    mask = GoldenFile.open(Path(TINY[1])).case_inputs("left-padded")["attention_mask"]
    token = int(np.argmax(mask.any(axis=0)))
    return int(np.argmax(mask[:, token])), token


def test_it_is_said_where_it_first_arose_in_each_mode(goldens, first_token):
    told = goldens(
        *TINY, "--port", f"{PORTS}:from_a_weight", "--include", "layers.1*", "--include", "layers.0*"
    )
    assert told.status == 1, told.err
    text, token = first_token
    where = f"in layers.1.mlp.up_proj (left-padded float32): nan at text {text}, token {token}, channel 7"
    lines = [line.strip() for line in told.out.splitlines() if "first arose" in line]
    assert lines == [
        f"NaN or infinity first arose isolated {where}",
        f"NaN or infinity first arose end to end {where}; of 39 before it none has any, of those after it 5",
    ]
    assert "explained by" not in told.out
    assert "it makes NaN or infinity of what the reference makes numbers of" in told.out


def test_what_only_follows_is_counted_and_not_listed(goldens):
    told = goldens(*TINY, "--port", f"{PORTS}:from_a_weight", *WHOLE)
    assert told.status == 1
    failures = [line for line in told.out.splitlines() if "   FAIL   " in line]
    assert [line.split()[0] for line in failures] == ["layers.1.mlp.up_proj"]
    assert "more that fail" not in told.out
    assert "; of 42 before it none has any, of those after it 30\n" in told.out
    assert "43 pass, 31 fail" in told.out


def test_json_has_it_as_numbers(goldens, first_token):
    told = goldens(*TINY, "--port", f"{PORTS}:from_a_weight", *WHOLE, "--json")
    run = json.loads(told.out)
    result = next(each for each in run["results"] if each["component"] == "layers.1.mlp.up_proj")
    text, token = first_token
    assert result["arisen"] == {
        "count": result["arisen"]["count"],
        "at": {"B": text, "T": token, "O": 7},
        "port": "NaN",
        "step": None,
    }
    assert all(each["arisen"] is None for each in run["results"] if each["verdict"] == "pass")
    assert run["notes"][0].startswith("NaN or infinity first arose end to end in layers.1.mlp.up_proj")


@pytest.mark.slow
def test_in_decode_the_earliest_step_comes_first(goldens):
    """In a whole pass it is layer 0, whose token is a later one."""
    port = ("--port", f"{PORTS}:later_layer_first", "--include", "layers.*.mlp.act")
    whole = goldens(*TINY, *port, *WHOLE).out
    assert "first arose end to end in layers.0.mlp.act (left-padded float32): inf at text 0, token 8" in whole
    decoded = goldens(*TINY, *port, "--mode", "decode").out
    assert (
        "first arose in decode in layers.2.mlp.act (left-padded float32): inf at text 0, token 7, channel 5, "
        "in step 4; from then on it is in 1 more"
    ) in decoded


def test_padding_is_nobodys(goldens):
    told = goldens(*TINY, "--port", f"{PORTS}:in_padding", *WHOLE, "--include", "layers.1.mlp.act")
    assert told.status == 0, told.out


def test_a_page_has_the_sentence(goldens):
    goldens(*TINY, "--port", f"{PORTS}:from_a_weight", *WHOLE, "--report", "page.html", "--report", "page.md")
    for page in ("page.html", "page.md"):
        assert "NaN or infinity first arose end to end in layers.1.mlp.up" in Path(page).read_text().replace(
            "\\", ""
        )


overflows = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.fixture
def overflowing(monkeypatch, tmp_path):
    """A golden file that has infinities, of a checkpoint whose weights are so large."""
    weights = fakes.weights("float32")
    weights["q"][2] = 3e38
    monkeypatch.setattr(fakes, "weights", lambda dtype: weights)
    fakes.write_golden(tmp_path / "tiny.h5", checkpoint=fakes.write_checkpoint(tmp_path / "checkpoint"))
    return weights


@overflows
def test_a_golden_that_has_some_is_held_to_their_places(goldens, overflowing):
    told = goldens("replay", "tiny.h5", "--port", "tests.fakes:make")
    assert told.status == 0, told.out
    overflowing["q"][2, 1] = -3e38
    told = goldens("replay", "tiny.h5", "--port", "tests.fakes:make", "--include", "layers.0.q_proj")
    assert told.status == 1
    assert "elements are NaN or infinite in one of port and golden only" in told.out


@overflows
def test_one_that_lacks_those_of_the_golden_made_none(goldens, overflowing):
    overflowing["q"][2] = 1.0
    told = goldens("replay", "tiny.h5", "--port", "tests.fakes:make", "--include", "layers.0.q_proj")
    assert told.status == 1
    assert "elements are NaN or infinite in one of port and golden only" in told.out
    assert "first arose" not in told.out
