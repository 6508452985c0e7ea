"""Record a suite: run the reference on every case in every dtype, and write goldens with their floors."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import ml_dtypes
import numpy as np
import torch
from torch import Tensor

from harness.compare.metrics import Places
from harness.inputs import CaseInputs
from harness.kinds.table import STEPS
from harness.model import Case, Component, Contents, Golden
from harness.record import reference
from harness.record.capture import Captured, capture
from harness.record.discover import Decoder, discover, find_decoder
from harness.record.floors import Floors, Recorded, floors
from harness.record.keep import Keep, select_rows
from harness.store.writer import GoldenWriter


class Progress(Protocol):
    """What is told while recording: how many steps there are, and each one as it is done."""

    def start(self, total: int) -> None: ...

    def step(self, done: str) -> None: ...


class Silent:
    """Progress that is not told."""

    def start(self, total: int) -> None:
        pass

    def step(self, done: str) -> None:
        pass


@dataclass(frozen=True)
class Request:
    """What to record.

    checkpoint: as the golden file names it; origin: `folder`, as seen from the golden file, or `hub id`
    folder: where it is on this machine
    """

    checkpoint: str
    origin: str
    folder: Path
    config: dict[str, Any]
    cases: tuple[CaseInputs, ...]
    dtypes: tuple[str, ...]
    keep: Keep


def record(request: Request, output: Path, progress: Progress) -> None:
    """Write the golden file `output`. It appears under its name only when it is complete."""
    with GoldenWriter(output) as writer:
        cases = [_write_case(writer, case, request.keep) for case in request.cases]
        goldens: list[Golden] = []
        for dtype in request.dtypes:
            model = reference.load(request.folder, dtype)
            decoder = find_decoder(model)
            components = discover(decoder)
            kept = request.keep.chosen(components)
            if not goldens:
                progress.start(len(request.dtypes) * (len(request.cases) + len(components)))
                provenance = {
                    "kept": f"{len(kept)} of {len(components)} components",
                    "keep": str(request.keep),
                }
                provenance |= reference.provenance(request.checkpoint, request.origin, request.folder, model)
            recordings = []
            for inputs, case in zip(request.cases, cases, strict=True):
                recordings.append(
                    _Recording(
                        writer, dtype, case, inputs, _capture(decoder, components, inputs), request.keep
                    )
                )
                progress.step(f"{dtype} {case.name}")
            for component, found in floors(model, components, [recording.told for recording in recordings]):
                if component in kept:
                    goldens += [r.write(component, floor) for r, floor in zip(recordings, found, strict=True)]
                progress.step(f"{dtype} {component.name}")
            del model, decoder, recordings  # the next dtype's model need not fit in memory beside this one
        writer.finish(
            Contents(
                provenance=provenance,
                config=request.config,
                parameters=reference.fingerprints(request.folder),
                components=kept,
                cases=cases,
                goldens=goldens,
            )
        )


def _capture(decoder: Decoder, components: list[Component], inputs: CaseInputs) -> Captured:
    """Run the reference on a case."""
    case = {
        "case.token_ids": torch.from_numpy(inputs.token_ids).long(),
        "case.attention_mask": torch.from_numpy(inputs.attention_mask).long(),
        "case.positions": torch.from_numpy(inputs.positions).long(),
        "case.query_index": torch.arange(inputs.token_ids.shape[1]),
    }
    return capture(decoder, components, case)


def _write_case(writer: GoldenWriter, case: CaseInputs, keep: Keep) -> Case:
    """A case's own inputs, whole, and which token positions (`kept`) are recorded of it."""
    length = case.token_ids.shape[1]
    arrays = {
        "token_ids": case.token_ids,
        "attention_mask": case.attention_mask,
        "positions": case.positions,
        "query_index": np.arange(length),
        "kept": np.array(keep.rows(length)),
    }
    rows = {
        name: writer.tensor(f"cases/{case.name}/{name}", array.astype(np.int32))
        for name, array in arrays.items()
    }
    return Case(case.name, case.origin, case.detail, rows)


class _Recording:
    """One case in one dtype: what the reference put out, and where it was written."""

    def __init__(
        self, writer: GoldenWriter, dtype: str, case: Case, inputs: CaseInputs, seen: Captured, keep: Keep
    ) -> None:
        self._writer, self._dtype, self._case, self._seen = writer, dtype, case, seen
        self._kept = keep.rows(inputs.token_ids.shape[1])
        real = inputs.attention_mask != 0
        self.told = Recorded(
            seen, case.name, dtype, self._select, Places(queries=real[:, self._kept], keys=real)
        )
        # (source, whether every token position of it is there) -> row of the tensor table
        self._written: dict[tuple[str, bool], int] = {
            (f"case.{name}", True): row for name, row in case.inputs.items() if name != "kept"
        }

    def write(self, component: Component, floor: Floors) -> Golden:
        """Write a component's output, and what it takes in unless that is written already."""
        source = component.composite_of or component.name
        return Golden(
            component=component.name,
            case=self._case.name,
            dtype=self._dtype,
            output=self._write(component, "output", source, component.axes),
            inputs=self._write_inputs(component),
            end_to_end=floor.end_to_end,
            isolated=floor.isolated,
        )

    def _select(self, tensor: Tensor, axes: str) -> Tensor:
        return select_rows(tensor, axes, self._kept)

    def _write_inputs(self, component: Component) -> dict[str, int]:
        if component.step is None:
            return {}
        arguments = STEPS[component.step].arguments
        return {
            argument: self._write(component, f"inputs/{argument}", source, arguments[argument])
            for argument, source in component.inputs.items()
        }

    def _write(self, component: Component, place: str, source: str, axes: str) -> int:
        """Write a tensor once, and link it wherever else it is taken in."""
        path = f"goldens/{self._dtype}/{self._case.name}/{component.name}/{place}"
        tensor = self._seen[source]
        part = self._select(tensor, axes)
        key = (source, part.shape == tensor.shape)
        if key in self._written:
            self._writer.link(path, self._written[key])
        else:
            self._written[key] = self._writer.tensor(path, as_numpy(part))
        return self._written[key]


def as_numpy(tensor: Tensor) -> np.ndarray:
    """The same numbers; bfloat16 as `ml_dtypes.bfloat16`, integers as int32."""
    if tensor.dtype == torch.bfloat16:
        return tensor.contiguous().view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    if not tensor.is_floating_point():
        tensor = tensor.to(torch.int32)
    return tensor.numpy()
