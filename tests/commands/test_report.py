"""`goldens replay --report` and `goldens report`: which files they write, and what they refuse."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.report.files import write_report
from tests.browser.runs import run

ROOT = Path(__file__).parents[2]
GOLDEN = str(ROOT / "goldens" / "qwen2-tiny.h5")
ASKED = (
    "--checkpoint",
    "checkpoint",
    "--case",
    "tiny-norm",
    "--dtype",
    "float32",
    "--include",
    "layers.1.self_attn.q_proj",
)
REPLAY = ("replay", GOLDEN, *ASKED)  # fmt: skip


@pytest.fixture
def kept(tmp_path) -> Path:
    path = tmp_path / "run.json"
    write_report([run()], path)
    return path


def test_a_replay_writes_as_many_reports_as_are_asked_for(goldens, tmp_path) -> None:
    told = goldens(*REPLAY, "--report", "run.html", "--report", "run.json", "--json")
    assert told.status == 0, told.err
    assert (tmp_path / "run.json").read_text() == told.out
    assert "layers.1.self_attn.q_proj" in (tmp_path / "run.html").read_text()
    pictures = json.loads(told.out)["pictures"]
    assert [p["place"]["mode"] for p in pictures] == ["isolated", "end-to-end"]


def test_a_kept_run_makes_the_same_report_anywhere(goldens, tmp_path, monkeypatch) -> None:
    assert goldens(*REPLAY, "--report", "run.json", "--report", "run.html").status == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    told = goldens("report", "../run.json", "-o", "again.html")
    assert (told.status, told.out, told.err) == (0, "", "")
    assert Path("again.html").read_text() == (tmp_path / "run.html").read_text()


def test_a_report_is_written_of_a_port_that_fails_too(goldens, tmp_path) -> None:
    told = goldens(*REPLAY, "--port", "tests.ports:seed_rule", "--report", "run.html")
    assert told.status == 1
    assert "weight used without transposing" in (tmp_path / "run.html").read_text()


def test_several_runs_make_one_report(goldens, kept, tmp_path) -> None:
    write_report([run(golden="other.h5")], tmp_path / "other.json")
    assert goldens("report", str(kept), "other.json", "-o", "both.html", "-o", "both.json").status == 0
    assert len((tmp_path / "both.json").read_text().splitlines()) == 2
    assert "other.h5" in (tmp_path / "both.html").read_text()


def test_what_cannot_be_written_is_refused_before_anything_runs(goldens) -> None:
    for path, sentence in (
        ("run.pdf", "run.pdf: no report has the suffix '.pdf'; there are .html, .json, .md, .xml"),
        ("no/run.html", "no/run.html: the folder no is not there: make it first"),
    ):
        told = goldens("replay", "no.h5", "--report", path)
        assert (told.status, told.out, told.err) == (2, "", f"goldens: {sentence}\n")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "has no run"),
        (b"hello", "is not what `goldens replay --json` writes: JSON is malformed"),
        (b'{"format": 1}', "is not what `goldens replay --json` writes: Object missing required field"),
        (b"\xff\xfe", "is not what `goldens replay --json` writes"),
    ],
)
def test_what_is_no_run(goldens, tmp_path, content: bytes, sentence: str) -> None:
    (tmp_path / "run.json").write_bytes(content)
    told = goldens("report", "run.json", "-o", "run.html")
    assert told.status == 2
    assert sentence in told.err
    assert told.err.count("\n") == 1
    assert not (tmp_path / "run.html").exists()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"format": 2}, "has format 2, and this version reads 1"),
        ({"order": ["lm_head"]}, "contradicts itself"),
        (
            {"first_wrong": {"component": "x", "case": "c", "dtype": "d", "mode": "isolated"}},
            "contradicts itself",
        ),
    ],
)
def test_a_run_of_another_format_or_edited_by_hand(goldens, kept, changes, sentence: str) -> None:
    kept.write_text(json.dumps(json.loads(kept.read_text()) | changes))
    told = goldens("report", str(kept), "-o", "run.html")
    assert told.status == 2
    assert sentence in told.err


def test_a_run_that_was_kept_without_an_order_has_that_of_its_results(goldens, kept, tmp_path) -> None:
    known = json.loads(kept.read_text())
    del known["order"], known["pictures"], known["environment"]
    kept.write_text(json.dumps(known))
    assert goldens("report", str(kept), "-o", "run.html").status == 0


def test_a_report_that_cannot_be_written_leaves_the_old_one_and_nothing_else(
    tmp_path, kept, monkeypatch
) -> None:
    path = tmp_path / "run.html"
    path.write_text("the old one")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(Exception, match=r"cannot write .*: No space left on device"):
        write_report([run()], path)
    assert path.read_text() == "the old one"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.html", "run.json"]


def test_a_report_from_json_loads_nothing_heavy(kept) -> None:
    heavy = "['jax', 'torch', 'h5py', 'numpy']"
    script = (
        f"import sys; sys.argv = ['goldens', 'report', {str(kept)!r}, '-o', {str(kept.with_suffix('.html'))!r}]\n"
        "from harness.cli.app import main\n"
        "try: main()\n"
        "except SystemExit as leaving: assert not leaving.code\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    told = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert told.stdout.strip() == "[]"
