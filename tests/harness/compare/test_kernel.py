"""What is compiled is kept in the cache, each dtype in a folder of its own; without, it is compiled all the same."""

import os
import subprocess
import sys

import pytest

COMPARED = """
import sys
import ml_dtypes, numpy as np
from harness.compare import sums
dtype = np.dtype(getattr(ml_dtypes, "bfloat16") if sys.argv[1] == "bfloat16" else sys.argv[1])
reference = np.full((1, 40, 1000), 3, dtype)
pair = sums.Pair(np.full_like(reference, 2), reference, np.ones((1, 40), bool), None, True)
found = sums.measure(pair)
print(found.over_inner.sum(axis=(1, 2)).tolist(), found.largest, found.at)
"""
FOUND = "[40000.0, 360000.0] 1.0 0"


def compared(dtype, cache, **environment):
    command = [sys.executable, "-c", COMPARED, dtype]
    return subprocess.Popen(
        command,
        env={**os.environ, "GOLDENS_CACHE": str(cache), **environment},
        stdout=subprocess.PIPE,
        text=True,
    )


def told(process):
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    return out.strip()


def kept(cache):
    return {path: path.stat().st_mtime_ns for path in cache.rglob("*.nbc")}


@pytest.mark.slow
def test_many_processes_at_once_find_the_same_in_an_empty_cache(tmp_path):
    running = [compared(dtype, tmp_path) for dtype in ("float32", "bfloat16", "float32", "bfloat16")]
    assert [told(process) for process in running] == [FOUND] * 4
    assert len(kept(tmp_path)) == 2


@pytest.mark.slow
def test_what_one_process_compiled_another_reads_and_what_is_lost_is_compiled_again(tmp_path):
    assert told(compared("float32", tmp_path)) == FOUND
    before = kept(tmp_path)
    assert len(before) == 1
    assert told(compared("float32", tmp_path)) == FOUND
    assert kept(tmp_path) == before
    for path in before:  # as an interrupted one leaves it: an index, and not what it points to
        path.unlink()
    assert told(compared("float32", tmp_path)) == FOUND
    assert kept(tmp_path).keys() == before.keys()


def test_where_nothing_can_be_kept_it_is_compiled_all_the_same(tmp_path):
    (tmp_path / "file").touch()
    assert told(compared("float32", tmp_path / "file")) == FOUND
    assert told(compared("bfloat16", tmp_path, NUMBA_DISABLE_JIT="1")) == FOUND


@pytest.mark.slow
def test_a_damaged_cache_is_passed_over(tmp_path):
    assert told(compared("float32", tmp_path)) == FOUND
    for path in tmp_path.rglob("*.nb?"):
        path.write_bytes(path.read_bytes()[:100])
    assert told(compared("float32", tmp_path)) == FOUND
    assert kept(tmp_path) == {}
