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
from dataclasses import dataclass, replace
from typing import Any, Self

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

    def with_inputs(self, **changed: Array) -> Self:
        return replace(self, inputs={**self.inputs, **changed})

    def with_parameters(self, **changed: Array) -> Self:
        return replace(self, parameters={**self.parameters, **changed})

    def without_parameter(self, role: str) -> Self:
        return replace(self, parameters={r: value for r, value in self.parameters.items() if r != role})

    def with_settings(self, **changed: Any) -> Self:
        return replace(self, settings={**self.settings, **changed})


Evaluate = Callable[[Evaluation], Array]
Variance = Callable[[Evaluation, Array, float], Array]


@dataclass(frozen=True)
class Hypothesis:
    """A mistake that a port may have made in a step: what it did instead, as another evaluation of the step.

    name: the mistake, alike in all kinds where it is the same one
    says: the mistake in words, behind "explained by:"
    change: what the step was given instead; None if the mistake cannot be made with this evaluation. It is given arrays
        as they are stored, in full; what comes of it is then cut to a sample and widened
    evaluate: what was computed instead, if it is not the step with something changed
    variance: rounding's part in that; by default the step's own
    whole: every token is needed at once, so that no sample of them can be looked at first

    `settings` hold, beside the step's own, the facts of the model that `harness.diagnose` knows: `head_dim`, `groups`,
    `hidden_size`, `theta`, `config_window`.
    """

    name: str
    says: str
    change: Callable[[Evaluation], Evaluation | None] | None = None
    evaluate: Evaluate | None = None
    variance: Variance | None = None
    whole: bool = False


@dataclass(frozen=True)
class CastOrder:
    """Another order of roundings for the same step: right in exact arithmetic, and inside the noise floor.

    Only the share of bit-identical elements tells it from the reference's. `evaluate` is run in the model's dtype.
    """

    name: str
    says: str
    evaluate: Evaluate


@dataclass(frozen=True)
class Step:
    """A kind of step.

    arguments: name -> axes, in the letters of `harness.model`
    output: axes
    evaluate: the step in the dtype of its namespace
    variance: (evaluation in float64, its output, unit roundoff of the model's dtype) -> variance of every element;
        None when nothing is rounded
    hypotheses: the mistakes that ports make in it
    cast_orders: the other orders of roundings that ports have
    by_output: parameters whose first axis is the output's last, so that a part of the outputs can be evaluated alone
    opaque: it is not known what is computed, so that nothing can be evaluated but by the reference itself
    """

    name: str
    arguments: Mapping[str, str]
    output: str
    evaluate: Evaluate
    variance: Variance | None = None
    hypotheses: tuple[Hypothesis, ...] = ()
    cast_orders: tuple[CastOrder, ...] = ()
    by_output: tuple[str, ...] = ()
    opaque: bool = False

    @property
    def exact(self) -> bool:
        return self.variance is None


def rounding_up_to_one(xp: Any, u: float, value: Array) -> Array:
    """As `xp.rounding`, of a value between -1 and 1: since 1 is a number of every dtype, none is moved past it.

    Cosines of small angles and the one probability of a sharp row are nearly 1, and nearly exact.
    """
    spread, gap = xp.rounding(u, value), (1 - abs(value)) ** 2
    return xp.where(gap < spread, gap, spread)


def summation(terms: Any, total: Array, squares: Array) -> Array:
    """The variance of summing `terms` products in float32 in any order: P = `total`, S^2 = `squares`."""
    size = U32 * U32 * terms
    return total * total * (size / 9) + squares * (size / 18)
