"""Reading safetensors files: one tensor at a time, with nothing else in memory.

By plain reads rather than a memory map, so that the pages of a file that has been read do not stay in the
process. The format: 8 bytes with the header's length, little-endian; a JSON header that gives each tensor's
dtype, shape and place; the tensors' bytes.
"""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

_DTYPES: Mapping[str, np.dtype] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}

_BLOCK = 1 << 20
"""Elements that are read at a time: they stay in a processor's cache until they are converted."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be loaded: one sentence names the file or the tensors."""


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies, and as what. `dtype` is the file format's word for it, `BF16` for instance."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int

    def read(self) -> np.ndarray:
        """The tensor, in the dtype it is stored in. Raises CheckpointError when bytes are missing."""
        with self.file.open("rb") as stream:
            return self.read_from(stream, _DTYPES[self.dtype])

    def read_from(self, stream: BinaryIO, dtype: np.dtype) -> np.ndarray:
        """The tensor in `dtype`, from its file opened before, in memory that JAX can use without copying it.

        It is read and converted block by block: nothing of it is in memory twice. Any number of threads may read from
        one stream. float64 becomes half precision by way of float32.
        """
        stored, count = _DTYPES[self.dtype], math.prod(self.shape)
        tensor = _aligned(count * dtype.itemsize).view(dtype)
        for start in range(0, count, _BLOCK):
            block = tensor[start : start + _BLOCK]
            piece = block if stored == dtype else np.empty(len(block), stored)
            self._fill(stream, piece.view(np.uint8), self.offset + start * stored.itemsize)
            if piece is not block:
                with np.errstate(over="ignore"):
                    block[...] = piece.astype(np.float32) if stored.itemsize == 8 else piece
        return tensor.reshape(self.shape)

    def _fill(self, stream: BinaryIO, target: np.ndarray, offset: int) -> None:
        """target: bytes, that begin at `offset` in the file"""
        if os.preadv(stream.fileno(), [target.data], offset) != len(target):
            raise CheckpointError(f"{self.file} became shorter while it was read: fetch the checkpoint again")


def _aligned(nbytes: int) -> np.ndarray:
    """Uninitialised bytes that start at a multiple of 64, which XLA asks for of memory that it takes over."""
    buffer = np.empty(nbytes + 63, np.uint8)
    start = -buffer.ctypes.data % 64
    return buffer[start : start + nbytes]


def tensors_of(folder: str | Path) -> dict[str, StoredTensor]:
    """All tensors of a checkpoint folder by name: of `model.safetensors`, or of all files its index lists.

    Raises CheckpointError for files that are missing, cut short or damaged, a tensor that is not where the
    index says, and a dtype that is none of the float dtypes.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(
            f"no checkpoint folder {folder}: give a folder that holds config.json and safetensors files"
        )
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return _tensors_in(single)
    if not index.is_file():
        raise CheckpointError(f"{folder} holds neither {single.name} nor {index.name}")

    found: dict[str, StoredTensor] = {}
    weight_map = _weight_map(index)
    for shard in sorted(set(weight_map.values())):
        if not (folder / shard).is_file():
            raise CheckpointError(
                f"{index} lists {shard}, which is not in the folder: fetch the checkpoint again"
            )
        for name, tensor in _tensors_in(folder / shard).items():
            if weight_map.get(name) != shard:
                said = weight_map.get(name, "no file")
                raise CheckpointError(f"{tensor.file} holds {name}, which {index} lists in {said}")
            found[name] = tensor
    absent = sorted(weight_map.keys() - found.keys())
    if absent:
        raise CheckpointError(f"{index} lists tensors that its files do not hold: {', '.join(absent)}")
    return found


def _weight_map(index: Path) -> dict[str, str]:
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    except (OSError, ValueError, KeyError, TypeError):
        weight_map = None
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        raise CheckpointError(
            f"{index} is no index of tensors: it has no readable `weight_map` from names to files"
        )
    return weight_map


def _tensors_in(file: Path) -> dict[str, StoredTensor]:
    """The tensors of one file, whose payloads must fill the file exactly, without gap or overlap."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > size - 8:
            raise CheckpointError(
                f"{file} is cut short or is no safetensors file: fetch the checkpoint again"
            )
        header = stream.read(length)
    try:
        entries = json.loads(header)
        tensors = {n: _stored(file, n, e, 8 + length) for n, e in entries.items() if n != "__metadata__"}
    except CheckpointError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError):
        raise CheckpointError(
            f"{file} has no readable safetensors header: fetch the checkpoint again"
        ) from None

    end = 8 + length
    for tensor in sorted(tensors.values(), key=lambda t: (t.offset, t.nbytes)):
        if tensor.offset != end:
            raise CheckpointError(
                f"{file} is damaged, its tensors overlap or leave gaps: fetch the checkpoint again"
            )
        end += tensor.nbytes
    if end != size:
        raise CheckpointError(
            f"{file} has {size} bytes where its header speaks of {end}: fetch the checkpoint again"
        )
    return tensors


def _stored(file: Path, name: str, entry: Any, base: int) -> StoredTensor:
    dtype, shape, (start, stop) = entry["dtype"], tuple(map(int, entry["shape"])), entry["data_offsets"]
    if dtype not in _DTYPES:
        raise CheckpointError(
            f"{file}: {name} is stored as {dtype}, but one of {', '.join(_DTYPES)} was expected"
        )
    if stop - start != math.prod(shape) * _DTYPES[dtype].itemsize:
        raise CheckpointError(
            f"{file}: {name} has {stop - start} bytes, which is not what {dtype} {list(shape)} takes"
        )
    return StoredTensor(file, dtype, shape, base + start, stop - start)
