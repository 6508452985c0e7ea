"""What a kind of step is: its named inputs, its evaluation, and what rounding can do to it.

A step is written once, over the operations of `NumpyArrays` or `TorchArrays`. Run in the model's dtype it is
bit-equal to the reference in eager mode; run in float64 it is what the reference rounds.

A rounding model gives, element by element, the variance that rounding can cause in *any* honest order of
evaluation. A rounding to a dtype of unit roundoff u has an error spread evenly over +-u 2^e where 2^e <= |x| < 2^(e+1),
so a variance of u^2 4^e / 3.
Summing K terms p in a random order in float32 has the variance u32^2 K (P^2 / 9 + S^2 / 18), with P = sum p and
S^2 = sum p^2: the expected square of the partial sums of a random permutation (docs/numerics.md).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.model import UNIT_ROUNDOFF

Array = Any
Arrays = Mapping[str, Array]
Settings = Mapping[str, Any]

U32 = UNIT_ROUNDOFF["float32"]


@dataclass(frozen=True)
class Evaluation:
    """One component's step on one set of inputs, whatever the array library.

    xp: NumpyArrays or TorchArrays
    inputs: by the names of the step's arguments
    parameters: by role, in reference layout; a role that the component lacks (`bias`) is absent
    settings: numbers from the configuration
    """

    xp: Any
    inputs: Arrays
    parameters: Arrays
    settings: Settings


@dataclass(frozen=True)
class Step:
    """A kind of step.

    arguments: name -> axes, in the letters of `harness.model`
    output: axes
    evaluate: the step in the dtype of its namespace
    variance: (evaluation in float64, its output, unit roundoff of the model's dtype) -> variance of every element;
        None when nothing is rounded
    """

    name: str
    arguments: Mapping[str, str]
    output: str
    evaluate: Callable[[Evaluation], Array]
    variance: Callable[[Evaluation, Array, float], Array] | None = None

    @property
    def exact(self) -> bool:
        return self.variance is None


def rounding(xp: Any, u: float, *values: Array) -> Array:
    """The variance of rounding each of `values` once to unit roundoff u."""
    total = xp.binade(values[0]) ** 2
    for value in values[1:]:
        total = total + xp.binade(value) ** 2
    return total * (u * u / 3)


def rounding_up_to_one(xp: Any, u: float, value: Array) -> Array:
    """As `rounding`, of a value between -1 and 1: since 1 is a number of every dtype, none is moved past it.

    Cosines of small angles and the one probability of a sharp row are nearly 1, and nearly exact.
    """
    spread, gap = rounding(xp, u, value), (1 - abs(value)) ** 2
    return xp.where(gap < spread, gap, spread)


def summation(terms: Any, total: Array, squares: Array) -> Array:
    """The variance of summing `terms` products in float32 in any order: P = `total`, S^2 = `squares`."""
    return (total * total / 9 + squares / 18) * (U32 * U32 * terms)
