"""What Hypothesis leaves: fewer tokens, and smaller ones, while it still fails. Imports nothing heavy."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from harness.fuzz.drawn import Drawn

Fails = Callable[[Drawn], bool]

_FEW = 16
"""Tokens that are looked at one by one; longer rows are thinned out in blocks, which costs far fewer runs."""


def shrink(found: Drawn, fails: Fails) -> Drawn:
    """An input that fails like `found`: cut off behind, then thinned out, then with smaller tokens."""
    return _lowered(_thinned(_cut(found, fails), fails), fails)


def _cut(found: Drawn, fails: Fails) -> Drawn:
    """The shortest beginning of all rows that fails, if all longer ones do."""
    passes, length = 0, found.length
    while length - passes > 1:
        middle = (passes + length) // 2
        if fails(_beginning(found, middle)):
            length = middle
        else:
            passes = middle
    return _beginning(found, length)


def _beginning(found: Drawn, length: int) -> Drawn:
    return replace(found, rows=tuple(row[:length] for row in found.rows))


def _thinned(found: Drawn, fails: Fails) -> Drawn:
    """Without blocks of tokens that it fails without: halves first, then smaller ones."""
    size, least = found.length // 2, 1 if found.length <= _FEW else found.length // _FEW
    while size >= least:
        for place in _places(found):
            start = 0
            while (without := _without(found, place, start, size)) is not None:
                if fails(without):
                    found = without
                else:
                    start += size
        size //= 2
    return found


def _places(found: Drawn) -> Iterator[slice]:
    """Rows that are thinned out together: without padding, all are as long as each other."""
    count = len(found.rows)
    yield from [slice(0, count)] if found.padding == "none" else (slice(row, row + 1) for row in range(count))


def _without(found: Drawn, rows: slice, start: int, size: int) -> Drawn | None:
    """Without the tokens from `start` in some rows; None where there are none, or no others."""
    length = max(len(row) for row in found.rows[rows])
    if start >= length or length <= size:
        return None
    left = [row[:start] + row[start + size :] for row in found.rows[rows]]
    return replace(found, rows=(*found.rows[: rows.start], *left, *found.rows[rows.stop :]))


def _lowered(found: Drawn, fails: Fails) -> Drawn:
    """With each token as small as halving makes it, where there are few."""
    if sum(len(row) for row in found.rows) > _FEW:
        return found
    for row in range(len(found.rows)):
        for place in range(len(found.rows[row])):
            while True:
                lower = (_with_token(found, row, place, t) for t in _smaller(found.rows[row][place]))
                failing = next((each for each in lower if fails(each)), None)
                if failing is None:
                    break
                found = failing
    return found


def _smaller(token: int) -> Iterator[int]:
    """0 first, then ever less of a difference."""
    step = token
    while step:
        yield token - step
        step //= 2


def _with_token(found: Drawn, row: int, place: int, token: int) -> Drawn:
    tokens = found.rows[row]
    changed = (*tokens[:place], token, *tokens[place + 1 :])
    return replace(found, rows=(*found.rows[:row], changed, *found.rows[row + 1 :]))
