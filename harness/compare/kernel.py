"""What is done with each number of a pair, in one pass over both tensors. numpy and numba only."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numba import njit
from numba.extending import overload

from harness.compiled import HOW, compiled

Array = Any

_MAGNITUDE = np.int64(0x7FFF_FFFF_FFFF_FFFF)
"""All bits of a float64 but its sign. Of numbers that are not negative, the order is that of their bits, which a
processor compares in vectors."""

_jitted = njit(**HOW)


def _wide(number):
    """As float64; 16 bits are a bfloat16, the upper half of a float32. Runs where numba was told not to compile."""
    return np.float64(
        (np.uint32(number) << np.uint32(16)).view(np.float32) if number.itemsize == 2 else number
    )


@overload(_wide, inline="always")
def _wide_as(number):
    if number.bitwidth == 16:
        return lambda number: np.float64(np.uint32(np.uint32(number) << np.uint32(16)).view(np.float32))
    return lambda number: np.float64(number)


@_jitted
def _quick(first, reference, rows, keys, share, atol, columns, over_inner, over_middle):
    """As `_add`, of what is finite; else the sums are not. Returns the bits of the largest error, and its row."""
    outer, middle, _ = reference.shape
    left, right = columns
    most, at = np.int64(0), (0, 0)
    for o in range(outer):
        k, errors, powers = keys[o, left:right], over_middle[0, o], over_middle[1, o]
        for m in range(middle):
            if not rows[o, m]:
                continue
            f, r = first[o, m, left:right], reference[o, m, left:right]
            error, power, largest = 0.0, 0.0, np.int64(0)
            for i in range(r.size):
                y = _wide(r[i])
                x = _wide(f[i]) - share * y
                if not k[i]:
                    x = 0.0
                    y = 0.0
                largest = max(largest, np.float64(x).view(np.int64) & _MAGNITUDE)
                x = 0.0 if abs(x) <= atol else x
                error += x * x
                power += y * y
                errors[i] += x * x
                powers[i] += y * y
            over_inner[0, o, m] = error
            over_inner[1, o, m] = power
            if largest > most:
                most, at = largest, (o, m)
    return most, at


@_jitted
def _careful(first, reference, rows, keys, share, atol, columns, over_inner, over_middle):
    """As `_add`, where something is NaN or infinite, or too large to be squared. Returns the bits of the largest error,
    and its row; strange, where and lost as `_add` has them.
    """
    outer, middle, _ = reference.shape
    left, right = columns
    most, at = np.int64(0), (0, 0)
    strange, where, lost = 0, (0, 0, 0), 0
    for o in range(outer):
        for m in range(middle):
            if not rows[o, m]:
                continue
            for i in range(left, right):
                if not keys[o, i]:
                    continue
                one, y = _wide(first[o, m, i]), _wide(reference[o, m, i])
                if not (np.isfinite(one) and np.isfinite(y)):
                    lost += not np.isfinite(y)
                    if not (one == y or (np.isnan(one) and np.isnan(y))):
                        where = where if strange else (o, m, i)
                        strange += 1
                    continue
                x = one - share * y
                largest = np.float64(x).view(np.int64) & _MAGNITUDE
                if largest > most:
                    most, at = largest, (o, m)
                x = 0.0 if abs(x) <= atol else x
                over_inner[0, o, m] += x * x
                over_inner[1, o, m] += y * y
                over_middle[0, o, i - left] += x * x
                over_middle[1, o, i - left] += y * y
    return most, at, strange, where, lost


def _add(first, reference, rows, keys, share, atol, columns, over_inner, over_middle):
    """The sums of squares of some columns of a part (O M N), put into over_inner (2 O M) and over_middle (2 O columns).

    The error is first - share * reference; rows (O M), keys (O N): true for real tokens; atol: errors that are no
    larger count as none. first, reference: float32 or float64, or bfloat16 as uint16. columns: from where to where.
    over_inner, over_middle: zeros before. Elements that are NaN or infinite in either are left out.
    Returns the largest absolute error, whatever counts as none, and where it is first; how many elements are NaN or
    infinite in one and not the same in the other, and where the first is; how many are in the reference.
    """
    most, (o, m) = _quick(first, reference, rows, keys, share, atol, columns, over_inner, over_middle)
    strange, where, lost = 0, (0, 0, 0), 0
    if not np.isfinite(over_inner.sum()):
        over_inner[:] = 0.0
        over_middle[:] = 0.0
        most, (o, m), strange, where, lost = _careful(
            first, reference, rows, keys, share, atol, columns, over_inner, over_middle
        )
    at = (0, 0, 0)
    for i in range(*columns):
        one, y = _wide(first[o, m, i]), _wide(reference[o, m, i])
        x = np.float64(one - share * y)
        if (
            most
            and keys[o, i]
            and np.isfinite(one)
            and np.isfinite(y)
            and x.view(np.int64) & _MAGNITUDE == most
        ):
            at = (o, m, i)
            break
    return np.int64(most).view(np.float64), at, strange, where, lost


def add_for(dtype: np.dtype) -> Callable[..., Any]:
    """What adds up pairs of a dtype, as `_add` says."""
    return compiled(__file__, f"compare-{dtype.name}", partial(_made, dtype))


def _made(dtype: np.dtype, kept: bool) -> Callable[..., Any]:
    """Compiled, or read, as it is called with arrays as all are that are compared."""
    add: Callable[..., Any] = njit(_add, cache=kept, **HOW)
    number, real, sums = np.zeros((1, 1, 1), dtype), np.ones((1, 1), bool), np.zeros((2, 1, 1))
    for array in (number, real):
        array.flags.writeable = False
    add(number, number, real, real, 1.0, 0.0, (0, 1), sums, sums.copy())
    return add
