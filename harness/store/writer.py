"""Writing a golden file: payloads as they come, everything that refers to them at the end."""

import hashlib
import math
import os
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import h5py
import msgspec
import numpy as np
from h5py import h5d, h5s

from harness.errors import GoldensError
from harness.model import Contents, Floor, Tensor
from harness.store import hdf5
from harness.store.layout import (
    FORMAT,
    INDEX_PATH,
    TEXT_PATHS,
    USER_BLOCK,
    Index,
    UserBlock,
    expected_paths,
    golden_group,
    numpy_dtype,
    readable,
)
from harness.store.payloads import Payloads
from harness.store.room import Room


class Writer(Protocol):
    """Where tensors go: a golden file, or memory."""

    def tensor(self, path: str, array: np.ndarray, repeats: int = 1) -> int:
        """Keep one payload, and return its row in the tensor table.

        repeats: along the second axis each entry is there so many times in a row
        """
        ...

    def link(self, path: str, row: int) -> None:
        """Show the payload of `row` under `path` as well."""
        ...


class GoldenWriter:
    """Writes beside `path` under a temporary name; `finish` gives the file its name.

    Used as a context manager: left without `finish`, nothing stays behind.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self._path = Path(path)
        self._partial = self._path.with_name(f"{self._path.name}.{os.getpid()}.partial")
        self._tensors: list[Tensor] = []
        self._rows: dict[str, int] = {}
        self._types = hdf5.types()

    def __enter__(self) -> Self:
        try:
            self._room = Room(self._partial, self._path)
            self._file = self._begun()
            self._payloads = Payloads(self._partial)
        except OSError as error:
            self._partial.unlink(missing_ok=True)
            raise GoldensError(
                f"cannot write {self._path}: {os.strerror(error.errno) if error.errno else error};"
                " choose a folder that exists and can be written to"
            ) from error
        return self

    def _begun(self) -> h5py.File:
        """Room is taken before HDF5 has the file, and again since it empties it."""
        try:
            self._room.take(0)
        except GoldensError:
            self._partial.unlink()
            raise
        # Compact groups (since HDF5 1.8) take far less room; a payload starts at a multiple of
        # 64 bytes, so that JAX takes over what is mapped into memory and copies nothing.
        file = h5py.File(
            self._partial,
            "w",
            userblock_size=USER_BLOCK,
            libver=("v108", "v110"),
            alignment_threshold=1,
            alignment_interval=64,
            locking=False,  # nobody else knows the name, and not every file system can
        )
        self._room.lose()
        return file

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._payloads.close()
            self._file.close()
        except Exception:
            if error is None:  # otherwise the first error is the one to tell
                raise
        finally:
            self._room.close()
            self._partial.unlink(missing_ok=True)

    def tensor(self, path: str, array: np.ndarray, repeats: int = 1) -> int:
        """Write one payload under `path` and return its row in the tensor table.

        repeats: along the second axis each entry is there so many times in a row; it is stored once
        Raises ValueError where that is not so, and for what no golden file holds.
        """
        path = self._new(path)
        dtype = array.dtype.name
        if dtype not in self._types:
            raise ValueError(f"{path}: a golden file holds {', '.join(self._types)}; not {dtype}")
        if array.size == 0:
            raise ValueError(f"{path}: shape {array.shape} has no elements, and would agree with anything")
        once = _once(path, array, repeats) if repeats > 1 else array
        payload = once.astype(numpy_dtype(dtype), copy=False)
        kind = self._types[dtype]
        self._make_room(payload.nbytes)
        parent, name = path.rsplit("/", 1)
        space = h5s.create_simple(payload.shape) if payload.shape else h5s.create(h5s.SCALAR)
        dataset = h5d.create(self._group(parent).id, name.encode(), kind, space, hdf5.contiguous())
        offset = dataset.get_offset()
        self._payloads.put(payload, offset)
        self._rows[path] = len(self._tensors)
        self._tensors.append(Tensor(path, dtype, array.shape, offset, payload.nbytes, "", repeats))
        return self._rows[path]

    def link(self, path: str, row: int) -> None:
        """Show the payload of `row` under `path` as well."""
        path = self._new(path)
        self._make_room(0)
        parent, name = path.rsplit("/", 1)
        self._group(parent)[name] = self._file[self._tensors[row].path]
        self._rows[path] = row

    def finish(self, contents: Contents) -> None:
        """Write what the tensors are, close the file, and give it its name.

        Raises ValueError when `contents` and the tensors written do not refer to each other exactly.
        """
        self._check(contents)
        for golden in contents.goldens:
            group = self._group(golden_group(golden.dtype, golden.case, golden.component))
            self._make_room(0)
            for name, value in hdf5.floor_attributes(golden).items():
                group.attrs.create(name, value)
        texts = {path: readable(getattr(contents, part)).encode() for part, path in TEXT_PATHS.items()}
        texts[INDEX_PATH] = encoded = Index.of(contents, self._hashed()).encode()
        for path, text in texts.items():
            self._make_room(len(text))
            offset = hdf5.write_text(self._file, path, text)
        self._file.flush()
        nbytes = self._file.id.get_filesize()
        self._file.close()
        os.truncate(self._partial, nbytes)  # to what was used of the room that was taken
        block = UserBlock(
            format=FORMAT,
            index_offset=offset,
            index_nbytes=len(encoded),
            index_sha256=hashlib.sha256(encoded).hexdigest(),
            file_nbytes=nbytes,
        )
        with open(self._partial, "r+b") as file:
            file.write(block.render())
            file.flush()
            os.fsync(file.fileno())
        os.replace(self._partial, self._path)

    def _hashed(self) -> list[Tensor]:
        """The tensors, once the last one is written."""
        rows = zip(self._tensors, self._payloads.digests(), strict=True)
        return [msgspec.structs.replace(tensor, sha256=digest) for tensor, digest in rows]

    def _make_room(self, nbytes: int) -> None:
        """For so many bytes more. Raises GoldensError when the disk is full."""
        self._room.take(self._file.id.get_filesize() + nbytes)

    def _new(self, path: str) -> str:
        path = "/" + path.strip("/")
        if path in self._rows:
            raise ValueError(f"{path} is written already")
        return path

    def _group(self, path: str) -> h5py.Group:
        """Made step by step: h5py gives groups that it makes on the way the time of day."""
        group = self._file["/"]
        for name in path.strip("/").split("/"):
            group = group[name] if name in group else group.create_group(name, track_times=False)
        return group

    def _check(self, contents: Contents) -> None:
        expected = expected_paths(contents.cases, contents.goldens)
        wrong = sorted(path for path in expected | self._rows if expected.get(path) != self._rows.get(path))
        if wrong:
            raise ValueError(f"contents and tensors disagree at {', '.join(wrong[:5])} ({len(wrong)} in all)")
        groups = Counter(golden_group(g.dtype, g.case, g.component) for g in contents.goldens)
        if twice := [group for group, count in groups.items() if count > 1]:
            raise ValueError(f"{twice[0]} is there twice")
        for golden in contents.goldens:
            for floor in (golden.end_to_end, golden.isolated):
                if floor is not None and not _finite(floor):
                    raise ValueError(
                        f"{golden.component} in {golden.case}, {golden.dtype}: floor {floor} is not finite"
                    )


def _once(path: str, array: np.ndarray, repeats: int) -> np.ndarray:
    """Each entry along the second axis that is there `repeats` times in a row, once. Bit by bit: NaN is NaN."""
    bits = array.view(np.dtype(f"u{array.itemsize}"))
    once = bits[:, ::repeats]
    if not all(np.array_equal(bits[:, place::repeats], once) for place in range(1, repeats)):
        raise ValueError(f"{path}: shape {array.shape} does not have each entry {repeats} times in a row")
    return array[:, ::repeats]


def _finite(floor: Floor) -> bool:
    return all(
        math.isfinite(value)
        for views in (floor.measured, floor.modelled)
        for value in (views.whole, views.row, views.channel)
    )
