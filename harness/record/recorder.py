"""Record a suite: run the reference on every case in every dtype, and write goldens with their floors."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import ml_dtypes
import numpy as np
import torch
from torch import Tensor, nn

from harness.inputs import CaseInputs
from harness.kinds.table import STEPS
from harness.model import LOGITS, Case, Component, Contents, Fact, Golden
from harness.prompts import Prompt
from harness.record import reference
from harness.record.capture import Passes
from harness.record.decoder import Decoder
from harness.record.discover import coarser_in, discover
from harness.record.evaluations import Evaluations
from harness.record.facts.all import facts_of_checkpoint, in_order, written_facts
from harness.record.floors import WHOLE, Depth, Floors, Recorded
from harness.record.generation import Writing, capture_steps, refuse_changing_angles, write
from harness.record.keep import Keep, select_rows, wide
from harness.record.modules import calls
from harness.record.sections import last_uses, sections
from harness.record.shapes import shapes_of
from harness.record.watch import Captured
from harness.store.layout import case_path, golden_group
from harness.store.writer import GoldenWriter, Writer

CASE_INPUTS = ("token_ids", "attention_mask", "positions", "query_index")
TOKENS_AT_ONCE = 512
"""Of the cases that are recorded together. One token of a model of 0.5B takes 3.6 MB."""


class Progress(Protocol):
    """What is told while recording: what was found, how many steps there are, and each one as it is done."""

    def found(self, components: list[Component], kept: list[Component], model: nn.Module) -> None:
        """Before anything is written; may raise GoldensError if it had better not be."""

    def start(self, total: int) -> None: ...

    def step(self, done: str) -> None: ...


class Records(Protocol):
    """Records cases in one dtype: a `Recorder`, or what goes on with an interrupted one."""

    def whole(self, cases: list[tuple[CaseInputs, Case]], keep: Keep) -> list[Golden]: ...

    def generation(self, writing: Writing) -> tuple[Case, list[Golden], list[Fact]]: ...


class Silent:
    """Progress that is not told."""

    def found(self, components: list[Component], kept: list[Component], model: nn.Module) -> None:
        pass

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
    memory: bytes that the reference may take, or it runs layer by layer; None for half of what the machine has
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
    memory: int | None = None


def record(
    request: Request,
    output: Path,
    progress: Progress,
    resuming: Callable[["Recorder", Mapping[str, Any]], Records] | None = None,
) -> None:
    """Write the golden file `output`. It appears under its name only when it is complete.

    resuming: gives what records in place of the recorder; it is told the provenance
    """
    with GoldenWriter(output) as writer:
        once = [(inputs, write_case(writer, inputs, request.keep)) for inputs in request.cases]
        cases = [case for _, case in once]
        goldens: list[Golden] = []
        facts: list[Fact] = []
        coarser = _coarser(request)
        for dtype in request.dtypes:
            decoder = reference.decoder(request.folder, dtype, request.memory)
            model = decoder.model
            components = [c for c in discover(decoder, coarser) if request.generations or not c.cached]
            kept = request.keep.chosen(components)
            if not goldens:
                count = len(request.cases) + len(request.generations)
                progress.found(components, kept, model)
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
            records: Records = recorder if resuming is None else resuming(recorder, provenance)
            for group in _groups(once):
                goldens += records.whole(group, request.keep)
            for writing in request.generations:
                case, found, told = records.generation(writing)
                cases.append(case)
                goldens += found
                facts += told
            del model, decoder, recorder, records  # need not fit in memory beside the next dtype's
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
            found |= coarser_in(discover(reference.decoder(request.folder, dtype, request.memory), found))
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
        given = [case_tensors(inputs) for inputs, _ in cases]
        called = [calls(self.decoder, once, tensors) for tensors in given]
        repeats = repeats_of(self.components)
        with Passes(self.decoder, once, given) as passes:
            recordings = []
            for number, (inputs, case) in enumerate(cases):
                tokens = keep.positions(inputs)
                told = partial(_select, passes.seen[number], tokens)
                elsewhere = dict.fromkeys(self._few(once, inputs) if keep.sample else (), "few")
                recorded = Recorded(
                    case.name, self.dtype, given[number], tokens, elsewhere, told, called[number]
                )
                recordings.append(Recording(self.writer, case, recorded, repeats))
                self.progress.step(f"{self.dtype} {case.name}")
            return self._goldens(once, recordings, passes)

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
        rows = write_inputs(self.writer, inputs, tokens)
        case = Case(name, inputs.origin, inputs.detail, rows, written.parts)
        seen = capture_steps(self.decoder, self.components, written, positions)
        tensors = case_tensors(inputs)

        def told(source: str, axes: str, at: str) -> Tensor:
            if source in tensors:
                return select_rows(tensors[source], axes, tokens[at])
            return seen[source, at if "T" in axes.split() else "query_index"]

        self.progress.step(f"{self.dtype} {name}")
        called = calls(self.decoder, self.components, tensors)
        recorded = Recorded(name, self.dtype, tensors, tokens, {LOGITS: "generated"}, told, called)
        goldens = self._goldens(
            self.components, [Recording(self.writer, case, recorded, repeats_of(self.components))]
        )
        return case, goldens, written_facts(case.name, self.dtype, written)

    def _few(self, components: list[Component], inputs: CaseInputs) -> frozenset[str]:
        """The components that keep few rows of a sample."""
        shapes = self.decoder.parameters.shapes()
        return wide(components, shapes_of(components, shapes, *inputs.token_ids.shape))

    def _goldens(
        self, components: list[Component], recordings: list["Recording"], passes: Passes | None = None
    ) -> list[Golden]:
        """Section by section: what has passed by there is proved, evaluated, written, and let go."""
        goldens = []
        evaluations = Evaluations(self.decoder, components, [r.recorded for r in recordings], self.depth)
        last = last_uses(components)
        for section in sections(components):
            with section.held(self.decoder):
                if passes is not None:
                    passes.reach(section)
                for component in section.components:
                    found = evaluations.of(component)
                    if component in self.kept:
                        goldens += [
                            r.write(component, floor) for r, floor in zip(recordings, found, strict=True)
                        ]
                    for recording in recordings:
                        self.progress.step(f"{self.dtype} {recording.recorded.name} {component.name}")
                    if passes is not None:
                        passes.forget(last[component.name])
        return goldens


def _select(seen: Captured, rows: Mapping[str, list[int]], source: str, axes: str, at: str) -> Tensor:
    return select_rows(seen[source], axes, rows[at])


def repeats_of(components: Sequence[Component]) -> dict[str, int]:
    """How many times in a row each key and value is there, once expanded to all query heads: it is written once."""
    expanding = (each for each in components if each.step in ("expand_keys", "expand_values"))
    return {component.name: component.settings["groups"] for component in expanding}


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
    tokens = {"query_index": list(range(length)), **keep.positions(case)}
    return Case(case.name, case.origin, case.detail, write_inputs(writer, case, tokens))


def write_inputs(writer: Writer, case: CaseInputs, tokens: Mapping[str, list[int]]) -> dict[str, int]:
    arrays = {
        "token_ids": case.token_ids,
        "attention_mask": case.attention_mask,
        "positions": case.positions,
        **{name: np.array(positions) for name, positions in tokens.items()},
    }
    return {
        name: writer.tensor(case_path(case.name, name), array.astype(np.int32))
        for name, array in arrays.items()
    }


class Recording:
    """One case in one dtype: what the reference put out, and where it was written.

    repeats: component -> how many times in a row its output has each head
    """

    def __init__(self, writer: Writer, case: Case, recorded: Recorded, repeats: Mapping[str, int]) -> None:
        self._writer, self._case, self.recorded, self._repeats = writer, case, recorded, repeats
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
            array = as_numpy(recorded.seen(source, axes, tokens))
            self._written[key] = self._writer.tensor(path, array, self._repeats.get(source, 1))
        return self._written[key]

    def _exact(self, component: Component, value: Tensor) -> int:
        return self._writer.tensor(f"{self._group(component)}/exact", as_numpy(value))

    def _group(self, component: Component) -> str:
        return golden_group(self.recorded.dtype, self._case.name, component.name)


def as_numpy(tensor: Tensor) -> np.ndarray:
    """The same numbers; bfloat16 as `ml_dtypes.bfloat16`, integers as int32."""
    if tensor.dtype == torch.bfloat16:
        return tensor.contiguous().view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    if not tensor.is_floating_point():
        tensor = tensor.to(torch.int32)
    return tensor.numpy()
