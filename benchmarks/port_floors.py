"""May a port's recording take over the noise floors of the reference's?

    goldens record --from-port --like goldens/qwen2-tiny.h5 -o /tmp/port.h5 --checkpoint goldens/checkpoints/qwen2-tiny
    python benchmarks/port_floors.py goldens/qwen2-tiny.h5 /tmp/port.h5

Evaluates every step of the port's recording in float64, isolated on what the port took in, and end to end from the
token ids. For each dtype and mode it prints, over all goldens and views, the least, median and greatest of
  modelled: the modelled floor that was taken over, over that of the port's own numbers (isolated only: end to end it
      does not hang on who is recorded)
  floor: the noise floor that was taken over, over that of the port's own numbers
  error: the port's error against float64, over the floor that was taken over
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from harness.audit.reference import Reference
from harness.compare.files import places
from harness.compare.metrics import views
from harness.compare.tolerance import noise_floor
from harness.kinds.numpy_arrays import NumpyArrays
from harness.kinds.step import Evaluation
from harness.kinds.table import STEPS
from harness.model import UNIT_ROUNDOFF, Floor, Golden, Views
from harness.replay.port import TRACE_INPUTS
from harness.replay.session import checkpoint_folder
from harness.store.reader import GoldenFile
from harness.weights import Weights

FLOAT64 = NumpyArrays(np.float64)
Found = dict[tuple[str, str, str], list[float]]


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("reference", type=Path)
    options.add_argument("port", type=Path)
    asked = options.parse_args()
    theirs, ours = GoldenFile.open(asked.reference), GoldenFile.open(asked.port)
    framed = {(golden.component, golden.case, golden.dtype): golden for golden in theirs.contents.goldens}
    weights = Weights(checkpoint_folder(ours, None))
    found: Found = defaultdict(list)
    chains: dict[str, dict[str, np.ndarray]] = {}
    for golden in ours.select():
        frame = framed[golden.component, golden.case, golden.dtype]
        if not ours.component(golden.component).exact and golden.isolated is not None:
            isolated(ours, golden, frame, weights, found)
        if not ours.case(golden.case).parts:
            end_to_end(ours, golden, frame, weights, chains, found)
    for (dtype, mode, what), ratios in found.items():
        told = f"{min(ratios):.2f} {np.median(ratios):.2f} {max(ratios):.2f}"
        print(f"{dtype:9} {mode:11} {what:9} {len(ratios):6}   {told}")


def isolated(file: GoldenFile, golden: Golden, frame: Golden, weights: Weights, found: Found) -> None:
    component = file.component(golden.component)
    step = STEPS[component.step or ""]
    parameters = {role: wide(weights[name]) for role, name in component.parameters.items()}
    inputs = {argument: wide(value) for argument, value in file.inputs(golden).items()}
    evaluation = Evaluation(FLOAT64, inputs, parameters, component.settings)
    right = step.evaluate(evaluation)
    assert step.variance is not None
    assert frame.isolated is not None
    sigma = np.sqrt(step.variance(evaluation, right, UNIT_ROUNDOFF[golden.dtype]))
    own = Floor(
        seen(file, golden, right), views(sigma + 0 * right, right, component.axes, places(file, golden))
    )
    key = (golden.dtype, "isolated")
    found[*key, "modelled"] += ratios(frame.isolated.modelled, own.modelled)
    compare(found, key, golden, frame.isolated, own)


def end_to_end(
    file: GoldenFile,
    golden: Golden,
    frame: Golden,
    weights: Weights,
    chains: dict[str, dict[str, np.ndarray]],
    found: Found,
) -> None:
    if golden.case not in chains:
        given = file.case_inputs(golden.case)
        components = [component for component in file.contents.components if not component.cached]
        names = [component.name for component in components]
        chain = Reference(components, weights).trace({name: given[name] for name in TRACE_INPUTS}, names)
        chains.clear()
        chains[golden.case] = chain
    measured = seen(file, golden, chains[golden.case][golden.component])
    own = Floor(measured, frame.end_to_end.modelled)
    compare(found, (golden.dtype, "end-to-end"), golden, frame.end_to_end, own)


def compare(found: Found, key: tuple[str, str], golden: Golden, taken: Floor, own: Floor) -> None:
    floor = noise_floor(taken, golden.dtype, exact=False)
    found[*key, "floor"] += ratios(floor, noise_floor(own, golden.dtype, exact=False))
    found[*key, "error"] += ratios(own.measured, floor)


def seen(file: GoldenFile, golden: Golden, right: np.ndarray) -> Views:
    error = file.output(golden).astype(np.float64) - right
    return views(error, right, file.component(golden.component).axes, places(file, golden))


def ratios(one: Views, other: Views) -> list[float]:
    return list(_ratios(one, other))


def _ratios(one: Views, other: Views) -> Iterator[float]:
    for view in Views.__struct_fields__:
        if getattr(other, view):
            yield getattr(one, view) / getattr(other, view)


def wide(value: np.ndarray) -> np.ndarray:
    return value if np.issubdtype(value.dtype, np.integer) else value.astype(np.float64)


if __name__ == "__main__":
    main()
