"""What `harness.compare.kernel` does, for tensors so small that loading compiled code would take longer. numpy only."""

from typing import Any

import numpy as np

Array = Any


def add(
    first: Array,
    reference: Array,
    rows: Array,
    keys: Array,
    share: float,
    atol: float,
    over_inner: Array,
    over_middle: Array,
) -> tuple[float, int, int, int, int]:
    """As the kernel's `add`, of all columns. first, reference (O M N): of any dtype."""
    one, other = first.astype(np.float64), reference.astype(np.float64)
    real = rows[:, :, None] & keys[:, None, :]
    finite = np.isfinite(one) & np.isfinite(other)
    odd = real & ~finite
    strange = np.flatnonzero(odd & (one != other) & ~(np.isnan(one) & np.isnan(other)))
    lost = int(np.count_nonzero(odd & ~np.isfinite(other)))
    counted = real & finite
    power = np.where(counted, other, 0.0)
    error = np.where(counted, one, 0.0) - share * power
    size = np.abs(error)
    largest, at = float(size.max(initial=0.0)), int(size.argmax()) if size.size else 0
    error[size <= atol] = 0.0
    for kind, numbers in enumerate((error, power)):
        over_inner[kind] = np.vecdot(numbers, numbers)
        over_middle[kind] = np.einsum("omn,omn->on", numbers, numbers)
    return largest, at, strange.size, int(strange[0]) if strange.size else 0, lost
