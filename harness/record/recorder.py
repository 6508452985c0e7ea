"""Record a suite: run the reference on every case in every dtype, and write goldens with their floors."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import ml_dtypes
import numpy as np
import torch
from torch import Tensor, nn

from harness.compare.metrics import Places
from harness.kinds.table import STEPS
from harness.model import Case, Component, Contents, Golden
from harness.record import reference
from harness.record.capture import Captured, capture
from harness.record.discover import Decoder, discover, find_decoder
from harness.record.floors import Recorded, floors
from harness.record.keep import Keep, select_rows
from harness.store.writer import GoldenWriter


class CaseInputs(Protocol):
    """A case before it is recorded: arrays of int32, (B T) each; 1 in the mask is a real token."""

    name: str
    origin: str
    detail: str
    token_ids: np.ndarray
    attention_mask: np.ndarray
    positions: np.ndarray


class Progress(Protocol):
    """What is told while recording: how many steps there are, and each one as it is done."""

    def start(self, total: int) -> None: ...

    def step(self, case: str, dtype: str, component: str) -> None: ...


@dataclass(frozen=True)
class Request:
    """What to record. checkpoint: as the user wrote it; folder: where it is."""

    checkpoint: str
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
            decoder, components = find_decoder(model), discover(model)
            kept = request.keep.chosen(components)
            if not goldens:
                progress.start(len(request.dtypes) * len(request.cases) * len(components))
                provenance = reference.provenance(request.checkpoint, request.folder, model)
            for inputs, case in zip(request.cases, cases, strict=True):
                recording = _Recording(writer, decoder, components, kept, request.keep, dtype, case)
                goldens.extend(recording.run(inputs, progress))
            del model, decoder
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
        name: writer.tensor(f"cases/{case.name}/{name}", array.astype(np.int32)) for name, array in arrays.items()
    }
    return Case(case.name, case.origin, case.detail, rows)


@dataclass
class _Recording:
    """One case in one dtype."""

    writer: GoldenWriter
    decoder: Decoder
    components: list[Component]
    kept: list[Component]
    keep: Keep
    dtype: str
    case: Case

    def run(self, inputs: CaseInputs, progress: Progress) -> Iterator[Golden]:
        length = inputs.token_ids.shape[1]
        case = {
            "case.token_ids": torch.from_numpy(inputs.token_ids).long(),
            "case.attention_mask": torch.from_numpy(inputs.attention_mask).long(),
            "case.positions": torch.from_numpy(inputs.positions).long(),
            "case.query_index": torch.arange(length),
        }
        self.rows = self.keep.rows(length)
        seen = capture(self.decoder, self.components, case)
        # (source, whether every token position of it is there) -> row of the tensor table
        self.written: dict[tuple[str, bool], int] = {
            (f"case.{name}", True): row for name, row in self.case.inputs.items() if name != "kept"
        }
        names = {component.name for component in self.kept}
        real = inputs.attention_mask != 0
        recorded = Recorded(
            seen, self.case.name, self.dtype, self._select, Places(queries=real[:, self.rows], keys=real)
        )
        for component, floor in floors(self.decoder.model, self.components, recorded):
            progress.step(self.case.name, self.dtype, component.name)
            if component.name not in names:
                continue
            yield Golden(
                component=component.name,
                case=self.case.name,
                dtype=self.dtype,
                output=self._write(component, "output", component.composite_of or component.name, component.axes, seen),
                inputs=self._write_inputs(component, seen),
                end_to_end=floor.end_to_end,
                isolated=floor.isolated,
            )

    def _select(self, tensor: Tensor, axes: str) -> Tensor:
        return select_rows(tensor, axes, self.rows)

    def _write_inputs(self, component: Component, seen: Captured) -> dict[str, int]:
        if component.step is None:
            return {}
        arguments = STEPS[component.step].arguments
        return {
            argument: self._write(component, f"inputs/{argument}", source, arguments[argument], seen)
            for argument, source in component.inputs.items()
        }

    def _write(self, component: Component, place: str, source: str, axes: str, seen: Captured) -> int:
        """Write a tensor once, and link it wherever else it is taken in."""
        path = f"goldens/{self.dtype}/{self.case.name}/{component.name}/{place}"
        tensor = seen[source]
        part = self._select(tensor, axes)
        key = (source, part.shape == tensor.shape)
        if key in self.written:
            self.writer.link(path, self.written[key])
        else:
            self.written[key] = self.writer.tensor(path, as_numpy(part))
        return self.written[key]


def as_numpy(tensor: Tensor) -> np.ndarray:
    """The same numbers; bfloat16 as `ml_dtypes.bfloat16`, integers as int32."""
    if tensor.dtype == torch.bfloat16:
        return tensor.contiguous().view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    if not tensor.is_floating_point():
        tensor = tensor.to(torch.int32)
    return tensor.numpy()
