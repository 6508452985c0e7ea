"""A port of any model: the whole of it, and its components, from one tracing and a table of where its values are."""

from collections import ChainMap
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, Self
from weakref import WeakValueDictionary

import jax
import jax.numpy as jnp
import numpy as np

from harness.kinds.table import STEPS
from harness.model import LOGITS, Component
from harness.ports import parameters as tables
from harness.ports.calls import Marks
from harness.ports.gathered import gathered
from harness.ports.inputs import Lengths, as_taken, refuse_loose
from harness.ports.layout import LayoutError, to_port, to_reference
from harness.ports.loaded import Loaded
from harness.ports.located import Locations, TapError, marks_for
from harness.ports.program import Program, Slice, Variable, compiled, run_operations, signature, sliced, trace
from harness.ports.tap import Param, Tap
from harness.replay.port import NotOffered

Array = Any
Arrays = Mapping[str, Any]
EVERY_ROUNDING = {"xla_allow_excess_precision": False}
"""Without it XLA leaves out roundings to half precision between operations that it fuses."""

OPERATIONS = 40_000
"""So many, in all programs together, are kept with what was compiled of them: a program for each shape of the inputs.

Of a model of 24 layers, those are some twenty programs, and about a gigabyte.
"""


@dataclass(frozen=True)
class Model:
    """A model, whatever it is written in. variables: its parameters by path, each read when it is asked for.

    shapes: of each, shape and dtype, without reading any
    made: of variables, what `run` is given; marked: a context in which the calls of what was made are marked
    """

    variables: Mapping[str, Array]
    shapes: Mapping[str, Any]
    made: Callable[[Mapping[str, Array]], Any]
    marked: Callable[[Any, Marks], AbstractContextManager[None]]


@dataclass(frozen=True)
class Ready:
    """A compiled part of a program. parameters: those that it needs, as they are called in the program."""

    part: Slice
    parameters: Mapping[Variable, str]
    function: Callable[..., list[Array]]


@dataclass(frozen=True)
class Alone:
    """A component by itself. taken: argument -> where it goes in, and how it lies there; tap: how the output lies"""

    taken: Mapping[str, tuple[Variable, Tap]]
    ready: Ready
    tap: Tap


@dataclass(frozen=True)
class Traced:
    """A program, where in it the values of the table are, and what was compiled of it, by what was asked for."""

    program: Program
    places: Locations
    ready: dict[Any, Ready] = field(default_factory=dict)
    alone: dict[Any, Alone] = field(default_factory=dict)


@dataclass(frozen=True)
class Missing:
    """What is handed out where there is no such value, or in another layout: nobody can make an array of it."""

    error: Exception

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise self.error


class ModelPort:
    """A port made of a model and tables.

    run: called as `run(model, token_ids=, positions=, attention_mask=, query_index=)`, gives the logits (B T V)
    components: component -> where its value is, {n} in both for a layer's number; without `lm_head`, the logits are
        what `run` gives
    sizes: of the letters in layouts that arrays do not tell, `{"K": 2, "G": 7, "D": 64}`; a letter has one size in all
    parameters: parameter of the reference -> the model's; without it, they are not offered
    precision: of products, as `jax.default_matmul_precision` takes it; None for what the model asks for itself
    compiler_options: as `jax.jit` takes them
    """

    def __init__(
        self,
        model: Model,
        run: Callable[..., Array],
        components: Mapping[str, Tap],
        *,
        sizes: Mapping[str, int] = MappingProxyType({}),
        parameters: Mapping[str, Param] | None = None,
        precision: str | None = None,
        compiler_options: Mapping[str, Any] = EVERY_ROUNDING,
    ) -> None:
        self._model, self._loaded = model, Loaded(model.variables, model.shapes)
        self._call, self._components, self._sizes = run, dict(components), dict(sizes)
        self._parameters, self._precision, self._options = parameters, precision, dict(compiler_options)
        self._wiring: dict[str, Component] = {}
        self._traced: dict[Any, Traced] = {}
        self._functions: WeakValueDictionary[str, Callable[..., list[Array]]] = WeakValueDictionary()

    @property
    def model(self) -> Any:
        """The model itself, with the port's parameters."""
        return self._model.made(self._loaded.of(self._loaded))

    def wire(self, components: Iterable[Component]) -> None:
        """Told by the harness: what each component takes in, and from where."""
        self._wiring = {component.name: component for component in components}

    def trace(self, inputs: Arrays, names: Collection[str]) -> dict[str, Array]:
        """The whole model; those of `names` that the table has."""
        return self.values(self._whole(*np.shape(inputs["token_ids"])), names, inputs)[0]

    def apply(self, name: str, inputs: Arrays) -> dict[str, Array]:
        """One component: the part of the forward pass between what it takes in and what it puts out.

        Raises NotOffered for what the table does not have, and TapError where the pass computes it otherwise.
        """
        if not self._wiring:
            raise ValueError(
                "the port was not told what its components take in: a port around it hands on `wire(components)`"
            )
        component = self._wiring.get(name)
        if component is None or component.step is None:
            raise NotOffered(name)
        axes = self._axes(component, inputs)
        lengths = Lengths.of(axes, inputs)
        traced = self._whole(lengths.batch, lengths.tokens)
        alone = self._alone(traced, component, inputs)
        given: dict[Variable, Array] = {}
        for argument, value in inputs.items():
            cut, where = alone.taken[argument]
            padded = lengths.padded(np.asarray(value), axes[argument])
            value = to_port(padded, where, self._sizes, given.get(cut))
            given[cut] = as_taken(value, traced.program.shapes[cut], name, argument)
        (value,) = self._run(traced, alone.ready, given)
        return {name: lengths.cut(to_reference(gathered(value), alone.tap, self._sizes), component.axes)}

    def expect(self, name: str) -> None:
        """Begin to read the parameters of a component that is going to be run soon, if a table says which they are."""
        component = self._wiring.get(name)
        if component is not None:
            named = component.parameters.values()
            self._loaded.read_ahead([self._paths[name] for name in named if name in self._paths])

    @cached_property
    def _paths(self) -> dict[str, str]:
        """Parameter of the reference -> the variable that it is in."""
        return {row.name: row.path for row in tables.rows(self._parameters or {}, self._loaded.shapes)}

    def _alone(self, traced: Traced, component: Component, arguments: Collection[str]) -> Alone:
        """How the component is run by itself; found when it is first asked for."""
        key = (component.name, *arguments)
        if key not in traced.alone:
            output, tap = self._output(traced, component.name)
            taken = {argument: traced.places.taken(component, argument) for argument in arguments}
            cuts = list(dict.fromkeys(cut for cut, _ in taken.values()))
            ready = self._compiled(traced, key, [output], cuts)
            refuse_loose(traced.program, ready.part, cuts, component)
            traced.alone[key] = Alone(taken, ready, tap)
        return traced.alone[key]

    def _axes(self, component: Component, inputs: Arrays) -> dict[str, list[str]]:
        """The axes of each argument: as the step names them, or, where heads come apart already, what puts it out."""
        found = {}
        for argument, source in component.inputs.items():
            axes = STEPS[component.step or ""].arguments[argument].split()
            there = self._wiring.get(source)
            found[argument] = (
                axes if there is None or len(axes) == np.ndim(inputs[argument]) else there.axes.split()
            )
        return found

    def parameters(self) -> Mapping[str, np.ndarray]:
        """All parameters, by name and in the layout of the reference; those that the table lacks by their own."""
        return tables.Read(self._table(), self._loaded, self._sizes)

    def with_parameters(self, overrides: Arrays) -> Self:
        """A port with some parameters replaced, which shares the others, and what was compiled."""
        changed = tables.replaced(self._table(), self._loaded, overrides, self._sizes)
        twin = copy(self)
        twin._loaded = self._loaded.replaced(changed)
        return twin

    def _table(self) -> Mapping[str, Param]:
        if self._parameters is None:
            raise NotOffered("the adapter declares no table of parameters")
        return self._parameters

    def _whole(self, batch: int, tokens: int) -> Traced:
        """The forward pass over so many texts of so many tokens."""
        texts = np.zeros((batch, tokens), np.int32)
        inputs = dict.fromkeys(("token_ids", "positions", "attention_mask"), texts)
        return self.traced(self._call, {**inputs, "query_index": texts[0]}, (batch, tokens))

    def traced(self, run: Callable[..., Any], inputs: Mapping[str, Any], key: Any) -> Traced:
        """`run(model, **inputs)` as a program; traced when it is first asked for by this key, and kept for a while."""
        if key not in self._traced:
            self._forget_oldest()
            marks = marks_for(self._components)

            def function(variables: Mapping[str, Array], inputs: Arrays) -> Any:
                model = self._model.made(variables)
                with self._model.marked(model, marks):
                    return run(model, **inputs)

            with jax.default_matmul_precision(self._precision) if self._precision else nullcontext():
                program = trace(function, self._loaded.shapes, inputs, marks)
            self._traced[key] = Traced(program, Locations(program, marks, self._components))
        self._traced[key] = self._traced.pop(key)  # the latest is last
        return self._traced[key]

    def _forget_oldest(self) -> None:
        """Programs that were not asked for lately, where there are too many."""
        while sum(len(each.program.operations) for each in self._traced.values()) > OPERATIONS:
            del self._traced[next(iter(self._traced))]

    def values(
        self, traced: Traced, names: Collection[str], inputs: Arrays, also: Sequence[Variable] = ()
    ) -> tuple[dict[str, Array], list[Array]]:
        """Those of `names` that the table has, in the reference's axes, and other values as they are."""
        found, missing = self._found(
            traced, [name for name in sorted(names) if name == LOGITS or traced.places.find(name)]
        )
        given = {traced.program.inputs[name]: jnp.asarray(value) for name, value in inputs.items()}
        outputs = [*(variable for variable, _ in found.values()), *also]
        values = self._run(traced, self._compiled(traced, (*found, len(also)), outputs, list(given)), given)
        handed_out = {
            name: self._handed_out(value, tap)
            for (name, (_, tap)), value in zip(found.items(), values, strict=False)
        }
        return {**handed_out, **missing}, values[len(found) :]

    def _handed_out(self, value: Array, tap: Tap) -> Any:
        """A value in the reference's axes; where it does not lie as the table says, why."""
        try:
            return to_reference(gathered(value), tap, self._sizes)
        except LayoutError as error:
            return Missing(error)

    def _found(
        self, traced: Traced, names: Iterable[str]
    ) -> tuple[dict[str, tuple[Variable, Tap]], dict[str, "Missing"]]:
        """Where the values of the table are; of those that the model has not, why."""
        found, missing = {}, {}
        for name in names:
            try:
                found[name] = self._output(traced, name)
            except TapError as error:
                missing[name] = Missing(error)
        return found, missing

    def _output(self, traced: Traced, name: str) -> tuple[Variable, Tap]:
        """Where a component's value is. Raises NotOffered where the table has none."""
        found = traced.places.find(name)
        if found is not None:
            return traced.places.variable(*found, name), found[0]
        if name != LOGITS:
            raise NotOffered(name)
        return traced.program.outputs[0], Tap()

    def _compiled(
        self, traced: Traced, asked: Any, outputs: Sequence[Variable], cuts: Sequence[Variable]
    ) -> Ready:
        """A part of a program, compiled once for all that are the same."""
        if asked not in traced.ready:
            part = sliced(traced.program, outputs, cuts)
            name = signature(traced.program, part)
            function = self._functions.get(name)
            if function is None:
                self._functions[name] = function = compiled(part, self._options)
            traced.ready[asked] = Ready(part, _parameters(traced.program, part), function)
        return traced.ready[asked]

    def _run(self, traced: Traced, ready: Ready, given: Mapping[Variable, Array]) -> list[Array]:
        loaded = self._loaded.of(ready.parameters.values())
        held = {variable: loaded[path] for variable, path in ready.parameters.items()}
        values = ChainMap({**held, **given}, traced.program.constants)
        run_operations(ready.part.before, values)
        return ready.function(*(values[leaf] for leaf in ready.part.leaves))


def _parameters(program: Program, part: Slice) -> dict[Variable, str]:
    used = (*part.leaves, *(x for operation in part.before for x in operation.inputs if isinstance(x, int)))
    names = program.parameter_names
    return {variable: names[variable] for variable in used if variable in names}
