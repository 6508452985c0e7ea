"""Rows of a tensor, so few at a time that what is done with them stays in a processor's own cache.

A float64 operation takes a sixth of the time there (docs/speed.md). Tiles are worked on side by side. How rows are cut
does not depend on how many processors there are, and what comes of tiles is in their order, so that neither do sums.
"""

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any, TypeVar

import torch

TILE = 2**15 - 1
"""Elements of a tile; from 2^15 on, torch starts threads of its own for each operation."""

T = TypeVar("T")


def cut(length: int, width: int, least: int = 0) -> list[slice]:
    """Rows of `width` elements each, in tiles that are about as high as each other.

    least: elements that each tile has to do with beside its own: it is as large as they are
    """
    count = max(1, math.ceil(length / max(1, max(TILE, least) // max(1, width))))
    ends = [length * number // count for number in range(count + 1)]
    return [slice(start, stop) for start, stop in pairwise(ends)]


def each(work: Callable[[slice], T], tiles: list[slice]) -> list[T]:
    """What comes of every tile, in order."""
    if len(tiles) == 1:
        return [work(tiles[0])]

    def helped(tile: slice) -> T:
        with torch.inference_mode():  # which a thread has of its own
            return work(tile)

    return list(_helpers().map(helped, tiles))


@cache
def _helpers() -> ThreadPoolExecutor:
    """Few: between operations, a thread holds Python's lock."""
    return ThreadPoolExecutor(min(4, os.cpu_count() or 1), thread_name_prefix="floors")


def rows_of(tensor: Any, axes: str, rows: slice) -> Any:
    """A view of some rows of a tensor's T axis; keys (S) stay whole."""
    letters = axes.split()
    return tensor[(slice(None),) * letters.index("T") + (rows,)] if "T" in letters else tensor
