"""Which token positions stand for a case: chosen by what a mistake could need, the rest spread and drawn.

Always there are, of every text, the first and the last token: they stand beside padding, the last one sees all keys,
lies beyond a sliding window if any does, and at the longest position. So is the highest token id, where embedding
rows are cut off. No clock and no generator decides: a case has the same sample on every machine.
"""

import hashlib
from collections.abc import Collection, Sequence
from itertools import pairwise

import numpy as np

from harness.inputs import CaseInputs


def sample(case: CaseInputs, size: int) -> list[int]:
    """`size` token positions of a case, in order; more where its texts have more ends, and all where it has no more."""
    real = case.attention_mask != 0
    somewhere = np.flatnonzero(real.any(axis=0)).tolist()
    if size >= len(somewhere):
        return list(range(real.shape[1]))
    chosen = _needed(case.token_ids, real)
    others = [position for position in somewhere if position not in chosen]
    return sorted({*chosen, *_spread(case.name, others, size - len(chosen))})


def covering(case: CaseInputs, positions: Sequence[int], size: int) -> list[int]:
    """`size` of these positions, in order: first so many that every text has a token there, then far apart."""
    real = case.attention_mask != 0
    left, chosen = real[:, positions].any(axis=1), list[int]()
    while left.any():
        seen = [(real[left, position].sum(), position) for position in positions]
        chosen.append(max(seen)[1])
        left &= ~real[:, chosen[-1]]
    while len(chosen) < min(size, len(positions)):
        chosen.append(max(positions, key=lambda position: (_distance(position, chosen), position)))
    return sorted(chosen)


def _needed(token_ids: np.ndarray, real: np.ndarray) -> set[int]:
    """The ends of every text, and the highest token id."""
    ends = {int(end) for row in real for end in np.flatnonzero(row)[[0, -1]]}
    highest = np.where(real, token_ids, -1).max(axis=0).argmax()
    return {*ends, int(highest)}


def _spread(name: str, positions: list[int], count: int) -> list[int]:
    """One position out of each of `count` equal parts: drawn, since a text that repeats itself has a period."""
    if count <= 0:
        return []
    edges = [len(positions) * part // count for part in range(count + 1)]
    return [positions[start + _drawn(f"{name}/{start}", stop - start)] for start, stop in pairwise(edges)]


def _drawn(what: str, below: int) -> int:
    return int.from_bytes(hashlib.sha256(what.encode()).digest()[:8], "big") % below


def _distance(position: int, chosen: Collection[int]) -> int:
    return min(abs(position - other) for other in chosen)
