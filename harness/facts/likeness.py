"""What a wrong parameter is instead: the reference's in another order, in part, from elsewhere, in other precision.

Parameters are not computed, so that every comparison is bit by bit, but where a mistake computes something of them.
One parameter is looked at at a time, in blocks of rows where numbers are widened. numpy, and heavy.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from harness.facts.compared import Compared, cast, numbers
from harness.facts.family import PASSED, Found, wrong
from harness.facts.fingerprint import bits, blocks, same
from harness.facts.layer import of_same_layer
from harness.facts.mistake import Mistake
from harness.facts.orders import reordered
from harness.facts.partly import Differing
from harness.kinds.precision import quantised, rounded, truncated
from harness.model import UNIT_ROUNDOFF, Verdict

Array = Any
Change = Callable[[Array], Array]
Look = Callable[[Compared], Mistake | None]

_LEAST = 1e-37
"""Numbers below this are not normal in float32, and have no relative precision."""


def compare(c: Compared) -> Found:
    """What is wrong with a parameter whose fingerprint is not the reference's. Small numbers that are zero may pass."""
    if c.ours.shape != c.theirs.shape:
        reason = f"has shape {list(c.ours.shape)}, where the reference has {list(c.theirs.shape)}"
        return _found(reason, _by_shape(c))
    differing = Differing.of(c)
    if differing.flushed:
        reason = f"{numbers(differing.count)} below the smallest normal number of {c.dtype} are zero"
        return Found(Verdict.PASS, reason)
    if not differing.count:
        return PASSED
    looks: tuple[Look, ...] = (
        _constant,
        _transposed,
        reordered,
        _coarser,
        _computed,
        _folded,
        differing.part,
    )
    with np.errstate(all="ignore"):
        mistake = next((found for found in (look(c) for look in looks) if found), None)
    return _found(differing.told(c), mistake)


def _found(reason: str, mistake: Mistake | None) -> Found:
    return wrong(reason) if mistake is None else wrong(reason, *mistake.names, text=mistake.text)


def _by_shape(c: Compared) -> Mistake | None:
    ours, theirs = c.ours, c.theirs
    if same(ours, theirs.T):
        return Mistake(("weight_not_transposed",), "weight transposed (W.T instead of W)")
    if ours.size == theirs.size:
        if same(ours.reshape(-1), theirs.reshape(-1)):
            return Mistake(("reshaped",), "the right numbers in the right order, in another shape")
        if same(ours.reshape(-1), theirs.T.reshape(-1)):
            return Mistake(("weight_not_transposed",), "weight transposed, and put into another shape")
        return None
    if ours.ndim != theirs.ndim or ours.shape[1:] != theirs.shape[1:]:
        return None
    least = min(len(ours), len(theirs))
    if not same(ours[:least], theirs[:least]):
        return None
    if len(ours) > least:
        return Mistake(("rows_added",), f"{len(ours) - least} rows more behind the right {least}")
    return Mistake(("rows_missing",), f"only the first {least} of {len(theirs)} rows")


def _constant(c: Compared) -> Mistake | None:
    """One number throughout: what parameters are initialised with."""
    value = c.ours.reshape(-1)[0]
    if not all((block == value).all() for block in blocks(c.ours)):
        return None
    if value == 0:
        return Mistake((_zero_name(c),), "zero: never loaded")
    name = "weight_missing" if value == 1 and c.is_vector and not c.is_bias else "never_loaded"
    return Mistake((name,), f"{float(value):g} throughout: never loaded")


def _zero_name(c: Compared) -> str:
    """A product whose bias is zero, too, has lost both."""
    if c.is_bias:
        return "bias_missing"
    if c.is_vector:
        return "parameters_zero"
    bias = c.port.get(f"{c.name.removesuffix('.weight')}.bias")
    return "weight_zero" if bias is None or np.asarray(bias).any() else "parameters_zero"


def _transposed(c: Compared) -> Mistake | None:
    if c.theirs.ndim != 2:
        return None
    if same(c.ours, c.theirs.T):
        text = "weight not transposed (W.T instead of W; silent in shape checks, since it is square)"
        return Mistake(("weight_not_transposed",), text)
    for one, other in ((c.ours, c.theirs), (c.theirs, c.ours)):
        if same(one.reshape(-1), other.T.reshape(-1)):
            return Mistake(("reshaped_not_transposed",), "put into its shape without transposing")
    return None


def _quantised(levels: int, dtype: str, after: Change, x: Array) -> Array:
    return after(quantised(x, levels, dtype))


def _cut_to_float16(x: Array) -> Array:
    """To nearest, and one step back towards zero where that went too far."""
    wide = x.astype(np.float32)
    nearest = wide.astype(np.float16)
    too_far = np.abs(nearest.astype(np.float32)) > np.abs(wide)
    return (nearest.view(np.uint16) - too_far.astype(np.uint16)).view(np.float16)


_COARSER: tuple[tuple[str, str, Change], ...] = (
    ("weight_rounded_bfloat16", "rounded to bfloat16 first", partial(rounded, precision="bfloat16")),
    ("weight_rounded_float16", "rounded to float16 first", partial(rounded, precision="float16")),
    ("weight_truncated_bfloat16", "cut to bfloat16 instead of rounded", partial(truncated, dropped=16)),
    ("weight_truncated_float16", "cut to float16 instead of rounded", _cut_to_float16),
    ("quantised_fp8", "rounded to 8-bit floats (e4m3)", partial(rounded, precision="fp8")),
)
_QUANTISED: tuple[tuple[str, str, Change], ...] = tuple(
    (
        f"quantised_int{count}",
        f"quantised to {count} bits, by output{more}",
        partial(_quantised, levels, dtype, after),
    )
    for count, levels in ((8, 127), (4, 7))
    for dtype in ("float64", "float32")
    for after, more in (
        (np.asarray, ""),
        (partial(rounded, precision="bfloat16"), ", and stored in bfloat16"),
    )
)


def _coarser(c: Compared) -> Mistake | None:
    """Numbers that went through a lower precision."""
    for name, text, change in (*_COARSER, *(() if c.is_vector else _QUANTISED)):
        if _is(c, change):
            return Mistake((name,), text)
    return None


def _is(c: Compared, change: Change) -> bool:
    """Whether the port's parameter is `change` of what the checkpoint stores, which is given by whole rows.

    Of a thousand numbers one may be another: what is halfway between two steps falls to either side.
    """
    for ours, theirs, stored in c.blocks():
        changed = cast(change(stored), c.dtype)
        left = np.count_nonzero(bits(ours) != bits(changed))
        if left > ours.size // 1000 or (left and 2 * left > np.count_nonzero(bits(ours) != bits(theirs))):
            return False
    return True


def _computed(c: Compared) -> Mistake | None:
    """The right numbers times another, more or less one, or squared."""
    factor = _factor(c)
    candidates: list[tuple[str, str, Change]] = []
    if factor is not None:
        candidates.append((*_of_factor(c, factor), lambda x: x * factor))
    if c.is_vector and not c.is_bias:
        candidates += [
            ("weight_plus_one", "1 + weight (as Gemma multiplies by) instead of weight", lambda x: x + 1),
            ("weight_minus_one", "weight - 1 (as Gemma stores it) instead of weight", lambda x: x - 1),
            ("weight_twice", "the square of the weight", lambda x: x * x),
        ]
    for name, text, change in candidates:
        if _is_about(c, change):
            return Mistake((name,), text)
    return None


def _roundoff(c: Compared) -> float:
    """How far off numbers are, relatively, that are computed of stored ones and stored, or kept by the port, again."""
    stored, kept = (UNIT_ROUNDOFF.get(name, 0.0) for name in (c.stored.dtype.name, c.dtype))
    return 1.1 * stored if stored >= kept else 2.2 * kept


def _factor(c: Compared) -> float | None:
    """What the right numbers are multiplied by, if by anything."""
    product = power = 0.0
    for ours, _, stored in c.blocks():
        wide = stored.astype(np.float64)
        product += float(np.vdot(wide, ours.astype(np.float64)))
        power += float(np.vdot(wide, wide))
    factor = product / power if power else 0.0
    return factor if np.isfinite(factor) and factor and abs(factor - 1) > _roundoff(c) else None


def _of_factor(c: Compared, factor: float) -> tuple[str, str]:
    def is_about(value: float) -> bool:
        return abs(factor / value - 1) < _roundoff(c)

    if c.is_bias and is_about(2):
        return "bias_twice", "twice the right bias"
    if c.is_bias and is_about(-1):
        return "bias_negated", "the right bias with the other sign"
    if c.head_dim and "q_proj" in c.name and is_about(c.head_dim**-0.5):
        return "scale_folded", "divided by sqrt(head size), which belongs to the scores"
    if "embed" in c.name and is_about(c.theirs.shape[-1] ** 0.5):
        return "scaled_root_hidden", "multiplied by sqrt(hidden size)"
    return "scaled", f"the right numbers times {factor:.6g}"


def _is_about(c: Compared, change: Change) -> bool:
    """Whether it is `change` of the right numbers, computed in float64 and rounded."""
    roundoff = _roundoff(c)
    for ours, _, stored in c.blocks():
        wide = stored.astype(np.float64)
        expected = change(wide)
        allowed = roundoff * np.maximum(np.abs(expected), np.abs(wide)) + _LEAST
        if not (np.abs(ours.astype(np.float64) - expected) <= allowed).all():
            return False
    return True


def _folded(c: Compared) -> Mistake | None:
    """A norm's weight multiplied into the product that comes after it."""
    if c.theirs.ndim != 2:
        return None
    for name in c.weights:
        vector = c.weights[name]
        if vector.ndim != 1 or len(vector) != c.theirs.shape[1] or not of_same_layer(name, c.name):
            continue
        wide = vector.astype(np.float64)
        if _is_about(c, partial(np.multiply, wide)):
            return Mistake(("norm_folded",), f"multiplied by {name}, which belongs to the norm")
    return None
