"""`goldens record --from-port`: a port's own past as a golden file, to hold a later version of it against. No torch.

A golden file of the reference is the frame: its cases, components, wiring and noise floors are taken over, and what
the port hands out takes the place of what the reference put out. The floors stay the reference's: they say what
rounding explains of the right numbers, so that no mistake of the port's widens them (docs/review.md has what was
measured).
"""

import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace
from rich.console import Console
from rich.progress import track

from harness.errors import GoldensError
from harness.kinds.table import STEPS
from harness.model import Case, Component, Contents, Golden
from harness.record.port_runs import PortRun
from harness.replay.environment import environment
from harness.replay.port import Port, wired
from harness.replay.session import checked_factory, checkpoint_folder
from harness.review.pending import pending_of
from harness.review.settle import recording, settle
from harness.store.layout import case_path, golden_group
from harness.store.reader import GoldenFile
from harness.store.writer import GoldenWriter

Array = Any
_SHARED = ("checkpoint_files", "architecture")
"""Provenance that is the checkpoint's, whoever runs it."""


@dataclass(frozen=True)
class Asked:
    """What the command line says. like: the frame; port: `MODULE:FACTORY`; what is empty is the frame's own."""

    like: Path
    port: str
    output: Path
    checkpoint: str | None
    dtypes: tuple[str, ...]
    cases: tuple[str, ...]


def record(asked: Asked, console: Console, errors: Console) -> bool:
    """Record, and say on `console` what became of it. False if it differs from the file that is there."""

    def told(line: str) -> None:
        errors.print(line, markup=False, highlight=False, soft_wrap=True)

    with recording(asked.output, {"port": asked.port}, told) as old:
        _write(asked, GoldenFile.open(asked.like), errors)
        return settle(old, asked.output, console)


def _write(asked: Asked, frame: GoldenFile, errors: Console) -> None:
    wanted = frame.select(cases=asked.cases, dtypes=asked.dtypes)
    factory = checked_factory(frame, asked.port, asked.checkpoint)

    def make(dtype: str) -> Port:
        port: Port = wired(factory(dtype), frame.contents.components)
        return port

    with GoldenWriter(pending_of(asked.output)) as writer:
        cases: dict[str, Case] = {}
        goldens: list[Golden] = []
        for run in _runs(frame, asked.port, wanted, make, errors):
            if values := run.values():
                name = run.goldens[0].case
                if name not in cases:
                    cases[name] = _write_case(writer, frame, name)
                goldens += _Recording(writer, frame, cases[name], values).goldens(run.goldens)
        writer.finish(_contents(asked, frame, cases, goldens))
    _tell_missing(wanted, goldens, errors)


def _runs(
    frame: GoldenFile, spec: str, wanted: Sequence[Golden], make: Callable[[str], Port], errors: Console
) -> Iterator[PortRun]:
    """One for each dtype and case, a model in one dtype at a time; a bar on `errors` shows how far it is."""
    groups = [list(group) for _, group in groupby(wanted, key=lambda golden: (golden.dtype, golden.case))]
    made: dict[str, Port] = {}
    for group in track(groups, "port", console=errors, disable=not errors.is_terminal, transient=True):
        dtype = group[0].dtype
        if dtype not in made:
            made.clear()
            made[dtype] = make(dtype)
        yield PortRun(frame, spec, made[dtype], group)


def _contents(
    asked: Asked, frame: GoldenFile, cases: Mapping[str, Case], goldens: Sequence[Golden]
) -> Contents:
    names = {golden.component for golden in goldens}
    components = [component for component in frame.contents.components if component.name in names]
    if not components:
        raise GoldensError(f"port {asked.port!r} hands out no component of {frame.path}")
    kept = f"{len(components)} of {len(frame.contents.components)} components"
    return Contents(
        provenance=_provenance(asked, frame) | {"kept": kept},
        config=frame.contents.config,
        parameters=frame.contents.parameters,
        components=components,
        cases=list(cases.values()),
        goldens=list(goldens),
    )


def _provenance(asked: Asked, frame: GoldenFile) -> dict[str, Any]:
    """Where it comes from, as a recording of the reference tells it; `port` is what tells the two apart."""
    theirs, ran_on = frame.contents.provenance, environment(Path.cwd())
    own = {
        "recorded_at": ran_on.time,
        "port": asked.port,
        "like": {"file": frame.path.name, "digest": frame.digest},
        "checkpoint": _seen_from(asked, frame),
        "checkpoint_is": theirs["checkpoint_is"] if asked.checkpoint is None else "folder",
        "versions": ran_on.versions,
        "device": ran_on.device,
        "precision": ran_on.precision,
        "commit": ran_on.commit,
        "machine": platform.machine(),
    }
    return {name: theirs[name] for name in _SHARED if name in theirs} | {k: v for k, v in own.items() if v}


def _seen_from(asked: Asked, frame: GoldenFile) -> str:
    """The checkpoint as the new golden file names it: from its own folder, unless it was named absolutely."""
    named = asked.checkpoint or str(frame.contents.provenance["checkpoint"])
    hub = asked.checkpoint is None and frame.contents.provenance["checkpoint_is"] == "hub id"
    if hub or Path(named).is_absolute():
        return named
    return Path(os.path.relpath(checkpoint_folder(frame, asked.checkpoint), asked.output.parent)).as_posix()


def _write_case(writer: GoldenWriter, frame: GoldenFile, name: str) -> Case:
    inputs = frame.case_inputs(name)
    rows = {argument: writer.tensor(case_path(name, argument), array) for argument, array in inputs.items()}
    return replace(frame.case(name), inputs=rows)


class _Recording:
    """One case in one dtype: what the port put out, and where it is written."""

    def __init__(
        self, writer: GoldenWriter, frame: GoldenFile, case: Case, traced: Mapping[str, Array]
    ) -> None:
        self._writer, self._frame, self._inputs = writer, frame, frame.case_inputs(case.name)
        self._values = dict(traced) | {f"case.{name}": array for name, array in self._inputs.items()}
        # (source, token positions) -> row of the tensor table
        self._written = {(f"case.{name}", "query_index"): row for name, row in case.inputs.items()}

    def goldens(self, framed: Sequence[Golden]) -> Iterator[Golden]:
        """Those that the port handed out. One of whose inputs it does not hand out is not replayed by itself."""
        for golden in framed:
            component = self._frame.component(golden.component)
            if component.name not in self._values:
                continue
            group = golden_group(golden.dtype, golden.case, component.name)
            output = self._write(f"{group}/output", self._source(component), component.axes, golden.tokens)
            alone = component.step is not None and all(s in self._values for s in component.inputs.values())
            yield replace(
                golden,
                output=output,
                inputs=self._write_inputs(group, component, golden.tokens) if alone else {},
                isolated=golden.isolated if alone else None,
                exact=None,
            )

    def _source(self, component: Component) -> str:
        """What a composite hands out is written once, if it is bit by bit that."""
        part = component.composite_of
        same = part in self._values and np.array_equal(
            self._values[part], self._values[component.name], equal_nan=True
        )
        return part if same and part is not None else component.name

    def _write_inputs(self, group: str, component: Component, tokens: str) -> dict[str, int]:
        arguments = STEPS[component.step or ""].arguments
        return {
            argument: self._write(f"{group}/inputs/{argument}", source, arguments[argument], tokens)
            for argument, source in component.inputs.items()
        }

    def _write(self, path: str, source: str, axes: str, tokens: str) -> int:
        """Write a tensor once, and link it wherever else it is taken in."""
        kept, every = self._inputs[tokens], len(self._inputs["query_index"])
        whole = "T" not in axes.split() or len(kept) == every
        key = (source, "query_index" if whole else tokens)
        if key in self._written:
            self._writer.link(path, self._written[key])
        else:
            value = self._values[source]
            rows = value if whole else np.take(value, kept, axis=axes.split().index("T"))
            self._written[key] = self._writer.tensor(path, rows)
        return self._written[key]


def _tell_missing(wanted: Sequence[Golden], goldens: Sequence[Golden], errors: Console) -> None:
    """What a replay of it will not look at, by name."""
    cases, names = {golden.case for golden in goldens}, {golden.component for golden in goldens}
    left_out = dict.fromkeys(golden.case for golden in wanted if golden.case not in cases)
    missing = dict.fromkeys(
        golden.component for golden in wanted if golden.case in cases and golden.component not in names
    )
    for what, found in (("not read through a cache", left_out), ("not offered", missing)):
        if found:
            told = f"{what} by the port, so not recorded: {', '.join(found)}"
            errors.print(told, markup=False, highlight=False, soft_wrap=True)
