"""`goldens record --dry-run`, and what is said of a file's size before it is recorded."""

import re
from types import SimpleNamespace

import pytest

pytest.importorskip("torch")

from harness.record import command


def test_it_says_how_large_the_file_would_be_and_writes_nothing(goldens, small, tmp_path):
    told = goldens("record", "suites/small.toml", "--dry-run")
    assert told.status == 0, told.err
    dearest, *_, total = told.out.splitlines()[1:]
    assert re.fullmatch(r"\w.*? +[\d.]+ [kM]?B +\d+%", dearest)
    assert re.fullmatch(r"[\d.]+ [kM]B in all", total)
    assert not list(tmp_path.glob("*.h5*"))
    less = goldens("record", "suites/small.toml", "--dry-run", "--keep", "tokens=sample:2")
    assert less.out.splitlines()[-1] != total


@pytest.mark.parametrize(
    ("keep", "says"),
    [
        ("tokens=sample:0", "--keep tokens=sample:0: write one sample:N, with N token positions of a case"),
        ("tokens=sample:2,sample:3", "write one sample:N"),
        ("tokens=sample", "'sample' is neither a number nor a range"),
    ],
)
def test_a_sample_that_is_none_is_refused(goldens, keep, says):
    told = goldens("record", "suites/small.toml", "--keep", keep)
    assert told.status == 2
    assert says in told.err


def test_a_recording_without_room_is_refused_before_it_is_made(goldens, tmp_path, monkeypatch):
    monkeypatch.setattr(command.shutil, "disk_usage", lambda folder: SimpleNamespace(free=20_000))
    told = goldens("record", "suites/small.toml")
    assert told.status == 2
    assert "where 20.0 kB are free: keep less; with --keep tokens=sample:8 it is" in told.err
    assert not list(tmp_path.glob("*.h5*"))


def test_a_large_recording_says_so_beforehand(goldens, monkeypatch):
    monkeypatch.setattr(command, "LARGE", 1)
    told = goldens("record", "suites/small.toml", "--keep", "tokens=sample:2", "--keep", "layers=0")
    assert told.status == 0, told.err
    assert re.search(r"^writing [\d.]+ kB: \d+% \w+", told.err, re.MULTILINE)
