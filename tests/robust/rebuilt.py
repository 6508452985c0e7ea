"""Golden files whose index or HDF5 is changed by somebody who knows the format: every digest holds."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import msgspec

from harness.store import hdf5
from harness.store.layout import FORMAT, INDEX_PATH, USER_BLOCK, Index, UserBlock, content_digest


def with_hdf5(base: Path, target: Path, change: Callable[[h5py.File], None]) -> None:
    """`change` is given the file opened by h5py. The header is told how long the file has become."""
    shutil.copyfile(base, target)
    with h5py.File(target, "r+", locking=False) as content:
        change(content)
    block = UserBlock.parse(base.read_bytes()[:USER_BLOCK], str(base))
    _head(target, block.index_offset, block.index_nbytes, block.index_sha256)


def with_index(base: Path, target: Path, change: Callable[[Any], None]) -> None:
    """`change` is given the index as JSON has it. HDF5 holds the new one, and the content digest is its own."""
    content = base.read_bytes()
    block = UserBlock.parse(content[:USER_BLOCK], str(base))
    index = msgspec.json.decode(content[block.index_offset :][: block.index_nbytes])
    change(index)
    with_text(base, target, msgspec.json.encode(_redigested(index)))


def with_text(base: Path, target: Path, encoded: bytes) -> None:
    """The index is `encoded`, whatever that is."""
    shutil.copyfile(base, target)
    with h5py.File(target, "r+", libver=("v108", "v110"), locking=False) as file:
        del file[INDEX_PATH]
        offset = hdf5.write_text(file, INDEX_PATH, encoded)
    _head(target, offset, len(encoded), hashlib.sha256(encoded).hexdigest())


def _redigested(index: Any) -> Any:
    """With the digest of its contents, where they are contents."""
    try:
        known = msgspec.convert(index, Index)
    except (msgspec.ValidationError, TypeError):
        return index
    return index | {"digest": content_digest(known.contents, known.tensors)}


def _head(target: Path, offset: int, nbytes: int, sha256: str) -> None:
    block = UserBlock(FORMAT, offset, nbytes, sha256, target.stat().st_size)
    with open(target, "r+b") as file:
        file.write(block.render())
