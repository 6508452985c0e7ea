"""What a parameter's numbers hash to in a dtype, and its bits. numpy, block by block, so that it costs no memory."""

import hashlib
from collections.abc import Iterator
from typing import Any

Array = Any

_BLOCK = 2**22
"""Elements that are converted at a time."""


def fingerprint(tensor: Array, dtype: str) -> str:
    """SHA-256 of the little-endian bytes of `tensor`, in C order, each number rounded to nearest in `dtype`."""
    import numpy as np

    from harness.store.layout import numpy_dtype

    wanted, digest = numpy_dtype(dtype), hashlib.sha256()
    for block in blocks(tensor):
        with np.errstate(over="ignore", invalid="ignore"):
            told = np.ascontiguousarray(block.astype(wanted, copy=False))
        digest.update(told.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def blocks(tensor: Array) -> Iterator[Array]:
    """A tensor in parts of whole rows, of a bounded number of elements if its rows are not longer than that."""
    if tensor.ndim == 0:
        yield tensor
        return
    step = max(1, _BLOCK * len(tensor) // max(tensor.size, 1))
    for start in range(0, len(tensor), step):
        yield tensor[start : start + step]


def bits(tensor: Array) -> Array:
    """The same, as unsigned whole numbers: what is NaN, or zero of either sign, is told apart."""
    import numpy as np

    return np.ascontiguousarray(tensor).view(f"u{tensor.dtype.itemsize}")


def same(a: Array, b: Array) -> bool:
    """Whether two tensors of one dtype are bit by bit the same."""
    import numpy as np

    return a.shape == b.shape and a.dtype == b.dtype and bool(np.array_equal(bits(a), bits(b)))
