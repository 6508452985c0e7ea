"""Record a suite: run the reference on every case in every dtype, and write goldens with their floors."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import ml_dtypes
import numpy as np
import torch
from torch import Tensor

from harness.inputs import CaseInputs
from harness.kinds.table import STEPS
from harness.model import Case, Component, Contents, Fact, Golden
from harness.prompts import Prompt
from harness.record import reference
from harness.record.capture import Captured, capture
from harness.record.decoder import Decoder, find_decoder
from harness.record.discover import coarser_in, discover
from harness.record.facts.all import facts_of_checkpoint, in_order, written_facts
from harness.record.floors import WHOLE, Depth, Floors, Recorded, floors
from harness.record.generation import Writing, capture_steps, refuse_changing_angles, write
from harness.record.keep import Keep, select_rows
from harness.record.modules import calls
from harness.store.writer import GoldenWriter

CASE_INPUTS = ("token_ids", "attention_mask", "positions", "query_index")
TOKENS_AT_ONCE = 512
"""Of the cases that are recorded together. One token of a model of 0.5B takes 3.6 MB."""


class Progress(Protocol):
    """What is told while recording: how many steps there are, and each one as it is done."""

    def start(self, total: int) -> None: ...

    def step(self, done: str) -> None: ...


class Writer(Protocol):
    """Where tensors go: a golden file, or memory."""

    def tensor(self, path: str, array: np.ndarray) -> int:
        """Keep one payload, and return its row in the tensor table."""
        ...

    def link(self, path: str, row: int) -> None:
        """Show the payload of `row` under `path` as well."""
        ...


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
    generations: texts that the reference writes by itself, each in every dtype
    prompts: whose texts are facts of the tokenizer, too
    facts: the families of facts that are recorded beside those of texts that are written; None for all
    """

    checkpoint: str
    origin: str
    folder: Path
    config: dict[str, Any]
    cases: tuple[CaseInputs, ...]
    dtypes: tuple[str, ...]
    keep: Keep
    generations: tuple[Writing, ...] = ()
    prompts: tuple[Prompt, ...] = ()
    facts: tuple[str, ...] | None = ()


def record(request: Request, output: Path, progress: Progress) -> None:
    """Write the golden file `output`. It appears under its name only when it is complete."""
    with GoldenWriter(output) as writer:
        once = [(inputs, write_case(writer, inputs, request.keep)) for inputs in request.cases]
        cases = [case for _, case in once]
        goldens: list[Golden] = []
        facts: list[Fact] = []
        coarser = _coarser(request)
        for dtype in request.dtypes:
            model = reference.load(request.folder, dtype)
            decoder = find_decoder(model)
            components = [c for c in discover(decoder, coarser) if request.generations or not c.cached]
            kept = request.keep.chosen(components)
            if not goldens:
                count = len(request.cases) + len(request.generations)
                progress.start(len(request.dtypes) * count * (len(components) + 1))
                provenance: dict[str, Any] = {
                    "kept": f"{len(kept)} of {len(components)} components",
                    "keep": str(request.keep),
                }
                if recorded_as_modules := coarser_in(components):
                    provenance["modules"] = recorded_as_modules
                provenance |= reference.provenance(request.checkpoint, request.origin, request.folder, model)
                facts += facts_of_checkpoint(request, model, components)
            recorder = Recorder(writer, decoder, components, kept, dtype, progress)
            for group in _groups(once):
                goldens += recorder.whole(group, request.keep)
            for writing in request.generations:
                case, found, told = recorder.generation(writing)
                cases.append(case)
                goldens += found
                facts += told
            del model, decoder, recorder  # the next dtype's model need not fit in memory beside this one
        writer.finish(
            Contents(
                provenance=provenance,
                config=request.config,
                parameters=reference.fingerprints(request.folder),
                components=kept,
                cases=cases,
                goldens=goldens,
                facts=in_order(facts),
            )
        )


def _coarser(request: Request) -> dict[str, str]:
    """The parts that are recorded as modules in any dtype, and why: a file has the same components in all."""
    found: dict[str, str] = {}
    if len(request.dtypes) > 1:
        for dtype in request.dtypes:
            found |= coarser_in(discover(find_decoder(reference.load(request.folder, dtype)), found))
    return found


def _groups(cases: list[tuple[CaseInputs, Case]]) -> Iterator[list[tuple[CaseInputs, Case]]]:
    """Cases that are recorded together: as many as have TOKENS_AT_ONCE tokens, so that their tensors fit in memory."""
    group: list[tuple[CaseInputs, Case]] = []
    for case in cases:
        if group and sum(inputs.token_ids.size for inputs, _ in [*group, case]) > TOKENS_AT_ONCE:
            yield group
            group = []
        group.append(case)
    if group:
        yield group


@dataclass(frozen=True)
class Recorder:
    """The reference in one dtype, and where goldens of it are written.

    kept: the components that are; depth: how much is found out of their floors
    """

    writer: Writer
    decoder: Decoder
    components: list[Component]
    kept: list[Component]
    dtype: str
    progress: Progress
    depth: Depth = WHOLE

    def whole(self, cases: list[tuple[CaseInputs, Case]], keep: Keep) -> list[Golden]:
        """Cases that are read at once."""
        once = [component for component in self.components if not component.cached]
        recordings = []
        for inputs, case in cases:
            tensors = case_tensors(inputs)
            seen = capture(self.decoder, once, tensors)
            tokens = {"kept": keep.rows(inputs.token_ids.shape[1])}

            def told(source: str, axes: str, at: str, seen: Captured = seen, rows: Any = tokens) -> Tensor:
                return select_rows(seen[source], axes, rows[at])

            called = calls(self.decoder, once, tensors)
            recorded = Recorded(case.name, self.dtype, tensors, tokens, "kept", told, called)
            recordings.append(_Recording(self.writer, case, recorded))
            self.progress.step(f"{self.dtype} {case.name}")
        return self._goldens(once, recordings)

    def generation(self, writing: Writing) -> tuple[Case, list[Golden], list[Fact]]:
        """A text that the reference writes, read through its cache."""
        refuse_changing_angles(self.components, writing)
        written = write(self.decoder, writing.prompt, writing.new_tokens)
        positions = written.steps(writing.steps)
        name = f"{writing.prompt.name}.{self.dtype}"
        inputs = replace(written.inputs, name=name)
        tokens = {
            "kept": positions,
            "generated": written.generated,
            "query_index": list(range(inputs.token_ids.shape[1])),
        }
        rows = _write_inputs(self.writer, inputs, tokens)
        case = Case(name, inputs.origin, inputs.detail, rows, written.parts)
        seen = capture_steps(self.decoder, self.components, written, positions)
        tensors = case_tensors(inputs)

        def told(source: str, axes: str, at: str) -> Tensor:
            if source in tensors:
                return select_rows(tensors[source], axes, tokens[at])
            return seen[source, at if "T" in axes.split() else "query_index"]

        self.progress.step(f"{self.dtype} {name}")
        called = calls(self.decoder, self.components, tensors)
        recorded = Recorded(name, self.dtype, tensors, tokens, "generated", told, called)
        goldens = self._goldens(self.components, [_Recording(self.writer, case, recorded)])
        return case, goldens, written_facts(case.name, self.dtype, written)

    def _goldens(self, components: list[Component], recordings: list["_Recording"]) -> list[Golden]:
        goldens = []
        told = [recording.recorded for recording in recordings]
        for component, found in floors(self.decoder, components, told, self.depth):
            if component in self.kept:
                goldens += [r.write(component, floor) for r, floor in zip(recordings, found, strict=True)]
            for recording in recordings:
                self.progress.step(f"{self.dtype} {recording.recorded.name} {component.name}")
        return goldens


def case_tensors(inputs: CaseInputs) -> Captured:
    """A case's inputs as components take them in."""
    return {
        "case.token_ids": torch.from_numpy(inputs.token_ids).long(),
        "case.attention_mask": torch.from_numpy(inputs.attention_mask).long(),
        "case.positions": torch.from_numpy(inputs.positions).long(),
        "case.query_index": torch.arange(inputs.token_ids.shape[1]),
    }


def write_case(writer: Writer, case: CaseInputs, keep: Keep) -> Case:
    """A case's own inputs, whole, and which token positions (`kept`) are recorded of it."""
    length = case.token_ids.shape[1]
    tokens = {"query_index": list(range(length)), "kept": keep.rows(length)}
    return Case(case.name, case.origin, case.detail, _write_inputs(writer, case, tokens))


def _write_inputs(writer: Writer, case: CaseInputs, tokens: Mapping[str, list[int]]) -> dict[str, int]:
    arrays = {
        "token_ids": case.token_ids,
        "attention_mask": case.attention_mask,
        "positions": case.positions,
        **{name: np.array(positions) for name, positions in tokens.items()},
    }
    return {
        name: writer.tensor(f"cases/{case.name}/{name}", array.astype(np.int32))
        for name, array in arrays.items()
    }


class _Recording:
    """One case in one dtype: what the reference put out, and where it was written."""

    def __init__(self, writer: Writer, case: Case, recorded: Recorded) -> None:
        self._writer, self._case, self.recorded = writer, case, recorded
        # (source, token positions) -> row of the tensor table
        self._written = {
            (f"case.{name}", "query_index"): row for name, row in case.inputs.items() if name in CASE_INPUTS
        }

    def write(self, component: Component, floor: Floors) -> Golden:
        """Write a component's output, and what it takes in unless that is written already."""
        source = component.composite_of or component.name
        tokens = self.recorded.tokens_of(component)
        return Golden(
            component=component.name,
            case=self._case.name,
            dtype=self.recorded.dtype,
            output=self._write(component, "output", source, component.axes, tokens),
            inputs=self._write_inputs(component, tokens),
            end_to_end=floor.end_to_end,
            isolated=floor.isolated,
            tokens=tokens,
            exact=None if floor.exact is None else self._exact(component, floor.exact),
        )

    def _write_inputs(self, component: Component, tokens: str) -> dict[str, int]:
        if component.step is None:
            return {}
        arguments = STEPS[component.step].arguments
        return {
            argument: self._write(component, f"inputs/{argument}", source, arguments[argument], tokens)
            for argument, source in component.inputs.items()
        }

    def _write(self, component: Component, place: str, source: str, axes: str, tokens: str) -> int:
        """Write a tensor once, and link it wherever else it is taken in."""
        path = f"{self._group(component)}/{place}"
        recorded = self.recorded
        every = "T" not in axes.split() or recorded.tokens[tokens] == recorded.every_token
        key = (source, "query_index" if every else tokens)
        if key in self._written:
            self._writer.link(path, self._written[key])
        else:
            self._written[key] = self._writer.tensor(path, as_numpy(recorded.seen(source, axes, tokens)))
        return self._written[key]

    def _exact(self, component: Component, value: Tensor) -> int:
        return self._writer.tensor(f"{self._group(component)}/exact", as_numpy(value))

    def _group(self, component: Component) -> str:
        return f"goldens/{self.recorded.dtype}/{self._case.name}/{component.name}"


def as_numpy(tensor: Tensor) -> np.ndarray:
    """The same numbers; bfloat16 as `ml_dtypes.bfloat16`, integers as int32."""
    if tensor.dtype == torch.bfloat16:
        return tensor.contiguous().view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    if not tensor.is_floating_point():
        tensor = tensor.to(torch.int32)
    return tensor.numpy()
