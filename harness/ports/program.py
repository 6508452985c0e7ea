"""A model's forward pass as one flat list of operations, and the part of it between some values and another.

The pass is traced with `jax.disable_jit`, so that compiled functions in it are written out and scans are unrolled: what
happens in each layer is then there by itself. A component run alone is a slice of this list: it is the code of the
forward pass, whatever that is.
"""

from collections import ChainMap
from collections.abc import Callable, Collection, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from harness.ports.calls import Marks, Site

Array = Any
Variable = int
_WRITTEN_OUT = {
    "pjit", "jit", "closed_call", "core_call", "remat", "remat2", "checkpoint",
    "custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr",
}  # fmt: skip
_BODIES = ("jaxpr", "call_jaxpr", "fun_jaxpr")
_OF_PARAMETERS = {"slice", "squeeze", "dynamic_slice"}
"""What picks a layer out of a stack: done before a slice is compiled, so that all layers are one program."""


@dataclass(frozen=True)
class Operation:
    """inputs: variables, or literals; outputs: variables; context: the settings of jax that it was traced under."""

    primitive: Any
    params: Mapping[str, Any]
    context: Any
    inputs: tuple[Variable | Literal, ...]
    outputs: tuple[Variable, ...]


@dataclass
class Program:
    """What was traced, and where in it the values are that somebody asks for.

    parameters, inputs: variables by name; constants: arrays that the model holds by itself, by variable
    found: the variables of each marked place, in the order in which they come by; named: of the model's own names
    outputs: what the traced function returns, flat
    """

    operations: list[Operation] = field(default_factory=list)
    parameters: dict[str, Variable] = field(default_factory=dict)
    inputs: dict[str, Variable] = field(default_factory=dict)
    constants: dict[Variable, Array] = field(default_factory=dict)
    found: dict[Site, list[Variable]] = field(default_factory=dict)
    named: dict[str, list[Variable]] = field(default_factory=dict)
    shapes: list[Any] = field(default_factory=list)
    outputs: list[Variable] = field(default_factory=list)

    @cached_property
    def places(self) -> dict[Variable, int]:
        """Which operation puts out a variable; for a program that is complete."""
        return {output: place for place, each in enumerate(self.operations) for output in each.outputs}

    @cached_property
    def parameter_names(self) -> dict[Variable, str]:
        """The parameters by variable; for a program that is complete."""
        return {variable: name for name, variable in self.parameters.items()}

    def variable(self, aval: Any) -> Variable:
        self.shapes.append(aval)
        return len(self.shapes) - 1


@dataclass(frozen=True)
class Slice:
    """Operations between `leaves` and `outputs`. before: those that pick a layer's parameters out of a stack."""

    before: tuple[Operation, ...]
    operations: tuple[Operation, ...]
    leaves: tuple[Variable, ...]
    outputs: tuple[Variable, ...]


def trace(
    function: Callable[..., Any], parameters: Mapping[str, Array], inputs: Mapping[str, Any], marks: Marks
) -> Program:
    """`function(parameters, inputs)` as a program. Arrays may be given by their shapes alone."""

    def without_jit(parameters: Mapping[str, Array], inputs: Mapping[str, Any]) -> Any:
        with jax.disable_jit():
            return function(parameters, inputs)

    closed = jax.make_jaxpr(without_jit)(dict(parameters), dict(inputs))
    program = Program()
    leaves = iter([program.variable(var.aval) for var in closed.jaxpr.invars])
    # dicts are flattened in the order of their sorted keys
    program.parameters = {name: next(leaves) for name in sorted(parameters)}
    program.inputs = {name: next(leaves) for name in sorted(inputs)}
    environment = dict(
        zip(closed.jaxpr.invars, [*program.parameters.values(), *program.inputs.values()], strict=True)
    )
    program.outputs = [
        _as_variable(program, atom)
        for atom in _write_out(program, marks, closed.jaxpr, closed.consts, environment)
    ]
    _leave_out_unused(program)
    return program


def _leave_out_unused(program: Program) -> None:
    """Flax runs the body of a Linen scan once more than there are layers, and uses nothing of what it gives."""
    _, used = _needed(program, program.outputs)
    for places in [*program.found.values(), *program.named.values()]:
        places[:] = [place for place in places if place in used] or places


def _as_variable(program: Program, atom: Any) -> Variable:
    if isinstance(atom, int):
        return atom
    variable = program.variable(atom.aval)
    program.constants[variable] = jax.numpy.asarray(atom.val, atom.aval.dtype)
    return variable


def _write_out(
    program: Program, marks: Marks, jaxpr: Jaxpr, consts: Sequence[Array], environment: dict[Any, Any]
) -> list[Variable | Literal]:
    """Append a jaxpr's operations, those of what it calls in their place. Returns what it puts out."""

    def read(atom: Any) -> Variable | Literal:
        return atom if isinstance(atom, Literal) else environment[atom]

    for var, value in zip(jaxpr.constvars, consts, strict=True):
        environment[var] = program.variable(var.aval)
        program.constants[environment[var]] = value
    for eqn in jaxpr.eqns:
        inputs = [read(atom) for atom in eqn.invars]
        body = next((eqn.params[name] for name in _BODIES if name in eqn.params), None)
        if eqn.primitive.name in _WRITTEN_OUT and body is not None:
            inner = body.jaxpr if isinstance(body, ClosedJaxpr) else body
            given = dict(zip(inner.invars, inputs, strict=True))
            outputs = _write_out(program, marks, inner, getattr(body, "consts", ()), given)
            environment.update(zip(eqn.outvars, outputs, strict=True))
            continue
        if eqn.primitive.name == "name" and isinstance(inputs[0], Variable):
            named, mark = eqn.params["name"], marks.site_of(eqn.params["name"])
            places = (
                program.named.setdefault(named, []) if mark is None else program.found.setdefault(mark, [])
            )
            places.append(inputs[0])
            # the same value: who takes it unmarked takes what is marked
            environment[eqn.outvars[0]] = inputs[0]
            continue
        results = tuple(program.variable(var.aval) for var in eqn.outvars)
        program.operations.append(Operation(eqn.primitive, eqn.params, eqn.ctx, tuple(inputs), results))
        environment.update(zip(eqn.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _needed(
    program: Program, outputs: Sequence[Variable], known: Collection[Variable] = ()
) -> tuple[list[Operation], set[Variable]]:
    """The operations that `outputs` need where some variables are known, in order, and all variables that they need."""
    needed: set[Variable] = set()
    kept: set[int] = set()
    asked = list(outputs)
    while asked:
        variable = asked.pop()
        if variable in needed or variable in known:
            continue
        needed.add(variable)
        place = program.places.get(variable)
        if place is not None and place not in kept:
            kept.add(place)
            asked += [x for x in program.operations[place].inputs if isinstance(x, int)]
    return [program.operations[place] for place in sorted(kept)], needed


def sliced(program: Program, outputs: Sequence[Variable], cuts: Sequence[Variable]) -> Slice:
    """What computes `outputs` from `cuts`, which are what they are, whatever computes them."""
    known = set(cuts)
    kept, _ = _needed(program, outputs, known)
    fixed = ChainMap[Variable, Any]({}, program.parameter_names, program.constants)
    before, operations = [], []
    for operation in kept:
        variables = [x for x in operation.inputs if isinstance(x, int)]
        if operation.primitive.name in _OF_PARAMETERS and variables and all(x in fixed for x in variables):
            fixed.update(dict.fromkeys(operation.outputs))
            before.append(operation)
        else:
            operations.append(operation)
    made = {output for operation in operations for output in operation.outputs}
    used = [x for operation in operations for x in operation.inputs if isinstance(x, int)]
    leaves = tuple(dict.fromkeys(x for x in [*used, *outputs] if x not in made or x in known))
    return Slice(tuple(before), tuple(operations), leaves, tuple(outputs))


def signature(program: Program, part: Slice) -> str:
    """The same for slices that are the same program, of whatever layer."""
    names: dict[Variable, int] = {}

    def told(atom: Variable | Literal) -> str:
        if isinstance(atom, int):
            return f"v{names.setdefault(atom, len(names))}"
        return f"{atom.val!r}:{atom.aval}"

    lines = [f"{told(leaf)}:{program.shapes[leaf]}" for leaf in part.leaves]
    for operation in part.operations:
        inputs = " ".join(told(x) for x in operation.inputs)
        outputs = " ".join(f"{told(x)}:{program.shapes[x]}" for x in operation.outputs)
        lines.append(f"{outputs} = {operation.primitive.name} {sorted(operation.params.items())} {inputs}")
    return "\n".join([*lines, " ".join(told(x) for x in part.outputs)])


def run_operations(operations: Sequence[Operation], values: MutableMapping[Variable, Array]) -> None:
    """Run operations; what they put out is added to `values`."""
    for operation in operations:
        inputs = [values[x] if isinstance(x, int) else x.val for x in operation.inputs]
        found = _bind(operation, inputs)
        results = found if operation.primitive.multiple_results else [found]
        values.update(zip(operation.outputs, results, strict=True))


def _bind(operation: Operation, inputs: Sequence[Array]) -> Any:
    params = operation.primitive.get_bind_params(dict(operation.params))
    functions, params = params if isinstance(params, tuple) else ((), params)  # a pair, before jax 0.10
    with operation.context.manager:
        return operation.primitive.bind(*functions, *inputs, **params)


def compiled(part: Slice, options: Mapping[str, Any]) -> Callable[..., list[Array]]:
    """A slice's operations as a compiled function of its leaves, in their order."""

    def component(*leaves: Array) -> list[Array]:
        values = dict(zip(part.leaves, leaves, strict=True))
        run_operations(part.operations, values)
        return [values[output] for output in part.outputs]

    return jax.jit(component, compiler_options=dict(options))
