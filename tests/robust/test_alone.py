"""One process at a time records or accepts a golden file, and clears away what an interrupted one left."""

import fcntl
import os
from pathlib import Path

import pytest

from harness.errors import GoldensError
from harness.whole import alone, left_over
from tests.commands.waiting import DEAD, A, beside_them, pending


@pytest.fixture
def waiting(monkeypatch, capsys, tmp_path):
    return beside_them(monkeypatch, capsys, tmp_path)


@pytest.mark.parametrize("verb", ["accept", "reject"])
def test_what_an_interrupted_recording_left_is_removed_and_told(waiting, verb):
    left, other = Path(f"a.h5.new.{DEAD}.partial"), Path(f"b.h5.new.{DEAD}.partial")
    living = Path(f"a.h5.new.{os.getppid()}.partial")
    for path in (left, other, living):
        path.write_bytes(b"half")
    told = waiting(verb, "a.h5")
    assert told.status == 0, told.err
    assert told.err == f"{left}: removed, an interrupted recording left it\n"
    assert not left.exists()
    assert living.exists(), "its process may still write it"
    assert other.exists(), "it is another golden file's"
    assert not Path(".a.h5.lock").exists()


@pytest.mark.parametrize("verb", ["accept", "reject"])
def test_who_comes_second_is_refused(waiting, verb):
    before = pending(A).read_bytes()
    with alone(A, print):
        told = waiting(verb, "a.h5")
    assert told.status == 2
    assert told.err == (
        f"goldens: a.h5 is being recorded or accepted by process {os.getpid()}: wait for it, or use another name\n"
    )
    assert pending(A).read_bytes() == before
    assert waiting(verb, "a.h5").status == 0, "the lock ended with who had it"


def test_recording_a_golden_file_that_somebody_records(waiting):
    command = ["record", "--from-port", "--like", "a.h5", "--port", "tests.fakes:make", "-o", "mine.h5"]
    with alone(Path("mine.h5"), print):
        told = waiting(*command)
    assert told.status == 2
    assert "mine.h5 is being recorded or accepted by process" in told.err


def test_a_lock_that_a_killed_process_left_locks_nothing(tmp_path):
    golden = tmp_path / "g.h5"
    (tmp_path / ".g.h5.lock").write_text(str(DEAD))
    with alone(golden, print):
        assert (tmp_path / ".g.h5.lock").read_text() == str(os.getpid())
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_its_holder_removed_meanwhile_is_none(tmp_path, monkeypatch):
    """Between opening and locking it: whoever comes next would lock another file of that name."""
    locked, lock, flock = [], tmp_path / ".g.h5.lock", fcntl.flock

    def removed_once(descriptor, how):
        flock(descriptor, how)
        if not locked:
            lock.unlink()
        locked.append(descriptor)

    monkeypatch.setattr(fcntl, "flock", removed_once)
    with alone(tmp_path / "g.h5", print):
        assert len(locked) == 2
        assert lock.read_text() == str(os.getpid())


def test_a_folder_that_is_not_there(tmp_path):
    with (
        pytest.raises(GoldensError, match=r"no/g\.h5: No such file .*; choose a folder"),
        alone(tmp_path / "no/g.h5", print),
    ):
        pass


def test_only_partial_files_of_the_name_are_left_over(tmp_path):
    names = [f"g.h5.{DEAD}.partial", f"g.h5.new.{DEAD}.partial"]
    others = ["g.h5.partial", f"xg.h5.{DEAD}.partial", f"g.h5.{DEAD}.partial.txt", f"g.h5.old.{DEAD}.partial"]
    for name in (*names, *others):
        (tmp_path / name).touch()
    assert [path.name for path in left_over(tmp_path / "g.h5")] == names
