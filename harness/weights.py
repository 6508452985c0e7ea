"""What a checkpoint's tensors are, by the reference's names and in its layout, mapped into memory.

The reference's weights are read from here, never from the port. Needs neither torch nor jax.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import GoldensError, first_line

if TYPE_CHECKING:
    import numpy as np

_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


class Weights(Mapping[str, "np.ndarray"]):
    """The tensors of a folder's safetensors files, in the dtype they are stored in. What is not looked at is not read.

    Raises GoldensError for a file that is no safetensors file or holds other than floating-point numbers, KeyError
    for a name there is not.
    """

    def __init__(self, folder: Path) -> None:
        self._tensors: dict[str, np.ndarray] = {}
        for path in sorted(folder.glob("*.safetensors")):
            self._tensors |= _mapped(path)

    def __getitem__(self, name: str) -> "np.ndarray":
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def _mapped(path: Path) -> "dict[str, np.ndarray]":
    """Name -> read-only view of the file."""
    import numpy as np

    start, header = _header(path)
    content = np.memmap(path, np.uint8, mode="r")
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        tensors[name] = (
            content[start + begin : start + end]
            .view(_dtype(path, name, entry["dtype"]))
            .reshape(entry["shape"])
        )
    return tensors


def _header(path: Path) -> tuple[int, dict[str, Any]]:
    """Where payloads begin, and what the file says of them. The library checks that it is whole."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"), path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            return 8 + length, json.loads(file.read(length))
    except (SafetensorError, OSError) as error:
        raise GoldensError(f"{path} cannot be read as safetensors: {first_line(error)}") from error


def _dtype(path: Path, name: str, stored: str) -> "np.dtype":
    from harness.store.layout import numpy_dtype

    if stored not in _DTYPES:
        raise GoldensError(
            f"{path}: {name} is stored as {stored}, where floating-point numbers were expected"
        )
    return numpy_dtype(_DTYPES[stored])
