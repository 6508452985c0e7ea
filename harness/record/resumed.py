"""`goldens record --resume`: each case in each dtype is recorded into a part of its own, and the parts are joined.

A case's numbers are the same whichever cases go through the model with it, and joining writes what the recorder writes,
in its order: so the golden file is the one that a recording in one go makes, apart from the time in it.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from transformers.utils import GENERATION_CONFIG_NAME

from harness.checkpoints import read_config
from harness.inputs import CaseInputs
from harness.model import Case, Component, Contents, Fact, Golden
from harness.record.generation import Writing
from harness.record.keep import Keep
from harness.record.recorder import Recorder, Request, write_case
from harness.store.parts import Identity, Joining, Parts
from harness.store.writer import GoldenWriter

_MACHINE = ("device", "machine", "cpu_capability", "threads", "attention")
"""Provenance that says where numbers were computed, and how."""


class Resuming:
    """Has what recorders are asked for recorded part by part. The first one says what parts must be of."""

    def __init__(self, request: Request, parts: Parts) -> None:
        self._request, self._parts, self._began = request, parts, False

    def __call__(self, recorder: Recorder, provenance: Mapping[str, Any]) -> "Resumed":
        if not self._began:
            self._parts.take_over(identities(self._request, provenance, recorder.components, recorder.kept))
            self._began = True
        return Resumed(recorder, self._parts)


class Resumed:
    """Records as `recorder` does: into parts, unless they are there, and from these into its golden file."""

    def __init__(self, recorder: Recorder, parts: Parts) -> None:
        self._recorder, self._parts = recorder, parts

    def whole(self, cases: list[tuple[CaseInputs, Case]], keep: Keep) -> list[Golden]:
        """Cases that are read at once."""

        def record(inputs: CaseInputs, writer: GoldenWriter) -> Contents:
            case = write_case(writer, inputs, keep)
            return self._contents(case, self._into(writer).whole([(inputs, case)], keep), [])

        joinings = [self._joining(case.name, partial(record, inputs), case) for inputs, case in cases]
        kept = [component for component in self._recorder.kept if not component.cached]
        return [joining.golden(component) for component in kept for joining in joinings]

    def generation(self, writing: Writing) -> tuple[Case, list[Golden], list[Fact]]:
        """A text that the reference writes."""

        def record(writer: GoldenWriter) -> Contents:
            return self._contents(*self._into(writer).generation(writing))

        joining = self._joining(writing.prompt.name, record, None)
        goldens = [joining.golden(component) for component in self._recorder.kept]
        return joining.case, goldens, joining.facts

    def _into(self, writer: GoldenWriter) -> Recorder:
        return replace(self._recorder, writer=writer)

    def _joining(self, case: str, record: Callable[[GoldenWriter], Contents], there: Case | None) -> Joining:
        name = _name(case, self._recorder.dtype)
        if self._parts.has(name):
            for _ in range(len(self._recorder.components) + 1):
                self._recorder.progress.step(f"{self._recorder.dtype} {case} was there")
        return Joining(self._parts.part(name, record), self._recorder.writer, there)

    def _contents(self, case: Case, goldens: list[Golden], facts: list[Fact]) -> Contents:
        """Of a part."""
        return Contents({}, {}, [], self._recorder.kept, [case], goldens, facts)


def identities(
    request: Request, provenance: Mapping[str, Any], components: list[Component], kept: list[Component]
) -> dict[str, Identity]:
    """Name of a part -> what decides about its numbers."""
    shared = {
        "checkpoint": provenance["checkpoint_files"],
        "version of a library": provenance["versions"],
        "machine, or number of threads": {name: provenance[name] for name in _MACHINE},
        "version of this program": _own_source(),
    }
    every = {"choice of components": _digest(components, kept, str(request.keep))}
    once = [[component for component in each if not component.cached] for each in (components, kept)]
    whole = {"choice of components": _digest(*once, str(request.keep))}
    of = {
        each.name: whole | {"input": _digest(*_of_case(each), request.keep.positions(each))}
        for each in request.cases
    }
    for each in request.generations:
        written = (each.new_tokens, each.steps, _generation_settings(request.folder))
        of[each.prompt.name] = every | {"input": _digest(*_of_case(each.prompt), *written)}
    return {
        _name(case, dtype): shared | its | {"dtype": dtype}
        for dtype in request.dtypes
        for case, its in of.items()
    }


def _name(case: str, dtype: str) -> str:
    return f"{case}.{dtype}"


def _of_case(inputs: CaseInputs) -> list[Any]:
    arrays = (inputs.token_ids, inputs.attention_mask, inputs.positions)
    return [inputs.name, inputs.origin, inputs.detail, *(array.tolist() for array in arrays)]


def _generation_settings(folder: Path) -> dict[str, Any]:
    there = (folder / GENERATION_CONFIG_NAME).exists()
    return read_config(folder, GENERATION_CONFIG_NAME) if there else {}


def _digest(*values: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(values, order="deterministic")).hexdigest()


def _own_source() -> str:
    """Digest of this program as it is: its version stays the same while somebody works on it."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package)}\n".encode() + path.read_bytes())
    return digest.hexdigest()
