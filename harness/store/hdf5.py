"""What HDF5 calls the things a golden file is made of. Imported by the writer and by `verify` only."""

from functools import cache

import h5py
import numpy as np
from h5py import h5d, h5p, h5s, h5t

from harness.model import Floor, Golden, Views

VIEWS = np.dtype([(field, "<f8") for field in Views.__struct_fields__])
"""A `Views` as an attribute: its fields keep their names in any HDF5 viewer."""


def _bfloat16() -> h5t.TypeID:
    """A true 16-bit float, so that viewers read numbers: sign, 8 bits of exponent, 7 of mantissa."""
    kind = h5t.IEEE_F32LE.copy()
    kind.set_fields(15, 7, 8, 0, 7)
    kind.set_precision(16)
    kind.set_offset(0)
    kind.set_size(2)
    kind.set_ebias(127)
    return kind


@cache
def types() -> dict[str, h5t.TypeID]:
    """Name of a dtype -> HDF5's type for it: every dtype that a golden file can hold."""
    return {
        "bfloat16": _bfloat16(),
        "float16": h5t.IEEE_F16LE,
        "float32": h5t.IEEE_F32LE,
        "float64": h5t.IEEE_F64LE,
        "int32": h5t.STD_I32LE,
        "int64": h5t.STD_I64LE,
    }


def contiguous() -> h5p.PropDCID:
    """Properties of a payload: in one piece, with a place from the start, and nothing that tells the time."""
    properties = h5p.create(h5p.DATASET_CREATE)
    properties.set_layout(h5d.CONTIGUOUS)
    properties.set_alloc_time(h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5d.FILL_TIME_NEVER)
    properties.set_obj_track_times(False)
    return properties


def text_type(nbytes: int) -> h5t.TypeID:
    """A UTF-8 string of fixed length, which HDF5 stores in one piece."""
    kind = h5t.C_S1.copy()
    kind.set_size(nbytes)
    kind.set_strpad(h5t.STR_NULLPAD)
    kind.set_cset(h5t.CSET_UTF8)
    return kind


def write_text(parent: h5py.Group, path: str, text: bytes) -> int:
    """Returns where in the file `text` lies."""
    kind = text_type(len(text))
    dataset = h5d.create(parent.id, path.encode(), kind, h5s.create(h5s.SCALAR), contiguous())
    dataset.write(h5s.ALL, h5s.ALL, np.array(text, dtype=f"S{len(text)}"), kind)
    return int(dataset.get_offset())


def floor_attributes(golden: Golden) -> dict[str, np.ndarray]:
    """The attributes of a golden's group that show its floors."""

    def views(name: str, floor: Floor | None) -> dict[str, np.ndarray]:
        if floor is None:
            return {}
        both = {"measured": floor.measured, "modelled": floor.modelled}
        return {
            f"{name}_{how}_floor": np.array((seen.whole, seen.row, seen.channel), VIEWS)
            for how, seen in both.items()
        }

    return views("isolated", golden.isolated) | views("end_to_end", golden.end_to_end)
