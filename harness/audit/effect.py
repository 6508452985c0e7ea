"""How much a fault changes, when nothing has caught it. numpy only."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from msgspec.structs import replace

from harness.audit.outcome import Effect
from harness.audit.planted import bare
from harness.compare.files import places
from harness.compare.metrics import counts, views
from harness.compare.tolerance import limit, noise_floor
from harness.model import Golden, Mode
from harness.replay.decode import along_tokens, asked_in_decode, decode
from harness.replay.modes import replays
from harness.replay.port import TRACE_INPUTS, Cached, Isolated, NotOffered, Port
from harness.replay.watch import UNWATCHED, Watch
from harness.report.result import ratio
from harness.report.wording import amount
from harness.store.reader import GoldenFile

Array = Any


@dataclass(frozen=True)
class _Pair:
    """A golden as two ports put it out in a mode."""

    golden: Golden
    mode: Mode
    right: Array
    wrong: Array

    @property
    def same(self) -> bool:
        alike = self.right.shape == self.wrong.shape
        return alike and bool(np.array_equal(self.right, self.wrong, equal_nan=True))


def effect(
    file: GoldenFile,
    goldens: Sequence[Golden],
    without: Port,
    faulty: Port,
    float64: bool,
    whole: bool = True,
    watch: Watch = UNWATCHED,
) -> Effect:
    """The largest difference that a fault makes: to a component by itself, end to end, and in decode.

    without, faulty: the same port without and with the fault. float64: both are the reference in float64, so that
    nothing but the fault is in the difference. whole: both can be run from end to end
    watch: how long they may take for one answer
    Decode takes long, and is looked at only where nothing else shows any difference.
    """
    found = Effect(0.0, 0.0, "", "", True, float64)
    for pair in _isolated(file, goldens, without, faulty, watch):
        found = _larger(found, file, pair)
    if whole:
        for pair in _end_to_end(file, goldens, without, faulty, watch):
            found = _larger(found, file, pair)
    if found.exact:
        for pair in _decoded(file, goldens, without, faulty, watch):
            found = _larger(found, file, pair)
    return replace(found, exact=found.exact and bool(found.modes))


def _larger(found: Effect, file: GoldenFile, pair: _Pair) -> Effect:
    """With one more comparison looked at."""
    modes = list(dict.fromkeys([*found.modes, str(pair.mode)]))
    if pair.same:
        return replace(found, modes=modes)
    over_floor, over_limit = _ratios(file, pair.golden, pair.mode, pair.right, pair.wrong)
    if over_limit < found.over_limit:
        return replace(found, modes=modes, exact=False)
    golden = pair.golden
    return Effect(over_floor, over_limit, golden.component, golden.case, False, found.float64, modes)


def _isolated(
    file: GoldenFile, goldens: Sequence[Golden], without: Port, faulty: Port, watch: Watch
) -> Iterator[_Pair]:
    if not isinstance(without, Isolated) or not isinstance(faulty, Isolated):
        return
    for golden in goldens:
        if golden.isolated is not None:
            name, inputs = golden.component, file.inputs(golden)
            try:
                with watch.over(
                    f"{name} ({golden.case} {golden.dtype} {Mode.ISOLATED}), with a fault or without"
                ):
                    right, wrong = (np.asarray(port.apply(name, inputs)[name]) for port in (without, faulty))
            except NotOffered:
                continue
            yield _Pair(golden, Mode.ISOLATED, right, wrong)


def _end_to_end(
    file: GoldenFile, goldens: Sequence[Golden], without: Port, faulty: Port, watch: Watch
) -> Iterator[_Pair]:
    for case, own in _by_case(goldens).items():
        given = file.case_inputs(case)
        if file.case(case).parts or len(given["kept"]) < len(given["query_index"]):
            continue  # only a part of the tokens is recorded: isolated has told what there is to tell
        inputs = {name: given[name] for name in TRACE_INPUTS}
        with watch.over(f"a whole run ({case} {Mode.END_TO_END}), with a fault or without"):
            traces = [port.trace(inputs, frozenset(own)) for port in (without, faulty)]
        for name, golden in own.items():
            if all(name in trace for trace in traces):
                right, wrong = (np.asarray(trace[name]) for trace in traces)
                yield _Pair(golden, Mode.END_TO_END, right, wrong)


def _decoded(
    file: GoldenFile, goldens: Sequence[Golden], without: Port, faulty: Port, watch: Watch
) -> Iterator[_Pair]:
    without = bare(without)
    if not isinstance(without, Cached) or not isinstance(faulty, Cached):
        return
    along = along_tokens(file)
    long = [golden for golden in goldens if replays(file, golden, Mode.DECODE)]
    for case, own in _by_case(long).items():
        given = file.case_inputs(case)
        inputs = {name: given[name] for name in TRACE_INPUTS}
        asked, read = asked_in_decode(file, own.values()), file.case(case).parts
        with watch.over(f"a whole run ({case} {Mode.DECODE}), with a fault or without"):
            both = [decode(port, inputs, asked, along, read) for port in (without, faulty)]
        for name, golden in own.items():
            component, recorded = file.component(name), file.output(golden)
            if all(decoded.offers(name) for decoded in both):
                right, wrong = (decoded.output(component, recorded) for decoded in both)
                yield _Pair(golden, Mode.DECODE, right, wrong)


def _by_case(goldens: Sequence[Golden]) -> dict[str, dict[str, Golden]]:
    """Case -> component -> golden."""
    found: dict[str, dict[str, Golden]] = {}
    for golden in goldens:
        found.setdefault(golden.case, {})[golden.component] = golden
    return found


def _ratios(file: GoldenFile, golden: Golden, mode: Mode, right: Array, wrong: Array) -> tuple[float, float]:
    """The difference in the worst view, over the noise floor and over what passes."""
    component, where = file.component(golden.component), places(file, golden)
    if right.shape != wrong.shape:
        return np.inf, np.inf
    right, wrong = right.astype(np.float64), wrong.astype(np.float64)
    valid = np.broadcast_to(where.valid(component.axes), right.shape)
    if not np.array_equal(np.isfinite(right)[valid], np.isfinite(wrong)[valid]):
        return np.inf, np.inf
    floor = golden.isolated if mode is Mode.ISOLATED else golden.end_to_end
    assert floor is not None, "composites have no isolated replay"
    noise = noise_floor(floor, golden.dtype, component.exact)
    error = np.where(valid, wrong - right, 0.0)
    found = views(error, right, component.axes, where, least=noise.whole)
    sizes = counts(right.shape, component.axes, where)
    return (
        ratio(found, noise),
        ratio(found, limit(floor, golden.dtype, mode, component.exact, sizes)),
    )


def why(found: Effect) -> str:
    """Why nothing sees a fault with this effect."""
    if not found.modes:
        return "not measured: nothing could be run both with and without the fault"
    if found.exact:
        return "makes no difference with these inputs and weights: every answer is bit by bit the same"
    if not found.over_floor:
        return "cannot be seen with these inputs: it changes nothing but padding"
    if found.over_limit <= 1:
        return f"cannot be seen with these inputs or weights: it {changes(found)}, most of all"
    return f"missed although it could be seen: it {changes(found)}"


def why_answered(found: Effect) -> str:
    """The same of a fault that only facts could show."""
    if found.exact:
        return "makes no difference here: every answer is bit by bit the same"
    return "cannot be seen here: answers differ, and all of them pass"


def changes(found: Effect) -> str:
    """How much, and where, in words."""
    told = f"changes {found.component} ({found.case}) by {amount(found.over_floor)} x noise floor"
    return told if found.over_limit <= 1 else f"{told}, {amount(found.over_limit)} times what passes"
