"""How large a recording will be, before it is made: what the recorder writes, with shapes in place of numbers.

The steps are evaluated on tensors that have a shape and nothing else, and what comes of it goes through the recorder's
own writing, which says what is written once and what is linked. So the sum is that of the payloads, to the byte; the
index and HDF5's bookkeeping come on top. A text that the reference writes counts as if it were as long as it may be.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from harness.inputs import CaseInputs
from harness.kinds.table import STEPS
from harness.model import LOGITS, Case, Component, Floor, Views
from harness.record import reference
from harness.record.discover import discover
from harness.record.floors import Floors, Recorded
from harness.record.generation import NEAREST_TIES, Writing
from harness.record.keep import Keep, wide
from harness.record.recorder import Recording, Request, case_tensors, repeats_of, write_case, write_inputs
from harness.record.shapes import Shape, shapes_of

_ITEMS = {"float32": torch.float32, "bfloat16": torch.float16, "float16": torch.float16}
"""Tensors of these have elements of the right size; unlike bfloat16, numpy can show float16 without a copy."""
_NONE = Floor(Views(0, 0, 0), Views(0, 0, 0))


@dataclass(frozen=True)
class Plan:
    """parts: (dtype, kind of component, "rows" or "every key") -> bytes of what such components put out."""

    parts: Mapping[tuple[str, str, str], int]

    @property
    def nbytes(self) -> int:
        return sum(self.parts.values())

    def by_part(self) -> list[tuple[str, int]]:
        """What is dearest first: `gate_proj`, or `k_expanded (every key)`, in all dtypes together."""
        sizes = Counter[str]()
        for (_, kind, rows), nbytes in self.parts.items():
            sizes[kind if rows == "rows" else f"{kind} ({rows})"] += nbytes
        return sizes.most_common()

    def by_dtype(self) -> dict[str, int]:
        sizes = Counter[str]()
        for (dtype, _, _), nbytes in self.parts.items():
            sizes[dtype] += nbytes
        return dict(sizes)


@dataclass(frozen=True)
class Planned:
    """What is to be recorded.

    components: all of the model's; kept: those that are written; parameters: name -> shape
    """

    components: Sequence[Component]
    kept: Sequence[Component]
    parameters: Mapping[str, Shape]
    cases: Sequence[CaseInputs]
    generations: Sequence[Writing]
    dtypes: Sequence[str]
    keep: Keep

    def plan(self) -> Plan:
        writer = _Counting(self.components)
        shaped = cache(self._shapes)  # cases of one shape are alike
        once = {case.name: write_case(writer, case, self.keep) for case in self.cases}
        for dtype in self.dtypes:
            for inputs in self.cases:
                shapes = shaped(*inputs.token_ids.shape)
                few = wide(self.components, shapes) if self.keep.sample else ()
                at, tokens = dict.fromkeys(few, "few"), self.keep.positions(inputs)
                recorded = self._recorded(dtype, inputs, shapes, tokens, at)
                recording = Recording(writer, once[inputs.name], recorded, repeats_of(self.components))
                self._write(recording, [component for component in self.kept if not component.cached])
            for writing in self.generations:
                inputs, tokens = _longest(writing)
                case = Case(inputs.name, inputs.origin, inputs.detail, write_inputs(writer, inputs, tokens))
                recorded = self._recorded(
                    dtype, inputs, shaped(*inputs.token_ids.shape), tokens, {LOGITS: "generated"}
                )
                self._write(Recording(writer, case, recorded, repeats_of(self.components)), self.kept)
        return Plan(writer.parts)

    def _recorded(
        self,
        dtype: str,
        inputs: CaseInputs,
        shapes: Mapping[str, Shape],
        tokens: Mapping[str, list[int]],
        elsewhere: Mapping[str, str],
    ) -> Recorded:
        def told(source: str, axes: str, at: str) -> Tensor:
            shape, letters = list(shapes[source]), axes.split()
            if "T" in letters:
                shape[letters.index("T")] = len(tokens[at])
            item = torch.int32 if source.startswith("case.") else _ITEMS[dtype]
            return torch.zeros((), dtype=item).expand(shape)

        return Recorded(inputs.name, dtype, case_tensors(inputs), tokens, elsewhere, told)

    def _write(self, recording: Recording, components: Sequence[Component]) -> None:
        for component in components:
            more = component.name == LOGITS and recording.recorded.dtype != "float32"
            exact = None
            if more:
                tokens = recording.recorded.tokens_of(component)
                exact = recording.recorded.seen(LOGITS, component.axes, tokens).float()
            recording.write(component, Floors(_NONE, _NONE, exact))

    def _shapes(self, batch: int, length: int) -> dict[str, Shape]:
        return shapes_of(self.components, self.parameters, batch, length)


def planned(
    request: Request, components: Sequence[Component], kept: Sequence[Component], model: nn.Module
) -> Planned:
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    return Planned(components, kept, shapes, request.cases, request.generations, request.dtypes, request.keep)


def found_by(request: Request) -> Planned:
    """What a recording would find: the model is loaded, and run on a short text only."""
    decoder = reference.decoder(request.folder, request.dtypes[0], request.memory)
    components = [c for c in discover(decoder) if request.generations or not c.cached]
    return planned(request, components, request.keep.chosen(components), decoder.model)


def _longest(writing: Writing) -> tuple[CaseInputs, dict[str, list[int]]]:
    """A text as long as it may become, and the token positions that are then recorded of it."""
    prompt, count = writing.prompt, writing.new_tokens - 1
    rows, read = prompt.token_ids.shape
    wanted = {step if step > 0 else count + 1 + step for step in writing.steps}
    wanted = {step for step in wanted if 1 <= step <= count}
    others = [step for step in range(1, count + 1) if step not in wanted]
    kept = sorted({*wanted, *others[:NEAREST_TIES]})
    filled = np.zeros((rows, read + count), np.int32)
    inputs = CaseInputs(prompt.name, "generated", prompt.detail, filled, filled + 1, filled)
    tokens = {
        "kept": [read - 1 + step for step in kept],
        "generated": [read - 1 + step for step in range(count + 1)],
        "query_index": list(range(read + count)),
    }
    return inputs, tokens


class _Counting:
    """Takes what a recorder writes, and keeps its size."""

    def __init__(self, components: Sequence[Component]) -> None:
        self.parts = Counter[tuple[str, str, str]]()
        self._components = {component.name: component for component in components}
        self._rows = 0

    def tensor(self, path: str, array: np.ndarray, repeats: int = 1) -> int:
        self.parts[self._part(path)] += array.nbytes // repeats
        self._rows += 1
        return self._rows

    def link(self, path: str, row: int) -> None:
        """Takes no room."""

    def _part(self, path: str) -> tuple[str, str, str]:
        """Whose output it is: an input is that of the component it comes from."""
        room, *rest = path.strip("/").split("/")
        if room == "cases":
            return "", "inputs", "rows"
        dtype, _, name, *place = rest
        component = self._components[name]
        if place[0] != "inputs":
            return dtype, component.kind, "rows"
        source = component.inputs[place[1]]
        keys = component.step and "S" in STEPS[component.step].arguments[place[1]].split()
        found = self._components.get(source)
        return dtype, found.kind if found else "inputs", "every key" if keys and found else "rows"
