"""What somebody who knows HDF5 may put into a golden file: `verify` sees each of these, although every digest holds."""

import random
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from h5py import h5d, h5p, h5s

from harness.store import hdf5

Change = Callable[[h5py.File, str], None]
"""Is given the file, and the path of a payload in it."""


def _again(file: h5py.File, path: str, **options: object) -> None:
    """The same numbers, stored in another way."""
    values = np.zeros(file[path].shape, file[path].dtype)
    del file[path]
    file.create_dataset(path, data=values, **options)


def soft_link(file: h5py.File, path: str) -> None:
    del file[path]
    file[path] = h5py.SoftLink("/cases/hello/token_ids")


def soft_link_to_the_same(file: h5py.File, path: str) -> None:
    """To the very tensor that is there: all else agrees."""
    del file["goldens/float32/hello/layers.0.act/inputs/x"]
    target = "/goldens/float32/hello/layers.0.q_proj/output"
    file["goldens/float32/hello/layers.0.act/inputs/x"] = h5py.SoftLink(target)


def external_link_to_the_same(file: h5py.File, path: str) -> None:
    """Out of the file, and back into it."""
    del file["goldens/float32/hello/layers.0.act/inputs/x"]
    target = "/goldens/float32/hello/layers.0.q_proj/output"
    file["goldens/float32/hello/layers.0.act/inputs/x"] = h5py.ExternalLink(Path(file.filename).name, target)


def soft_link_to_nothing(file: h5py.File, path: str) -> None:
    del file[path]
    file[path] = h5py.SoftLink("/nowhere")


def soft_link_to_itself(file: h5py.File, path: str) -> None:
    del file[path]
    file[path] = h5py.SoftLink(path)


def external_link(file: h5py.File, path: str) -> None:
    del file[path]
    file[path] = h5py.ExternalLink("/etc/passwd", "/")


def external_link_of_a_group(file: h5py.File, path: str) -> None:
    del file["goldens"]
    file["goldens"] = h5py.ExternalLink("other.h5", "/goldens")


def external_storage(file: h5py.File, path: str) -> None:
    shape, dtype = file[path].shape, file[path].dtype
    size = int(np.prod(shape)) * dtype.itemsize
    del file[path]
    file.create_dataset(path, shape, dtype, external=[("/etc/passwd", 0, size)])


def virtual_dataset(file: h5py.File, path: str) -> None:
    shape, dtype = file[path].shape, file[path].dtype
    layout = h5py.VirtualLayout(shape, dtype)
    layout[...] = h5py.VirtualSource("other.h5", "x", shape)
    del file[path]
    file.create_virtual_dataset(path, layout)


def chunks(file: h5py.File, path: str) -> None:
    _again(file, path, chunks=True)


def filters(file: h5py.File, path: str) -> None:
    _again(file, path, compression="gzip", shuffle=True)


def checksum_filter(file: h5py.File, path: str) -> None:
    _again(file, path, fletcher32=True)


def foreign_filter(file: h5py.File, path: str) -> None:
    """One that is not registered anywhere, and may be left out."""
    shape, kind = file[path].shape, file[path].id.get_type()
    how = h5p.create(h5p.DATASET_CREATE)
    how.set_chunk(shape)
    how.set_filter(32999, h5py.h5z.FLAG_OPTIONAL, (1, 2, 3))
    del file[path]
    h5d.create(file.id, path.encode(), kind, h5s.create_simple(shape), how)


def unlimited(file: h5py.File, path: str) -> None:
    _again(file, path, maxshape=(None,) * file[path].ndim)


def huge_shape(file: h5py.File, path: str) -> None:
    """An exabyte, none of it stored."""
    dtype = file[path].dtype
    del file[path]
    file.create_dataset(path, (2**20, 2**20, 2**20), dtype, chunks=(1, 1, 1))


def huge_config(file: h5py.File, path: str) -> None:
    """A text of a gigabyte, none of it stored."""
    del file["config"]
    how = h5p.create(h5p.DATASET_CREATE)
    how.set_alloc_time(h5d.ALLOC_TIME_LATE)
    h5d.create(file.id, b"config", hdf5.text_type(2**30), h5s.create(h5s.SCALAR), how)


def other_shape(file: h5py.File, path: str) -> None:
    values = np.zeros((*file[path].shape, 1), file[path].dtype)
    del file[path]
    file[path] = values


def other_type(file: h5py.File, path: str) -> None:
    values = np.zeros(file[path].shape, ">f8")
    del file[path]
    file[path] = values


def compound_type(file: h5py.File, path: str) -> None:
    values = np.zeros(file[path].shape, [("a", "<f2"), ("b", "<f2")])
    del file[path]
    file[path] = values


def text_of_any_length(file: h5py.File, path: str) -> None:
    del file[path]
    file[path] = "numbers"


def references(file: h5py.File, path: str) -> None:
    values = np.full(file[path].shape, file.ref, h5py.ref_dtype)
    del file[path]
    file[path] = values


def nothing(file: h5py.File, path: str) -> None:
    dtype = file[path].dtype
    del file[path]
    file[path] = h5py.Empty(dtype)


def named_type(file: h5py.File, path: str) -> None:
    del file[path]
    file[path] = np.dtype("<f4")


def recursive_group(file: h5py.File, path: str) -> None:
    file["goldens/again"] = file["goldens"]


def group_within_itself(file: h5py.File, path: str) -> None:
    """Under a name that is expected."""
    del file["goldens/float32"]
    file["goldens/float32"] = file["goldens"]


def group_for_a_tensor(file: h5py.File, path: str) -> None:
    del file[path]
    file.create_group(path)


def tensor_for_a_group(file: h5py.File, path: str) -> None:
    del file["cases"]
    file["cases"] = np.zeros(3)


def other_tensor(file: h5py.File, path: str) -> None:
    del file[path]
    file[path] = file["cases/hello/query_index"]


def surplus(file: h5py.File, path: str) -> None:
    file[f"{path.rpartition('/')[0]}/extra"] = np.ones(3)


def missing(file: h5py.File, path: str) -> None:
    del file[path]


def empty_group(file: h5py.File, path: str) -> None:
    file.create_group("goldens/float32/hello/nobody")


def name_with_dots(file: h5py.File, path: str) -> None:
    file["goldens/.."] = file[path]


def name_with_control_characters(file: h5py.File, path: str) -> None:
    file["goldens/a\x1b[31mb\n"] = file[path]


def name_that_is_no_text(file: h5py.File, path: str) -> None:
    file[b"goldens/\xff\xfe"] = file[path]


def attribute(file: h5py.File, path: str) -> None:
    file[path].attrs["code"] = "import os"


def attribute_of_the_root(file: h5py.File, path: str) -> None:
    file.attrs["code"] = np.zeros(3)


def other_floor(file: h5py.File, path: str) -> None:
    group = file["goldens/float32/hello/lm_head"]
    value = group.attrs["isolated_measured_floor"]
    value["whole"] = 1.0
    group.attrs["isolated_measured_floor"] = value


def floor_of_another_type(file: h5py.File, path: str) -> None:
    group = file["goldens/float32/hello/lm_head"]
    group.attrs["isolated_measured_floor"] = np.zeros(3)


def floor_that_is_large(file: h5py.File, path: str) -> None:
    """An attribute of many elements, where one is expected."""
    group = file["goldens/float32/hello/lm_head"]
    group.attrs.create("isolated_measured_floor", np.zeros(500, hdf5.VIEWS))


def no_floor(file: h5py.File, path: str) -> None:
    del file["goldens/float32/hello/lm_head"].attrs["isolated_measured_floor"]


def other_config(file: h5py.File, path: str) -> None:
    length = file["config"].id.get_type().get_size()
    del file["config"]
    hdf5.write_text(file, "config", b"{}".ljust(length))


def no_index(file: h5py.File, path: str) -> None:
    del file["index"]


def other_index(file: h5py.File, path: str) -> None:
    file.move("index", "old")
    file["index"] = file["config"]
    del file["old"]


CHANGES: tuple[Change, ...] = tuple(
    value
    for name, value in list(globals().items())
    if callable(value) and getattr(value, "__module__", "") == __name__ and not name.startswith("_")
)


def changed(draw: random.Random, file: h5py.File) -> str:
    """One of them, to one of the payloads."""
    payloads: list[str] = []
    file["goldens"].visititems(
        lambda name, each: payloads.append(f"goldens/{name}") if name.endswith("output") else None
    )
    change = draw.choice(CHANGES)
    change(file, draw.choice(payloads))
    return change.__name__
