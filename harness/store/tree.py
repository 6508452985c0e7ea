"""What is in a golden file's HDF5 against what its index says is there.

Only what the index names is opened, and no link out of the file or to a name is followed, so that nothing is read
twice over, for ever, or from elsewhere. Of payloads only place, shape and type are asked: their bytes have digests.

    python -m harness.store.tree FILE.h5        # JSON: a list of sentences, empty when all agrees
"""

import resource
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import msgspec
import numpy as np
from h5py import h5a, h5d, h5g, h5l, h5o, h5s, h5t

from harness.errors import first_line
from harness.model import Golden, Tensor
from harness.store import hdf5
from harness.store.layout import (
    INDEX_PATH,
    TEXT_PATHS,
    USER_BLOCK,
    UserBlock,
    expected_paths,
    golden_group,
    readable,
)
from harness.store.reader import GoldenFile

Member = Any
"""`h5g.GroupID` or `h5d.DatasetID`."""
_ROOM = 1 << 30
_VIEWS = h5t.py_create(hdf5.VIEWS)
_KINDS = {h5g.GroupID: "group", h5d.DatasetID: "dataset"}


def disagreements(file: GoldenFile) -> list[str]:
    """A sentence each."""
    try:
        with h5py.File(file.local, "r", locking=False) as content:
            return [*_compared(file, content)]
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        return [f"HDF5 cannot read it: {first_line(error)}"]


def _compared(file: GoldenFile, content: h5py.File) -> Iterator[str]:
    rows = expected_paths(file.contents.cases, file.contents.goldens)
    texts = {path: readable(getattr(file.contents, part)).encode() for part, path in TEXT_PATHS.items()}
    goldens = {golden_group(g.dtype, g.case, g.component): g for g in file.contents.goldens}
    datasets = dict.fromkeys((*rows, *TEXT_PATHS.values(), INDEX_PATH), h5d.DatasetID)
    groups = dict.fromkeys((up for path in (*datasets, *goldens) for up in _above(path)), h5g.GroupID)
    found: dict[str, Member] = {"": h5g.open(content.id, b"/")}
    yield from _walk("", datasets | groups, found)
    if content.id.get_create_plist().get_userblock() != USER_BLOCK:
        yield f"HDF5 does not begin at {USER_BLOCK}"
    for path in sorted((datasets.keys() | groups.keys()) - found.keys()):
        yield f"{path} is in the index and not in HDF5"
    for path in sorted(rows.keys() & found.keys()):
        yield from _tensor(path, file.tensors[rows[path]], found[path])
    yield from _unnamed(file.tensors, rows)
    with open(file.local, "rb") as raw:
        texts[INDEX_PATH] = _index(raw)
        for path in sorted(texts.keys() & found.keys()):
            yield from _text(path, texts[path], found[path], raw)
    for path in sorted(found):
        yield from _floors(path, goldens.get(path), found[path])


def _above(path: str) -> Iterator[str]:
    """The groups that a path leads through, and the root, which is called nothing."""
    while path:
        path = path.rpartition("/")[0]
        yield path


def _walk(path: str, expected: Mapping[str, type[Member]], found: dict[str, Member]) -> Iterator[str]:
    """Put what is expected in the group at `path`, and below, into `found`."""
    group = found[path]
    for name in group:
        member_path = f"{path}/{name.decode(errors='surrogateescape')}"
        shown = member_path if member_path.isprintable() else ascii(member_path)
        if member_path not in expected:
            yield f"{shown} is in HDF5 and not in the index"
        elif group.links.get_info(name).type != h5l.TYPE_HARD:
            yield f"{shown} is a link to a name or out of the file"
        elif not isinstance(member := h5o.open(group, name), expected[member_path]):
            yield f"{shown} is no {_KINDS[expected[member_path]]} in HDF5"
        else:
            found[member_path] = member
            if isinstance(member, h5g.GroupID):
                yield from _walk(member_path, expected, found)


def _tensor(path: str, tensor: Tensor, dataset: h5d.DatasetID) -> Iterator[str]:
    yield from _plain(path, dataset)
    if dataset.get_offset() != tensor.offset:
        yield f"{path} lies at {dataset.get_offset()} in HDF5 and at {tensor.offset} in the index"
    space = dataset.get_space()
    shapes = {space.get_simple_extent_dims(), space.get_simple_extent_dims(True)}
    if shapes != {tensor.stored} or space.get_simple_extent_type() == h5s.NULL:
        yield f"{path} has shape {dataset.shape} in HDF5 and {tensor.stored} in the index"
    if not dataset.get_type().equal(hdf5.types()[tensor.dtype]):
        yield f"{path} is not {tensor.dtype} in HDF5, as the index says"


def _plain(path: str, dataset: h5d.DatasetID) -> Iterator[str]:
    """In one piece and in this file, as it is."""
    how = dataset.get_create_plist()
    if how.get_layout() != h5d.CONTIGUOUS or how.get_external_count() or how.get_nfilters():
        yield f"{path} is stored in chunks, through filters or outside the file"


def _unnamed(tensors: list[Tensor], rows: Mapping[str, int]) -> Iterator[str]:
    """Tensors that are called otherwise than what refers to them."""
    for row, tensor in enumerate(tensors):
        if rows.get(tensor.path) != row:
            yield f"{tensor.path} belongs to no case and no golden"


def _index(raw: BinaryIO) -> bytes:
    raw.seek(0)
    block = UserBlock.parse(raw.read(USER_BLOCK), raw.name)
    raw.seek(block.index_offset)
    return raw.read(block.index_nbytes)


def _text(path: str, text: bytes, dataset: h5d.DatasetID, raw: BinaryIO) -> Iterator[str]:
    """Read from the file itself: what HDF5 says of its length may be anything."""
    yield from _plain(path, dataset)
    if (
        not dataset.get_type().equal(hdf5.text_type(len(text)))
        or dataset.get_space().get_simple_extent_ndims()
    ):
        yield f"{path} in HDF5 is no text as long as the index says"
    raw.seek(dataset.get_offset() or 0)
    if raw.read(len(text)) != text:
        yield f"{path} in HDF5 is not what the index says"


def _floors(path: str, golden: Golden | None, member: Member) -> Iterator[str]:
    """The attributes of a golden's group are its floors; nothing else has any."""
    expected = {} if golden is None else hdf5.floor_attributes(golden)
    names = [h5a.open(member, index=place).name for place in range(h5a.get_num_attrs(member))]
    if sorted(names) != sorted(name.encode() for name in expected):
        yield f"the attributes of {path or '/'} in HDF5 are not those that the index says"
        return
    for name, views in expected.items():
        attribute, held = h5a.open(member, name.encode()), np.zeros((), hdf5.VIEWS)
        if attribute.get_type().equal(_VIEWS) and attribute.shape == ():
            attribute.read(held)
        if held != views:
            yield f"the floors at {path} in HDF5 are not what the index says"


def _limit_memory(path: Path) -> None:
    """To what is in use, twice the file, and room for its index."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 2 * path.stat().st_size + _ROOM, hard))


if __name__ == "__main__":
    asked = Path(sys.argv[1])
    if sys.platform == "linux":
        _limit_memory(asked)
    sys.stdout.buffer.write(msgspec.json.encode(disagreements(GoldenFile.open(asked))))
