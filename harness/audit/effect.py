"""How much a fault changes, when nothing has caught it. numpy only."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from harness.audit.outcome import Effect
from harness.compare.files import places
from harness.compare.metrics import counts, views
from harness.compare.tolerance import limit, noise_floor
from harness.model import Golden, Mode, Views
from harness.replay.port import Isolated, NotOffered, Port
from harness.report.result import ratio
from harness.store.reader import GoldenFile

Array = Any
_TRACED = ("token_ids", "attention_mask", "positions", "query_index")


def effect(
    file: GoldenFile,
    goldens: Sequence[Golden],
    without: Port,
    faulty: Port,
    float64: bool,
    whole: bool = True,
) -> Effect:
    """The largest difference that a fault makes: to a component by itself, and end to end.

    without, faulty: the same port without and with the fault. float64: both are the reference in float64, so that
    nothing but the fault is in the difference. whole: both can be run from end to end
    """
    largest, exact = Effect(0.0, 0.0, "", "", True, float64), True
    for golden, mode, right, wrong in _answers(file, goldens, without, faulty, whole):
        same = right.shape == wrong.shape and bool(np.array_equal(right, wrong, equal_nan=True))
        exact = exact and same
        if not same:
            over_floor, over_limit = _ratios(file, golden, mode, right, wrong)
            if over_limit >= largest.over_limit:
                largest = Effect(over_floor, over_limit, golden.component, golden.case, False, float64)
    return Effect(largest.over_floor, largest.over_limit, largest.component, largest.case, exact, float64)


def _answers(
    file: GoldenFile, goldens: Sequence[Golden], without: Port, faulty: Port, whole: bool
) -> Iterator[tuple[Golden, Mode, Array, Array]]:
    """Each golden as both put it out, on the golden's inputs and in a whole run."""
    if isinstance(without, Isolated) and isinstance(faulty, Isolated):
        for golden in goldens:
            if golden.isolated is not None:
                name, inputs = golden.component, file.inputs(golden)
                try:
                    right, wrong = (np.asarray(port.apply(name, inputs)[name]) for port in (without, faulty))
                except NotOffered:
                    continue
                yield golden, Mode.ISOLATED, right, wrong
    for case in dict.fromkeys(golden.case for golden in goldens if whole):
        given = file.case_inputs(case)
        if len(given["kept"]) < len(given["query_index"]):
            continue  # only a part of the tokens is recorded: isolated has told what there is to tell
        own = {golden.component: golden for golden in goldens if golden.case == case}
        inputs = {name: given[name] for name in _TRACED}
        traces = [port.trace(inputs, frozenset(own)) for port in (without, faulty)]
        for name, golden in own.items():
            if all(name in trace for trace in traces):
                right, wrong = (np.asarray(trace[name]) for trace in traces)
                yield golden, Mode.END_TO_END, right, wrong


def _ratios(file: GoldenFile, golden: Golden, mode: Mode, right: Array, wrong: Array) -> tuple[float, float]:
    """The difference in the worst view, over the noise floor and over what passes."""
    component, where = file.component(golden.component), places(file, golden.case)
    if right.shape != wrong.shape:
        return np.inf, np.inf
    right, wrong = right.astype(np.float64), wrong.astype(np.float64)
    valid = np.broadcast_to(where.valid(component.axes), right.shape)
    if not np.array_equal(np.isfinite(right)[valid], np.isfinite(wrong)[valid]):
        return np.inf, np.inf
    found: Views = views(np.where(valid, wrong - right, 0.0), right, component.axes, where)
    floor = golden.isolated if mode is Mode.ISOLATED else golden.end_to_end
    assert floor is not None, "composites have no isolated replay"
    sizes = counts(right.shape, component.axes, where)
    return (
        ratio(found, noise_floor(floor, golden.dtype, component.exact)),
        ratio(found, limit(floor, golden.dtype, mode, component.exact, sizes)),
    )
