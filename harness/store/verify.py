"""Holding a golden file's index and its HDF5 against each other, and every digest against its bytes."""

import os
from collections.abc import Iterator
from pathlib import Path

import h5py

from harness.errors import GoldensError
from harness.model import Golden
from harness.store import hdf5
from harness.store.layout import (
    INDEX_PATH,
    TEXT_PATHS,
    USER_BLOCK,
    UserBlock,
    content_digest,
    expected_paths,
    golden_group,
    readable,
)
from harness.store.reader import GoldenFile


def verify(path: str | os.PathLike[str]) -> list[str]:
    """What does not hold, a sentence each; empty when all does.

    Raises GoldensError when the file cannot be opened as a golden file at all.
    """
    golden_file = GoldenFile.open(path)
    return [*_damaged(golden_file), *_disagreements(golden_file)]


def _damaged(file: GoldenFile) -> Iterator[str]:
    with open(file.path, "rb") as content:
        block = content.read(USER_BLOCK)
    if UserBlock.parse(block, str(file.path)).render() != block:
        yield "the header has bytes that were not written by `goldens record`"
    if content_digest(file.contents, file.tensors) != file.digest:
        yield "the content digest is not that of the contents"
    for row in range(len(file.tensors)):
        try:
            file.tensor(row)
        except GoldensError as error:
            yield str(error)


def _disagreements(file: GoldenFile) -> Iterator[str]:
    try:
        with h5py.File(Path(file.path), "r") as content:
            yield from _datasets(file, content)
            yield from _texts(file, content)
            for golden in file.contents.goldens:
                yield from _floors(golden, content)
    except (OSError, RuntimeError, KeyError) as error:
        yield f"HDF5 cannot read it: {error}"


def _datasets(file: GoldenFile, content: h5py.File) -> Iterator[str]:
    expected = expected_paths(file.contents.cases, file.contents.goldens)
    found = dict(_walk(content, ""))
    own = {INDEX_PATH, *TEXT_PATHS.values()}
    for path in sorted(expected.keys() - found.keys()):
        yield f"{path} is in the index and not in HDF5"
    for path in sorted(found.keys() - expected.keys() - own):
        yield f"{path} is in HDF5 and not in the index"
    types = hdf5.types()
    for path in sorted(expected.keys() & found.keys()):
        dataset, tensor = found[path], file.tensors[expected[path]]
        if dataset.id.get_offset() != tensor.offset:
            yield f"{path} lies at {dataset.id.get_offset()} in HDF5 and at {tensor.offset} in the index"
        if dataset.shape != tensor.shape:
            yield f"{path} has shape {dataset.shape} in HDF5 and {tensor.shape} in the index"
        if not dataset.id.get_type().equal(types[tensor.dtype]):
            yield f"{path} is not {tensor.dtype} in HDF5, as the index says"
    for row in sorted(set(range(len(file.tensors))) - set(expected.values())):
        yield f"{file.tensors[row].path} belongs to no case and no golden"


def _walk(group: h5py.Group, path: str) -> Iterator[tuple[str, h5py.Dataset]]:
    """Every path to a dataset; unlike h5py's visit, all of the links to one."""
    for name, member in group.items():
        if isinstance(member, h5py.Group):
            yield from _walk(member, f"{path}/{name}")
        else:
            yield f"{path}/{name}", member


def _texts(file: GoldenFile, content: h5py.File) -> Iterator[str]:
    for part, path in TEXT_PATHS.items():
        if content[path][()].decode() != readable(getattr(file.contents, part)):
            yield f"{path} in HDF5 is not what the index says"


def _floors(golden: Golden, content: h5py.File) -> Iterator[str]:
    group = content[golden_group(golden.dtype, golden.case, golden.component)]
    expected = hdf5.floor_attributes(golden)
    if group.attrs.keys() != expected.keys() or any(group.attrs[name] != expected[name] for name in expected):
        yield f"the floors at {group.name} in HDF5 are not what the index says"
