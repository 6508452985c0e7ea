"""What floors do with each number of a tile while it is in a register: loops that numba compiles.

numpy only, until `loops` is asked for. They run on one thread: others would wait for those of torch, which keep a
processor busy until its next operation. Arrays lie in one piece each; O M I are the axes of `harness.compare.layout`.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Array = Any

FEW = 16 * 1024
"""Elements up to which torch and numpy do it: numba takes a second of each process, to be there."""

EXPONENT = 0x7FF0_0000_0000_0000
"""The bits of a float64 that say which power of two it is at or above."""
_LOW_BITS, _LOW_BYTE, _NIBBLE, _BYTE = np.uint32(0x0F0F), np.uint32(0xFF), np.uint32(4), np.uint32(8)
_BLOCK = 2048


class Loops(NamedTuple):
    """Compiled: `_disturb`, `_sum_up`, `_add_rounding`."""

    disturb: Callable[..., None]
    sum_up: Callable[..., None]
    add_rounding: Callable[..., None]


def loops() -> Loops:
    """The first time, it takes seconds."""
    from harness.compiled import compiled

    return compiled(__file__, "floors", _made)


def _made(kept: bool) -> Loops:
    from numba import njit

    from harness.compiled import HOW

    made = Loops(*(njit(loop, cache=kept, **HOW) for loop in (_disturb, _sum_up, _add_rounding)))
    wide, narrow, real = np.ones((1, 1, 1)), np.ones((1, 1, 1), np.float32), np.ones((1, 1), bool)
    sums = np.zeros((4, 1, 1))
    made.disturb(narrow[0], wide[0, 0], np.ones((1, 1), np.uint16), 30, 1.0)
    made.sum_up(wide, narrow, narrow[None], wide[None], real, real, sums, sums.copy())
    made.add_rounding(wide[0, 0], wide[0, 0], 1.0)
    return made


def _disturb(moved, variance, bits, middle, scale):
    """Add to numbers of moved (N E), float32, what rounding may do to them: of this variance (E), float64.

    bits: (N E), uint16, drawn at random. What is added is the sum of their four parts of four bits, less `middle`,
    times the root of the variance, times `scale`
    """
    sigma = np.empty(_BLOCK, np.float32)
    for start in range(0, variance.size, _BLOCK):
        stop = min(start + _BLOCK, variance.size)
        squares = variance[start:stop]
        for i in range(squares.size):
            sigma[i] = np.float32(math.sqrt(squares[i]) * scale)
        for n in range(moved.shape[0]):
            numbers, drawn = moved[n, start:stop], bits[n, start:stop]
            for i in range(numbers.size):
                x = np.uint32(drawn[i])
                x = (x & _LOW_BITS) + ((x >> _NIBBLE) & _LOW_BITS)
                x = (x & _LOW_BYTE) + (x >> _BYTE)
                numbers[i] += sigma[i] * np.float32(np.int32(x) - middle)


def _sum_up(right, seen, moved, variance, rows, keys, over_inner, over_middle):
    """Squares of right, (O M I), float64; of seen - right, float32; of each of moved, (N O M I), float32; and each of
    variance, (K O M I), float64, as it is: summed over I into over_inner, (2 + N + K O M), and over M into over_middle,
    (2 + N + K O I).

    rows (O M), keys (O I): true for real tokens. over_inner, over_middle: zeros before
    """
    outer, middle, inner = right.shape
    for o in range(outer):
        real = keys[o]
        for m in range(middle):
            if not rows[o, m]:
                continue
            y, x = right[o, m], seen[o, m]
            powers, errors = over_middle[0, o], over_middle[1, o]
            power, error = 0.0, 0.0
            for i in range(inner):
                square = y[i] * y[i] if real[i] else 0.0
                apart = x[i] - y[i] if real[i] else 0.0
                power += square
                error += apart * apart
                powers[i] += square
                errors[i] += apart * apart
            over_inner[0, o, m], over_inner[1, o, m] = power, error
            for n in range(moved.shape[0]):
                distance, errors, error = moved[n, o, m], over_middle[2 + n, o], 0.0
                for i in range(inner):
                    square = np.float64(distance[i]) * np.float64(distance[i]) if real[i] else 0.0
                    error += square
                    errors[i] += square
                over_inner[2 + n, o, m] = error
            for k in range(variance.shape[0]):
                place = 2 + moved.shape[0] + k
                squares, errors, error = variance[k, o, m], over_middle[place, o], 0.0
                for i in range(inner):
                    square = squares[i] if real[i] else 0.0
                    error += square
                    errors[i] += square
                over_inner[place, o, m] = error


def _add_rounding(total, values, third):
    """Add to total (E) the squares of `values` (E) without their signs and mantissas, times `third`; float64."""
    for i in range(total.size):
        binade = np.int64(np.float64(values[i]).view(np.int64) & EXPONENT).view(np.float64)
        total[i] += binade * binade * third
