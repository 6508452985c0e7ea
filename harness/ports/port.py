"""A port of any model: the whole of it, and its components, from one tracing and a table of where its values are."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from harness.kinds.table import STEPS
from harness.model import LOGITS, Component
from harness.ports import parameters as tables
from harness.ports.calls import Marks
from harness.ports.layout import LayoutError, to_port, to_reference
from harness.ports.located import Locations, TapError, marks_for
from harness.ports.program import Program, Slice, Variable, compiled, run_operations, signature, sliced, trace
from harness.ports.tap import Param, Tap
from harness.replay.port import NotOffered

Array = Any
Arrays = Mapping[str, Any]
EVERY_ROUNDING = {"xla_allow_excess_precision": False}
"""Without it XLA leaves out roundings to half precision between operations that it fuses."""


@dataclass(frozen=True)
class Model:
    """A model, whatever it is written in. variables: its parameters by path.

    made: of variables, what `run` is given; marked: a context in which the calls of what was made are marked
    """

    variables: Mapping[str, Array]
    made: Callable[[Mapping[str, Array]], Any]
    marked: Callable[[Any, Marks], AbstractContextManager[None]]


@dataclass(frozen=True)
class Traced:
    """A program, and where in it the values of the table are."""

    program: Program
    places: Locations


@dataclass(frozen=True)
class Ready:
    """A compiled part of a program."""

    part: Slice
    function: Callable[..., list[Array]]


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
        self._model, self._call, self._components, self._sizes = model, run, dict(components), dict(sizes)
        self._parameters, self._precision, self._options = parameters, precision, dict(compiler_options)
        self._wiring: dict[str, Component] = {}
        self._traced: dict[Any, Traced] = {}
        self._functions: dict[str, Callable[..., list[Array]]] = {}
        self._ready: dict[Any, Ready] = {}

    @property
    def model(self) -> Any:
        """The model itself, with the port's parameters."""
        return self._model.made(self._model.variables)

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
        output, tap = self._output(traced, name)
        given: dict[Variable, Array] = {}
        for argument, value in inputs.items():
            cut, where = traced.places.taken(component, argument)
            padded = lengths.padded(np.asarray(value), axes[argument])
            value = to_port(padded, where, self._sizes, given.get(cut))
            given[cut] = _as_taken(value, traced.program.shapes[cut], name, argument)
        ready = self._compiled(traced, ("apply", name, tuple(given)), [output], list(given))
        _refuse_loose(traced.program, ready.part, given, component)
        (value,) = self._run(traced, ready, given)
        return {name: lengths.cut(to_reference(value, tap, self._sizes), component.axes)}

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
        return tables.Read(self._table(), self._model.variables, self._sizes)

    def with_parameters(self, overrides: Arrays) -> Self:
        """A port with some parameters replaced, which shares the others, and what was compiled."""
        changed = tables.replaced(self._table(), self._model.variables, overrides, self._sizes)
        twin = copy(self)
        twin._model = replace(self._model, variables={k: jnp.asarray(v) for k, v in changed.items()})
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
        """`run(model, **inputs)` as a program; traced when it is first asked for by this key."""
        if key not in self._traced:
            marks = marks_for(self._components)

            def function(variables: Mapping[str, Array], inputs: Arrays) -> Any:
                model = self._model.made(variables)
                with self._model.marked(model, marks):
                    return run(model, **inputs)

            with jax.default_matmul_precision(self._precision) if self._precision else nullcontext():
                program = trace(function, self._model.variables, inputs, marks)
            self._traced[key] = Traced(program, Locations(program, marks, self._components))
        return self._traced[key]

    def values(
        self, traced: Traced, names: Collection[str], inputs: Arrays, also: Sequence[Variable] = ()
    ) -> tuple[dict[str, Array], list[Array]]:
        """Those of `names` that the table has, in the reference's axes, and other values as they are."""
        found, missing = self._found(
            traced, [name for name in names if name == LOGITS or traced.places.find(name)]
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
            return to_reference(value, tap, self._sizes)
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
        key = (id(traced), asked)
        if key not in self._ready:
            part = sliced(traced.program, outputs, cuts)
            name = signature(traced.program, part)
            self._functions.setdefault(name, compiled(part, self._options))
            self._ready[key] = Ready(part, self._functions[name])
        return self._ready[key]

    def _run(self, traced: Traced, ready: Ready, given: Mapping[Variable, Array]) -> list[Array]:
        variables = self._model.variables
        held = {variable: variables[path] for path, variable in traced.program.parameters.items()}
        values = {**traced.program.constants, **held, **given}
        run_operations(ready.part.before, values)
        return ready.function(*(values[leaf] for leaf in ready.part.leaves))


def _as_taken(value: Array, wanted: Any, name: str, argument: str) -> Array:
    """An input as the program takes it. Raises TapError for another shape."""
    if value.shape != wanted.shape:
        raise TapError(
            f"{name} takes {argument} as {tuple(wanted.shape)} in this model, and would be given {value.shape}: "
            "declare its layout in `takes`"
        )
    return jnp.asarray(value, wanted.dtype)


def _refuse_loose(
    program: Program, part: Slice, given: Mapping[Variable, Array], component: Component
) -> None:
    """A component is what its inputs make it. Raises TapError where the model makes it of more.

    Where it makes it of less, the numbers tell.
    """
    inputs = {variable: name for name, variable in program.inputs.items()}
    loose = [inputs[leaf] for leaf in part.leaves if leaf in inputs and leaf not in given]
    if loose:
        raise TapError(
            f"{component.name} takes in {', '.join(component.inputs)}, but this model computes it from "
            f"{', '.join(loose)}: say in `takes` where these are"
        )


@dataclass(frozen=True)
class Lengths:
    """How many tokens a component is run on, and how many the pass must have: as many queries as keys."""

    batch: int
    queries: int
    keys: int

    @classmethod
    def of(cls, axes: Mapping[str, Sequence[str]], inputs: Arrays) -> Self:
        found = {
            letter: size
            for argument, value in inputs.items()
            for letter, size in zip(axes[argument], np.shape(value), strict=True)
        }
        return cls(found.get("B", 1), found.get("T", 1), found.get("S", found.get("T", 1)))

    @property
    def tokens(self) -> int:
        return max(self.queries, self.keys)

    def padded(self, value: Array, axes: Sequence[str]) -> Array:
        """With rows of zeros where the pass has more tokens than the component is run on."""
        widths = [
            (0, self.tokens - size if letter in "TS" else 0)
            for letter, size in zip(axes, value.shape, strict=True)
        ]
        return np.pad(value, widths) if any(after for _, after in widths) else value

    def cut(self, value: Array, axes: str) -> Array:
        """Without these rows."""
        if self.queries == self.keys:
            return value
        sizes = {"T": self.queries, "S": self.keys}
        return value[tuple(slice(sizes.get(letter)) for letter in axes.split())]
