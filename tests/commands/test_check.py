"""`goldens check`: recorded once, replayed each time, and what to do from then on."""

import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")

from harness import record, suite
from harness.record import command
from tests import ports  # noqa: F401 - jax is imported before the command runs

PORT = ("--port", "qwen_flax.port:make")


@pytest.fixture
def check(goldens, monkeypatch):
    """`goldens check checkpoint`, with one short case and one family of facts in the default suite."""
    whole = suite.default_suite

    def short(checkpoint: str) -> suite.Suite:
        return replace(
            whole(checkpoint), cases=("tiny-norm",), randomized=(), generation=(), facts=("config",)
        )

    monkeypatch.setattr(suite, "default_suite", short)
    monkeypatch.setattr(command, "default_suite", short)
    return lambda *arguments: goldens("check", "checkpoint", *arguments)


def test_it_is_recorded_once_and_the_next_steps_hold(check, goldens, tmp_path):
    told = check()
    assert told.status == 0, told.err
    assert "checkpoint.h5: 74 goldens" in told.out
    assert "0 fail, 0 unmeasured" in told.out
    before = Path("checkpoint.h5").read_bytes()
    again = check()
    assert again.status == 0, again.err
    assert "checkpoint.h5 is there already, and is of this checkpoint: not recorded again" in again.out
    assert Path("checkpoint.h5").read_bytes() == before
    lines = told.out.splitlines()
    (step,) = (line for line in lines if line.startswith("  goldens replay"))
    assert step == "  goldens replay checkpoint.h5 --report report.html"
    assert goldens(*shlex.split(step)[1:]).status == 0
    assert Path("report.html").exists()
    assert lines[lines.index("in pytest:") + 1 :] == [
        '  @pytest.mark.goldens("checkpoint.h5")',
        "  def test_component(goldens, port):",
        "      goldens.check(port)",
    ]


def test_a_wrong_port_is_explained_and_the_command_runs_it_alone(check, goldens):
    told = check("--port", "tests.ports:seed_rule", "-o", "other.h5", "--dtype", "float32")
    assert told.status == 1, told.err
    assert "explained by: weight used without transposing" in told.out
    lines = told.out.splitlines()
    alone = lines[lines.index("the first wrong component alone:") + 1]
    again = json.loads(goldens(*shlex.split(alone)[1:], "--json").out)
    assert [result["component"] for result in again["results"]] == [again["first_wrong"]["component"]]
    assert "  goldens replay other.h5 --port tests.ports:seed_rule --report report.html" in lines
    assert lines[-3:] == [
        "with the port in pyproject.toml:",
        "  [tool.goldens]",
        '  port = "tests.ports:seed_rule"',
    ]


def test_json_stands_alone_on_stdout(check):
    told = check("--json")
    assert json.loads(told.out)["verdict"] == "pass"
    assert "checkpoint.h5: 74 goldens" in told.err
    assert "goldens.check(port)" in told.err


def test_a_port_that_cannot_be_made_is_refused_before_anything_is_recorded(check, tmp_path):
    for port, sentence in (
        ("no_such:make", "no module named 'no_such'"),
        ("qwen_flax.port:no", "has no factory"),
    ):
        told = check("--port", port)
        assert told.status == 2
        assert sentence in told.err
        assert told.err.count("\n") == 1
    assert not list(tmp_path.glob("*.h5*"))


def test_a_file_of_another_checkpoint_is_left_alone(check, change_config):
    assert check().status == 0
    before = Path("checkpoint.h5").read_bytes()
    change_config(rms_norm_eps=1e-3)
    told = check()
    assert (told.status, told.out) == (2, "")
    assert "checkpoint.h5 is there already, and is not of checkpoint: name another file" in told.err
    assert "rms_norm_eps is 0.001" in told.err
    assert Path("checkpoint.h5").read_bytes() == before


def test_what_is_no_golden_file_or_no_checkpoint_gets_one_sentence(check, goldens):
    Path("notes.h5").write_text("hello")
    for told in (check("-o", "notes.h5"), goldens("check", "no/such/folder", *PORT)):
        assert told.status == 2
        assert told.err.count("\n") == 1
    assert Path("notes.h5").read_text() == "hello"


def test_a_file_that_is_there_needs_neither_the_extra_nor_the_place_it_was_recorded_from(
    check, goldens, monkeypatch, tmp_path
):
    assert check().status == 0
    (tmp_path / "checkpoint").rename(tmp_path / "moved")
    monkeypatch.delitem(sys.modules, "harness.record.command")
    monkeypatch.delattr(record, "command")
    monkeypatch.setitem(sys.modules, "harness.record.recorder", None)
    told = goldens("check", "moved", "-o", "checkpoint.h5")
    assert told.status == 0, told.err
    assert "  goldens replay checkpoint.h5 --checkpoint moved --report report.html" in told.out
    assert '@pytest.mark.goldens("checkpoint.h5", checkpoint="moved")' in told.out
    told = goldens("check", "moved", "-o", "other.h5")
    assert told.status == 2
    assert told.err.startswith("goldens: recording needs harness.record.recorder: install this package with")
