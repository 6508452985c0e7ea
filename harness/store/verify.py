"""Holding a golden file's index and its HDF5 against each other, and every digest against its bytes.

Digests come first: HDF5 parses nothing before they hold. What they do not cover is HDF5's own bookkeeping, and bad
bookkeeping can crash HDF5: so it is asked in a process of its own.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from harness.errors import GoldensError
from harness.store.layout import USER_BLOCK, UserBlock
from harness.store.reader import GoldenFile

_SECONDS = 60.0
_BYTES_A_SECOND = 10e6
"""What HDF5 is given time for, beside what starting takes: far more than it needs."""


def verify(path: str | os.PathLike[str]) -> list[str]:
    """What does not hold, a sentence each; empty when all does.

    Raises GoldensError when the file cannot be opened as a golden file at all.
    """
    file = GoldenFile.open(path)
    return [*damaged(file)] or disagreements_apart(file.local)


def damaged(file: GoldenFile) -> Iterator[str]:
    """What digests tell, and what an index says that no recording says."""
    with open(file.local, "rb") as content:
        block = UserBlock.parse(content.read(USER_BLOCK), str(file.path))
        content.seek(block.index_offset)
        encoded = content.read(block.index_nbytes)
    if msgspec.json.encode(msgspec.json.decode(encoded)) != encoded:
        yield "the index says something twice, or has room for something that is not read"
    for row in range(len(file.tensors)):
        try:
            file.tensor(row)
        except GoldensError as error:
            yield str(error)


def disagreements_apart(path: Path) -> list[str]:
    """`harness.store.tree` in another process. One that crashes, hangs or needs too much memory is what is said."""
    command = [sys.executable, "-m", "harness.store.tree", str(path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    seconds = _SECONDS + path.stat().st_size / _BYTES_A_SECOND
    try:
        asked = subprocess.run(command, capture_output=True, timeout=seconds, env=environment, check=True)
        return msgspec.json.decode(asked.stdout, type=list[str])
    except subprocess.TimeoutExpired:
        return [f"HDF5 cannot read it: it comes to no end in {seconds:.0f} s"]
    except subprocess.CalledProcessError as error:
        return [f"HDF5 cannot read it: {_why(error)}"]


def _why(error: subprocess.CalledProcessError) -> str:
    if error.returncode < 0:
        return f"it was ended by signal {-error.returncode}"
    lines = error.stderr.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"it ended with {error.returncode}"
