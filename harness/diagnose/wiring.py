"""Faults in the wiring: every component is right by itself, and one of them is fed from the wrong place.

Such a fault passes every isolated replay. It shows where a component fails end to end although all that it should take
in passes: fed with that, the port's own component does not give what the port's forward pass had there. What it was
fed is then looked for among all that the forward pass put out. Only the port is run: nothing has to be known of its
weights.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from harness.diagnose.subject import Subject
from harness.kinds.table import STEPS
from harness.model import CASE, Component, Mode, Verdict
from harness.replay.forward import Forward
from harness.replay.port import TRACE_INPUTS, Isolated
from harness.report.result import Explanation, Result

Array = Any
NAME = "wiring"
_MOST_CASES = 3
"""In how many cases an edge is looked for: places that are alike in one of them may differ in another."""


@dataclass(frozen=True)
class Edge:
    """A component that takes an argument from another place than the reference: where it should, and where it may."""

    component: Component
    argument: str
    right: str
    found: tuple[str, ...]


def explain_wiring(subject: Subject, results: Sequence[Result]) -> list[Explanation]:
    """An explanation for every edge that is wrong, or for a component whose input is changed on the way."""
    suspects = list(_suspects(subject, results))
    if not suspects:
        return []
    dtype = suspects[0].dtype
    cases = list(dict.fromkeys(result.case for result in suspects if result.dtype == dtype))[:_MOST_CASES]
    runs = [_Run(subject, case, dtype) for case in cases]
    edges, changed = [], []
    for name in dict.fromkeys(result.component for result in suspects):
        component = subject.file.component(name)
        own = [run for run in runs if run.traced(component) and not run.consistent(component)]
        if not own:
            continue
        edge = _same_in_all([run.find_edge(component) for run in own])
        if edge is not None:
            edges.append(edge)
        else:
            changed.append(Explanation(component.name, [NAME], own[0].change(component)))
    told = [Explanation(group[0].component.name, [NAME], _say(subject, group)) for group in _grouped(edges)]
    order = {component.name: n for n, component in enumerate(subject.file.contents.components)}
    return sorted(told + changed, key=lambda explanation: order[explanation.component])


def _same_in_all(edges: Sequence[Edge | None]) -> Edge | None:
    """The edge that every case shows, with the places that all of them allow for."""
    first = edges[0]
    if first is None or any(edge is None or edge.argument != first.argument for edge in edges):
        return None
    found = tuple(
        name for name in first.found if all(edge is not None and name in edge.found for edge in edges)
    )
    return replace(first, found=found) if found else None


def _suspects(subject: Subject, results: Sequence[Result]) -> Iterator[Result]:
    """Failures end to end of components that pass by themselves and whose sources pass end to end."""
    verdicts = {(r.component, r.case, r.dtype, r.mode): r.verdict for r in results}
    for result in results:
        if result.mode is not Mode.END_TO_END or result.verdict is not Verdict.FAIL or result.error is None:
            continue
        component = subject.file.component(result.component)
        place = (result.case, result.dtype)
        alone = verdicts.get((result.component, *place, Mode.ISOLATED))
        sources = [
            verdicts.get((source, *place, Mode.END_TO_END))
            for source in component.inputs.values()
            if not source.startswith(CASE)
        ]
        if component.step and alone is Verdict.PASS and all(v is Verdict.PASS for v in sources):
            yield result


class _Run:
    """One forward pass of the port, and what its components give when they are fed with parts of it."""

    def __init__(self, subject: Subject, case: str, dtype: str) -> None:
        self._subject, self._dtype = subject, dtype
        self._case = subject.file.case_inputs(case)
        components = subject.file.contents.components
        self._components = {component.name: component for component in components}
        self.order = {component.name: n for n, component in enumerate(components)}
        port = subject.port(dtype)
        assert isinstance(port, Isolated), "an isolated result came from a port that runs components"
        self._port = port
        inputs = {name: self._case[name] for name in TRACE_INPUTS}
        self._where = f"({case} {dtype} {Mode.END_TO_END}), to explain it"
        with subject.watch.over(f"a whole run {self._where}"):
            outputs = port.trace(inputs, frozenset(self._components))
        self._pass = Forward.of(subject.file, case, dtype, outputs)
        self._values = self._pass.values

    def traced(self, component: Component) -> bool:
        return self._pass.has(component)

    def consistent(self, component: Component) -> bool:
        """Whether the component, fed from where it should be, gives what the forward pass had."""
        return self._gives(component, {})

    def find_edge(self, component: Component) -> Edge | None:
        """The nearest other place that one argument may come from, and those that hold the same."""
        for argument, right in component.inputs.items():
            candidates = list(self._candidates(component, argument, right))
            for name, value in candidates:
                if self._gives(component, {argument: value}):
                    alike = [
                        other for other, same in candidates if other != name and np.array_equal(same, value)
                    ]
                    return Edge(component, argument, right, (name, *alike))
        return self._exchanged(component)

    def _exchanged(self, component: Component) -> Edge | None:
        """Two arguments that were mixed up."""
        for (a, first), (b, second) in combinations(component.inputs.items(), 2):
            if self._gives(component, {a: self._values[second], b: self._values[first]}):
                return Edge(component, f"{a} and {b}", f"{first} and {second}", (f"{second} and {first}",))
        return None

    def change(self, component: Component) -> str:
        """What is known of an input that no component put out."""
        if component.step == "residual":
            for argument, right in component.inputs.items():
                other = next(self._values[s] for a, s in component.inputs.items() if a != argument)
                taken = self._values[component.name].astype(np.float64) - other.astype(np.float64)
                given = self._values[right].astype(np.float64)
                factor = float(np.vdot(given, taken) / np.vdot(given, given))
                if self._gives(component, {argument: (given * factor).astype(self._values[right].dtype)}):
                    return f"it is right by itself, and takes {argument} from {right} times {factor:.6g}"
        sources = ", ".join(component.inputs.values())
        return (
            f"it is right by itself, and is not fed what {sources} put out, nor what any other component did: "
            "something is done to it on the way"
        )

    def _gives(self, component: Component, changed: Mapping[str, Array]) -> bool:
        try:
            with self._subject.watch.over(f"{component.name} {self._where}"):
                return self._pass.fed(self._port, component, changed).verdict is Verdict.PASS
        except (
            Exception
        ):  # whatever a port raises for an input that it was not made for: then it was not that one
            return False

    def _candidates(self, component: Component, argument: str, right: str) -> Iterator[tuple[str, Array]]:
        """Everything that could have been taken instead, nearest first: of this run, and as the reference had it."""
        if right.startswith(CASE):
            yield from self._instead_of_case(right)
            return
        axes = STEPS[component.step or ""].arguments[argument]
        shape = self._values[right].shape
        here = self.order[component.name]
        names = sorted(
            (n for n in self._components if n != right and self._components[n].composite_of is None),
            key=lambda name: (abs(self.order[name] - here), name),
        )
        for name in names:
            if name in self._values and name != component.name:
                value = _as(self._values[name], self._components[name].axes, shape, axes)
                if value is not None:
                    yield name, value
        for name in names:
            golden = self._pass.goldens.get(name)
            recorded = None if golden is None else self._subject.file.output(golden)
            if recorded is not None and not np.array_equal(recorded, self._values.get(name, np.nan)):
                value = _as(recorded, self._components[name].axes, shape, axes)
                if value is not None:
                    yield f"what the reference had at {name}", value

    def _instead_of_case(self, right: str) -> Iterator[tuple[str, Array]]:
        """What ports make up themselves instead of taking what they were given."""
        positions, mask = self._case["positions"], self._case["attention_mask"]
        columns = np.broadcast_to(np.arange(positions.shape[1], dtype=positions.dtype), positions.shape)
        made: dict[str, list[tuple[str, Array]]] = {
            "case.positions": [
                ("the columns of the batch", columns),
                (
                    "the real tokens, counted from 0",
                    np.maximum(np.cumsum(mask, axis=1) - 1, 0).astype(positions.dtype),
                ),
                ("zero", positions * 0),
            ],
            "case.attention_mask": [("a mask without padding", np.ones_like(mask))],
        }
        yield from made.get(right, [])


def _as(value: Array, axes: str, shape: tuple[int, ...], wanted: str) -> Array | None:
    """A tensor put into other axes, token by token: heads apart or together, before or behind tokens."""
    letters, target = axes.split(), wanted.split()
    if "T" not in letters or "B" not in letters or value.size != np.prod(shape):
        return None
    place = next((n for n, letter in enumerate(target) if letter in "TS"), None)
    if place is None or value.shape[letters.index("T")] != shape[place]:
        return None
    by_token = np.moveaxis(value, letters.index("T"), 1)
    rest = [size for n, size in enumerate(shape) if n not in (0, place)]
    return np.moveaxis(by_token.reshape(*by_token.shape[:2], *rest), 1, place)


def _grouped(edges: Sequence[Edge]) -> list[list[Edge]]:
    """Edges of one part of the model that lead to the same wrong place, together."""
    groups: dict[tuple[str, str, tuple[str, ...]], list[Edge]] = {}
    for edge in edges:
        part = edge.component.name.rpartition(".")[0] or edge.component.name
        groups.setdefault((part, edge.right, edge.found), []).append(edge)
    return list(groups.values())


def _say(subject: Subject, edges: Sequence[Edge]) -> str:
    """`layers.2.mlp gets its input from ...`: a part by its name, if all of it that takes this in is concerned."""
    first = edges[0]
    part = first.component.name.rpartition(".")[0]
    takers = [
        component.name
        for component in subject.file.contents.components
        if component.name.rpartition(".")[0] == part and first.right in component.inputs.values()
    ]
    names = [edge.component.name for edge in edges]
    composite = any(c.name == part and c.composite_of for c in subject.file.contents.components)
    found = first.found[0] if len(first.found) == 1 else f"one of {', '.join(first.found)}"
    if composite and len(names) > 1 and set(names) == set(takers):
        return f"{part} gets its input from {found}, not from {first.right}"
    verb = "gets" if len(names) == 1 else "get"
    return f"{', '.join(names)} {verb} {first.argument} from {found}, not from {first.right}"
