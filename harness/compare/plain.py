"""What `harness.compare.kernel` does, for tensors so small that loading compiled code would take longer. numpy only."""

from collections.abc import Iterable
from typing import Any

import numpy as np

Array = Any
Place = tuple[int, int, int]
"""Indices of an element: of O, M and N."""


def add(
    first: Array,
    reference: Array,
    rows: Array,
    keys: Array,
    share: float,
    atol: float,
    columns: tuple[int, int],
    over_inner: Array,
    over_middle: Array,
) -> tuple[float, Place, int, Place, int]:
    """As the kernel has it; of all columns there are."""
    assert columns == (0, reference.shape[2]), "small tensors are not cut"
    with np.errstate(invalid="ignore", over="ignore"):
        one, other = map(_wide, (first, reference))
        real = rows[:, :, None] & keys[:, None, :]
        finite = np.isfinite(one) & np.isfinite(other)
        odd = real & ~finite
        strange = np.argwhere(odd & (one != other) & ~(np.isnan(one) & np.isnan(other)))
        lost = int(np.count_nonzero(odd & ~np.isfinite(other)))
        counted = real & finite
        power = np.where(counted, other, 0.0)
        error = np.where(counted, one, 0.0) - share * power
        size = np.abs(error)
        largest, at = float(size.max(initial=0.0)), np.unravel_index(size.argmax(), size.shape)
        error[size <= atol] = 0.0
        for kind, numbers in enumerate((error, power)):
            squares = numbers * numbers
            over_inner[kind] = squares.sum(axis=2)
            over_middle[kind] = squares.sum(axis=1)
    where = strange[0] if len(strange) else (0, 0, 0)
    return largest, _place(at), len(strange), _place(where), lost


def _wide(array: Array) -> Array:
    if array.dtype == np.uint16:  # bfloat16, the upper half of a float32
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float64)


def _place(indices: Iterable[Any]) -> Place:
    o, m, n = (int(index) for index in indices)
    return o, m, n
