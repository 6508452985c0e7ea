"""A port with one fault planted through the contract, and a port that remembers, so that many faults cost little.

numpy only.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from graphlib import TopologicalSorter
from typing import Any

import numpy as np

from harness.audit.fault import (
    Answer,
    Call,
    DoesNotApply,
    EditedCheckpoint,
    EditedConfig,
    Lacking,
    Method,
    Overrides,
    Patch,
    Planting,
    Rewired,
)
from harness.errors import GoldensError, first_line
from harness.model import CASE, Component
from harness.replay.port import Isolated, NotOffered, Port, Weighted, wired

Array = Any
Arrays = Mapping[str, Array]
Wiring = Mapping[str, Mapping[str, str]]
"""Component -> {argument: source}; a source is a component, or `case.positions` and the like."""

_NOT_SEEN = "the fault cannot be planted, and nobody would see it"


class Remembering:
    """A port that runs a component once for the same input arrays, and answers in numpy arrays nobody can write to.

    The same arrays are the same objects. What is remembered keeps its inputs alive, so that no other array comes to
    have their identity. What was not asked for longest is forgotten first, once more than `limit` bytes are held.
    """

    def __init__(self, port: Isolated, limit: int = 2**30) -> None:
        self.port = port
        self._limit, self._held = limit, 0
        self._answers: OrderedDict[tuple[Any, ...], tuple[Arrays, Array]] = OrderedDict()

    def wire(self, components: Iterable[Component]) -> None:
        wired(self.port, components)

    def trace(self, inputs: Arrays, names: Collection[str]) -> Arrays:
        return self.port.trace(inputs, names)

    def apply(self, name: str, inputs: Arrays) -> Arrays:
        key = (name, *((argument, id(inputs[argument])) for argument in sorted(inputs)))
        if key not in self._answers:
            answer = np.asarray(self.port.apply(name, inputs)[name]).view()
            answer.flags.writeable = False
            self._answers[key] = (dict(inputs), answer)
            self._held += _nbytes(inputs, answer)
        self._answers.move_to_end(key)
        answer = self._answers[key][1]
        while self._held > self._limit:
            self._held -= _nbytes(*self._answers.popitem(last=False)[1])
        return {name: answer}


def bare(port: Port) -> Port:
    """The port that is remembered of, which may offer more than can be remembered."""
    return port.port if isinstance(port, Remembering) else port


def _nbytes(inputs: Arrays, answer: Array) -> int:
    return answer.nbytes + sum(np.asarray(x).nbytes for x in inputs.values())


class Planted:
    """A port with one fault.

    An `Answer` or `Rewired` needs a port that runs components by themselves: as a whole, it is these run one after
    another in the golden file's wiring, so that a fault spreads as in any model. `Overrides` need a port whose
    parameters can be replaced, and run as that port runs.

    names: the components that are planted, in forward order
    parameters: the reference's, by name (`harness.weights.Weights`)
    Raises DoesNotApply, and Lacking where the port offers too little for a fault that applies.
    """

    def __init__(
        self,
        port: Port,
        components: Sequence[Component],
        planting: Answer | Overrides | Rewired,
        parameters: Arrays,
    ) -> None:
        self._port, self._planting, self._parameters = port, planting, parameters
        self._components = {component.name: component for component in components}
        self._wiring = wiring(components)
        self._overridden: Port | None = None
        if isinstance(planting, Overrides):
            weighted = _weighted(port)
            if weighted is None:
                _some(holders(_overrides(planting, parameters, components), components))
                raise Lacking(f"the port does not offer `with_parameters`: {_NOT_SEEN}")
            overrides = _overrides(planting, weighted.parameters(), components)
            self.names = _some(holders(overrides, components))
            self._overridden = _replaced(weighted, overrides)
            return
        self.names = planted(planting, components)
        if isinstance(planting, Rewired):
            self._wiring = {
                name: {**sources, **planting.edges(components).get(name, {})}
                for name, sources in self._wiring.items()
            }
            if not self.traces:
                raise DoesNotApply(f"{_incomplete(self._wiring)}: a fault in the wiring cannot be planted")
        if not isinstance(port, Isolated):
            raise Lacking(f"the port does not offer `apply`: {_NOT_SEEN}")

    def wire(self, components: Iterable[Component]) -> None:
        for port in (self._port, self._overridden):
            if port is not None:
                wired(port, components)

    @property
    def overridden(self) -> Port | None:
        """The port with other parameters, as the port itself made it; None for a fault in something else."""
        return self._overridden

    @property
    def traces(self) -> bool:
        """Whether it can be run as a whole: not when the golden file lacks a component that another one needs."""
        return self._overridden is not None or not _incomplete(self._wiring)

    def apply(self, name: str, inputs: Arrays) -> Arrays:
        port = self._port
        if self._overridden is not None and name in self.names:
            port = self._overridden
        if not isinstance(port, Isolated):
            raise NotOffered(name)
        if isinstance(self._planting, Answer) and name in self.names:
            return {name: _changed(port, self._components[name], inputs, self._planting, self._parameters)}
        return port.apply(name, inputs)

    def trace(self, inputs: Arrays, names: Collection[str]) -> Arrays:
        """Raises GoldensError where components cannot be run one after another."""
        if self._overridden is not None:
            return self._overridden.trace(inputs, names)
        if not self.traces:
            raise GoldensError(
                f"{_incomplete(self._wiring)}: record every component, or replay this fault isolated only"
            )
        values = {f"{CASE}{name}": value for name, value in inputs.items()}
        wanted = [name for name in names if name in self._wiring]
        for name in _in_order(self._wiring, wanted):
            sources = {
                argument: self._split(name, argument, values[source])
                for argument, source in self._wiring[name].items()
            }
            composite = self._components[name].composite_of
            values[name] = values[composite] if composite else self._run(name, sources)
        return {name: values[name] for name in wanted}

    def _split(self, name: str, argument: str, value: Array) -> Array:
        """With heads apart where they are so in the right source and not in the wrong one: a norm may be left out."""
        right = self._components.get(self._components[name].inputs.get(argument, ""))
        if right is None or np.ndim(value) + 1 != len(right.axes.split()):
            return value
        head_dim = self._parameters[right.parameters["weight"]].shape[-1]
        return value.reshape(*value.shape[:-1], -1, head_dim)

    def _run(self, name: str, inputs: Arrays) -> Array:
        try:
            return np.asarray(self.apply(name, inputs)[name])
        except NotOffered as error:
            raise GoldensError(
                f"the port does not run {name} by itself, so a fault cannot be followed through it: "
                "offer it, or replay this fault isolated only"
            ) from error


def planted(
    planting: Planting,
    components: Sequence[Component],
    parameters: Arrays | None = None,
    facts: Sequence[str] = (),
) -> tuple[str, ...]:
    """The components that a fault is in, in forward order, and the facts.

    parameters: the port's own, which only `Overrides` needs; facts: the names of those that the fault is in
    Raises DoesNotApply when there are none.
    """
    if isinstance(planting, Overrides):
        return _some(holders(_overrides(planting, parameters or {}, components), components))
    if isinstance(planting, Rewired):
        edges = planting.edges(components)
        return _some(component.name for component in components if edges.get(component.name))
    return _some([*(component.name for component in components if _matches(planting, component)), *facts])


def _some(names: Iterable[str]) -> tuple[str, ...]:
    found = tuple(names)
    if not found:
        raise DoesNotApply("the golden file has no component or fact that the fault is in")
    return found


def holders(names: Collection[str], components: Sequence[Component]) -> tuple[str, ...]:
    """The components that have any of these parameters, in forward order."""
    return tuple(c.name for c in components if not set(names).isdisjoint(c.parameters.values()))


def wiring(components: Sequence[Component]) -> Wiring:
    """Where every component takes its inputs from, as recorded; a composite takes in what it hands out."""
    return {c.name: {"output": c.composite_of} if c.composite_of else c.inputs for c in components}


def _matches(
    planting: Answer | EditedConfig | EditedCheckpoint | Method | Patch, component: Component
) -> bool:
    named = component.step is not None and any(fnmatchcase(component.name, glob) for glob in planting.at)
    return named and (not isinstance(planting, Answer) or planting.when(component))


def _incomplete(edges: Wiring) -> str:
    """The first gap in the wiring, in words; nothing when there is none."""
    for name, sources in edges.items():
        for source in sources.values():
            if not source.startswith(CASE) and source not in edges:
                return f"{name} takes in {source}, which is not in the golden file"
    return ""


def _in_order(edges: Wiring, names: Collection[str]) -> Iterator[str]:
    """These components and all that they need, each after what it takes in."""
    needed: dict[str, list[str]] = {}
    pending = list(names)
    while pending:
        name = pending.pop()
        if name not in needed:
            needed[name] = [source for source in edges[name].values() if not source.startswith(CASE)]
            pending.extend(needed[name])
    return iter(TopologicalSorter(needed).static_order())


def _weighted(port: Port) -> Weighted | None:
    port = bare(port)
    return port if isinstance(port, Weighted) else None


def _overrides(planting: Overrides, parameters: Arrays, components: Sequence[Component]) -> Arrays:
    overrides = planting.edit(Converted(parameters, np.asarray), components)
    if not overrides:
        raise DoesNotApply("the port has no parameters that the fault changes")
    return overrides


def _replaced(port: Weighted, overrides: Arrays) -> Port:
    try:
        changed = port.with_parameters(overrides)
    except (ValueError, LookupError) as error:
        raise GoldensError(f"the port refused other parameters: {first_line(error)}") from error
    if not isinstance(changed, Port):
        raise GoldensError(f"`with_parameters` gave a {type(changed).__name__}, which has no method 'trace'")
    return changed


def _changed(
    port: Isolated, component: Component, inputs: Arrays, planting: Answer, parameters: Arrays
) -> Array:
    """What the component answers with the fault, in the dtype in which it answers without."""

    def run(**replaced: Array) -> Array:
        typed = {name: np.asarray(x).astype(np.asarray(inputs[name]).dtype) for name, x in replaced.items()}
        return np.asarray(port.apply(component.name, {**inputs, **typed})[component.name])

    def run_wide(**replaced: Array) -> Array:
        return wide(run(**replaced))

    roles = _Roles(component, parameters)
    call = Call(component, {name: wide(x) for name, x in inputs.items()}, run_wide, roles)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(planting.change(call)).astype(run().dtype)


def wide(x: Array) -> Array:
    """Floating-point numbers of any dtype as float64; whole numbers as they are."""
    x = np.asarray(x)
    return x if x.dtype.kind in "biu" else x.astype(np.float64)


class Converted(Mapping[str, Array]):
    """The same arrays, each converted when it is asked for: all at once may not fit in memory."""

    def __init__(self, arrays: Arrays, convert: Callable[[Array], Array]) -> None:
        self._arrays, self._convert = arrays, convert

    def __getitem__(self, name: str) -> Array:
        return self._convert(self._arrays[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)


class _Roles(Mapping[str, Array]):
    """The parameters of one component by role, float64, read when asked for."""

    def __init__(self, component: Component, parameters: Arrays) -> None:
        self._names, self._parameters = component.parameters, parameters

    def __getitem__(self, role: str) -> Array:
        return wide(self._parameters[self._names[role]])

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
