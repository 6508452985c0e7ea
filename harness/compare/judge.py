"""One verdict: what a port put out against a golden, by the rule of `harness.compare.tolerance`."""

from typing import Any

import numpy as np
from msgspec.structs import replace

from harness.compare.metrics import Apart, Places, apart, counts
from harness.compare.tolerance import NOTHING, Allowed, exceeds, limit, noise_floor
from harness.model import Component, Golden, Mode, Verdict
from harness.report.result import SHAPE, Result, Worst

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
        reason = f"{SHAPE}{port.shape}, where the golden has {recorded.shape}"
        return failed(component, golden, mode, reason)
    noise = noise_floor(floor, golden.dtype, component.exact)
    said = None if noise == NOTHING else allowed
    found = apart(port, recorded, component.axes, places, atol=0.0 if said is None else said.atol)
    if found.strange:
        return failed(component, golden, mode, _strange(found, port, recorded))
    if not found.finite:
        return unmeasured(component, golden, mode, "the golden has no finite number to compare")
    error = found.views(least=noise.whole)
    sizes = counts(recorded.shape, component.axes, places)
    by_rule = limit(floor, golden.dtype, mode, component.exact, sizes)
    most = by_rule if said is None else said.limit(noise)
    forbidden = found.largest > 0 and most == NOTHING
    return replace(
        _bare(component, golden, mode),
        verdict=Verdict.FAIL if exceeds(error, most) else Verdict.PASS,
        error=error,
        floor=noise,
        limit=most,
        worst=Worst(list(found.at), float(port[found.at]), float(recorded[found.at])),
        reason=_forbidden(found, port, recorded, places.valid(component.axes)) if forbidden else "",
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


def _strange(found: Apart, port: Array, recorded: Array) -> str:
    return (
        f"{found.strange} elements are NaN or infinite in one of port and golden only, "
        f"first at {list(found.first)}: port {float(port[found.first])}, golden {float(recorded[found.first])}"
    )


def _forbidden(found: Apart, port: Array, recorded: Array, valid: Array) -> str:
    differing = np.count_nonzero((port != recorded) & np.isfinite(recorded) & valid)
    return f"{differing} of {found.finite} elements differ, and none may"
