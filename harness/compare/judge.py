"""One verdict: what a port put out against a golden, by the rule of `harness.compare.tolerance`."""

from typing import Any

import numpy as np
from msgspec.structs import replace

from harness.compare.metrics import Places, views
from harness.compare.tolerance import NOTHING, exceeds, limit, noise_floor
from harness.model import Component, Golden, Mode, Verdict, Views
from harness.report.result import Result, Worst

Array = Any


def judge(
    component: Component, golden: Golden, mode: Mode, port: Array, recorded: Array, places: Places
) -> Result:
    """Compare the array `port` with `recorded`; both in the component's axes, real tokens only.

    A port that answers in another dtype is unmeasured; another shape, and NaN or infinity in other places than the
    golden has them, fail whatever the rest of the numbers are.
    """
    floor = golden.isolated if mode is Mode.ISOLATED else golden.end_to_end
    assert floor is not None, "composites have no isolated replay"
    told = _Result(component, golden, mode)
    if port.dtype.name != golden.dtype:
        return told.unmeasured(f"the port answered in {port.dtype.name}, asked for {golden.dtype}")
    if port.shape != recorded.shape:
        return told.failed(f"shape {port.shape}, where the golden has {recorded.shape}")
    valid = np.broadcast_to(places.valid(component.axes), recorded.shape)
    ours, theirs = port.astype(np.float64), recorded.astype(np.float64)
    strange = valid & _unlike(ours, theirs)
    if strange.any():
        place = tuple(int(i) for i in np.argwhere(strange)[0])
        return told.failed(
            f"{np.count_nonzero(strange)} elements are NaN or infinite in one of port and golden only, "
            f"first at {list(place)}: port {ours[place]}, golden {theirs[place]}"
        )
    with np.errstate(invalid="ignore"):
        error = np.where(valid & np.isfinite(theirs), ours - theirs, 0.0)
    theirs = np.where(np.isfinite(theirs), theirs, 0.0)
    found = views(error, theirs, component.axes, places)
    allowed = limit(floor, golden.dtype, mode, component.exact)
    rounding = noise_floor(floor, golden.dtype, component.exact)
    differing = int(np.count_nonzero(error))
    return told.judged(
        Verdict.FAIL if exceeds(found, allowed) else Verdict.PASS,
        found,
        rounding,
        allowed,
        _worst(error, ours, recorded),
        f"{differing} of {int(valid.sum())} elements differ, and none may"
        if differing and allowed == NOTHING
        else "",
    )


def _unlike(a: Array, b: Array) -> Array:
    """Where one is NaN or infinite and the other is not the same."""
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    return ~(np.isfinite(a) & np.isfinite(b)) & ~same


def _worst(error: Array, ours: Array, recorded: Array) -> Worst:
    index = np.unravel_index(int(np.argmax(np.abs(error))), error.shape)
    return Worst([int(i) for i in index], float(ours[index]), float(recorded[index]))


class _Result:
    """Fills in what every result of one golden in one mode says alike."""

    def __init__(self, component: Component, golden: Golden, mode: Mode) -> None:
        self._bare = Result(
            component=component.name,
            kind=component.kind,
            case=golden.case,
            dtype=golden.dtype,
            mode=mode,
            verdict=Verdict.UNMEASURED,
        )

    def unmeasured(self, reason: str) -> Result:
        return replace(self._bare, reason=reason)

    def failed(self, reason: str) -> Result:
        return replace(self._bare, verdict=Verdict.FAIL, reason=reason)

    def judged(
        self, verdict: Verdict, error: Views, floor: Views, limit: Views, worst: Worst, reason: str
    ) -> Result:
        return replace(
            self._bare, verdict=verdict, error=error, floor=floor, limit=limit, worst=worst, reason=reason
        )


def unmeasured(component: Component, golden: Golden, mode: Mode, reason: str) -> Result:
    """The result of a component that was not compared."""
    return _Result(component, golden, mode).unmeasured(reason)
