"""One verdict: what a port put out against a golden, by the rule of `harness.compare.tolerance`."""

from typing import Any

import numpy as np
from msgspec.structs import replace

from harness.compare.metrics import Places, counts, views
from harness.compare.tolerance import NOTHING, Allowed, exceeds, limit, noise_floor
from harness.model import Component, Golden, Mode, Verdict
from harness.report.result import Result, Worst

Array = Any


def judge(
    component: Component,
    golden: Golden,
    mode: Mode,
    port: Array,
    recorded: Array,
    places: Places,
    allowed: Allowed | None = None,
) -> Result:
    """Compare the array `port` with `recorded`; both in the component's axes, real tokens only.

    Another dtype or shape, and NaN or infinity in other places than the golden has them, fail whatever the numbers
    are. Where the golden has no finite number at all, nothing is compared.
    allowed: what passes, where somebody says so; it changes nothing of what is exact
    """
    floor = golden.isolated if mode is Mode.ISOLATED else golden.end_to_end
    assert floor is not None, "composites have no isolated replay"
    if port.dtype.name != golden.dtype:
        reason = f"the port answered in {port.dtype.name}, asked for {golden.dtype}: not compared"
        return failed(component, golden, mode, reason)
    if port.shape != recorded.shape:
        reason = f"shape {port.shape}, where the golden has {recorded.shape}"
        return failed(component, golden, mode, reason)
    valid = np.broadcast_to(places.valid(component.axes), recorded.shape)
    ours, theirs = port.astype(np.float64), recorded.astype(np.float64)
    strange = valid & _unlike(ours, theirs)
    if strange.any():
        return failed(component, golden, mode, _strange(strange, ours, theirs))
    finite = valid & np.isfinite(theirs)
    if not finite.any():
        return unmeasured(component, golden, mode, "the golden has no finite number to compare")
    with np.errstate(invalid="ignore"):
        error = np.where(finite, ours - theirs, 0.0)
    theirs = np.where(finite, theirs, 0.0)
    noise = noise_floor(floor, golden.dtype, component.exact)
    said = None if noise == NOTHING else allowed
    counted = error if said is None else np.where(np.abs(error) <= said.atol, 0.0, error)
    found = views(counted, theirs, component.axes, places, least=noise.whole)
    sizes = counts(recorded.shape, component.axes, places)
    by_rule = limit(floor, golden.dtype, mode, component.exact, sizes)
    most = by_rule if said is None else said.limit(noise)
    differing = int(np.count_nonzero(error))
    forbidden = differing and most == NOTHING
    return replace(
        _bare(component, golden, mode),
        verdict=Verdict.FAIL if exceeds(found, most) else Verdict.PASS,
        error=found,
        floor=noise,
        limit=most,
        worst=_worst(error, ours, recorded),
        reason=f"{differing} of {int(finite.sum())} elements differ, and none may" if forbidden else "",
        tolerance="" if said is None else said.says,
    )


def unmeasured(component: Component, golden: Golden, mode: Mode, reason: str) -> Result:
    """The result of a component that was not compared."""
    return replace(_bare(component, golden, mode), reason=reason)


def failed(component: Component, golden: Golden, mode: Mode, reason: str) -> Result:
    """The result of a component that is wrong before any number is compared."""
    return replace(_bare(component, golden, mode), verdict=Verdict.FAIL, reason=reason)


def _bare(component: Component, golden: Golden, mode: Mode) -> Result:
    return Result(component.name, component.kind, golden.case, golden.dtype, mode, Verdict.UNMEASURED)


def _strange(strange: Array, ours: Array, theirs: Array) -> str:
    place = tuple(int(i) for i in np.argwhere(strange)[0])
    return (
        f"{np.count_nonzero(strange)} elements are NaN or infinite in one of port and golden only, "
        f"first at {list(place)}: port {ours[place]}, golden {theirs[place]}"
    )


def _unlike(a: Array, b: Array) -> Array:
    """Where one is NaN or infinite and the other is not the same."""
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    return ~(np.isfinite(a) & np.isfinite(b)) & ~same


def _worst(error: Array, ours: Array, recorded: Array) -> Worst:
    index = np.unravel_index(int(np.argmax(np.abs(error))), error.shape)
    return Worst([int(i) for i in index], float(ours[index]), float(recorded[index]))
