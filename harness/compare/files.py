"""A golden of one file held against the same one of another file, in units of the noise floor."""

from typing import Any

import numpy as np
from msgspec.structs import replace

from harness.compare.judge import judge
from harness.compare.metrics import Places
from harness.compare.tolerance import greatest, noise_floor
from harness.model import Floor, Golden, Mode, Verdict
from harness.report.result import Result
from harness.store.reader import GoldenFile

Array = Any


def places(file: GoldenFile, golden: Golden) -> Places:
    """Which of the places that a golden holds are those of real tokens."""
    inputs = file.case_inputs(golden.case)
    real = inputs["attention_mask"] != 0
    return Places(queries=real[:, inputs[golden.tokens]], keys=real)


def compare_goldens(old: GoldenFile, golden: Golden, new: GoldenFile, other: Golden) -> Result:
    """Hold `other` of `new` against `golden` of `old`, by the end-to-end floor of `golden`: both were recorded so.

    Two dtypes are held against each other by the wider one of their floors.
    """
    component, before, after = old.component(golden.component), old.output(golden), new.output(other)
    where, dtype = places(old, golden), golden.dtype
    if other.dtype != dtype:
        dtype = f"{dtype}:{other.dtype}"
        golden = _of_two_dtypes(golden, other)
        # every number of another dtype is one of float32
        before, after = (array.astype(np.float32) for array in (before, after))
    result = replace(judge(component, golden, Mode.END_TO_END, after, before, where), dtype=dtype)
    if result.verdict is Verdict.FAIL and result.error is None and before.shape == after.shape:
        return replace(result, reason="NaN or infinite in one of the two only")
    return result


def _of_two_dtypes(golden: Golden, other: Golden) -> Golden:
    """The golden with the floor that holds for both. Nothing is exact: one of the two was rounded more."""
    floors = [noise_floor(each.end_to_end, each.dtype, exact=False) for each in (golden, other)]
    wider = greatest(*floors)
    return replace(golden, dtype="float32", end_to_end=Floor(wider, wider))


def identical(before: Array, after: Array) -> bool:
    """Bit by bit, NaN for NaN."""
    alike = (before.dtype, before.shape) == (after.dtype, after.shape)
    return alike and before.tobytes() == after.tobytes()
