"""A disk that is full and a folder that cannot be written to: one sentence, and the old golden file as it was."""

import os
import subprocess
import sys
from contextlib import contextmanager

import pytest

from harness.store.reader import GoldenFile
from tests.fakes import write_golden

FILLED = """
import resource, sys
from pathlib import Path
from harness.errors import GoldensError
from tests.robust.interrupted import record

for limit in map(int, sys.argv[2:]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        record(Path(sys.argv[1]))
    except GoldensError as error:
        print(error)
"""


def test_a_file_that_may_not_grow(tmp_path):
    golden = tmp_path / "g.h5"
    write_golden(golden)
    before, limits = golden.read_bytes(), [str(limit) for limit in (0, 100, 2000, 20_000, 900_000, 1_050_000)]
    told = subprocess.run(
        [sys.executable, "-c", FILLED, golden, *limits], capture_output=True, text=True, timeout=120
    )
    assert told.returncode == 0, told.stderr
    assert told.stderr == ""
    assert len(told.stdout.splitlines()) == len(limits)
    assert all("cannot write" in line and "File too large" in line for line in told.stdout.splitlines())
    assert golden.read_bytes() == before
    assert list(tmp_path.iterdir()) == [golden]


NOT_OFFERED = """
import errno, os

def refused(*arguments):
    raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

os.posix_fallocate = refused
"""
"""As a file system answers that takes no room beforehand, where the C library does not write in its place."""


def test_a_file_that_may_not_grow_where_no_room_is_taken_beforehand(tmp_path):
    golden = tmp_path / "g.h5"
    limits = [str(limit) for limit in (0, 100, 2000, 20_000, 900_000, 1_050_000)]
    command = [sys.executable, "-c", NOT_OFFERED + FILLED, golden, *limits, "100000000"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert told.returncode == 0, told.stderr
    assert told.stderr == ""
    assert told.stdout.count("cannot write") == told.stdout.count("File too large") == len(limits)
    assert list(tmp_path.iterdir()) == [golden], "the last one had room"
    GoldenFile.open(golden)


@contextmanager
def mounted(folder, options):
    """A file system of its own; skips the test where none may be mounted."""
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk(tmp_path):
    with mounted(tmp_path, "size=2m") as disk:
        golden = disk / "g.h5"
        write_golden(golden)
        before = golden.read_bytes()
        (disk / "filler").write_bytes(bytes(1_800_000))
        told = subprocess.run(
            [sys.executable, "-c", FILLED, golden, "100000000"], capture_output=True, text=True, timeout=120
        )
        assert told.stdout == (
            f"cannot write {golden}.new: No space left on device; what was there is as it was\n"
        )
        assert told.stderr == ""
        assert golden.read_bytes() == before
        assert {path.name for path in disk.iterdir()} == {"g.h5", "filler"}


def test_a_folder_that_cannot_be_written_to(tmp_path):
    with mounted(tmp_path, "size=2m") as disk:
        golden = disk / "g.h5"
        write_golden(golden)
        before = golden.read_bytes()
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        told = subprocess.run(
            [sys.executable, "-c", FILLED, golden, "100000000"], capture_output=True, text=True, timeout=120
        )
        assert told.stdout == (
            f"cannot write {golden}: Read-only file system; choose a folder that exists and can be written to\n"
        )
        assert golden.read_bytes() == before
