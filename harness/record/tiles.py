"""Rows of a tensor, so few at a time that what they are evaluated in fits into memory, whatever the length of a text.

torch's operations on a tile run on all processors. So tiles are large: of those that stay in a processor's own cache,
calling operations took a quarter of the time (docs/speed.md).
"""

import math
from itertools import pairwise
from typing import Any

TILE = 2**20
"""Elements of a tile: 8 MB in float64."""


def cut(length: int, width: int, least: int = 0) -> list[slice]:
    """Rows of `width` elements each, in tiles that are about as high as each other.

    least: elements that each tile has to do with beside its own: it is as large as they are
    """
    count = max(1, math.ceil(length / max(1, max(TILE, least) // max(1, width))))
    ends = [length * number // count for number in range(count + 1)]
    return [slice(start, stop) for start, stop in pairwise(ends)]


def rows_of(tensor: Any, axes: str, rows: slice) -> Any:
    """A view of some rows of a tensor's T axis; keys (S) stay whole."""
    letters = axes.split()
    return tensor[(slice(None),) * letters.index("T") + (rows,)] if "T" in letters else tensor
