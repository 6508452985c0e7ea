"""Values that several processes hold parts of."""

from typing import Any

import jax
from jax.experimental import multihost_utils

Array = Any


def gathered(value: Array) -> Array:
    """The value; where other processes hold parts of it, all of them put together, in numpy.

    All processes have to ask for the same values in the same order.
    """
    if not isinstance(value, jax.Array) or value.is_fully_addressable:
        return value
    return multihost_utils.process_allgather(value, tiled=True)
