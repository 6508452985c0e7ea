"""What there is in a model: its variables, its modules, and, where it can be run, the values of every call."""

import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from flax import nnx

from harness.draft.load import Loaded
from harness.draft.names import LAYERS
from harness.draft.reference import Reference
from harness.errors import GoldensError, told
from harness.ports import Param, Tap
from harness.ports.calls import Marks, Site
from harness.ports.program import Program, trace
from harness.ports.tap import LAYER

Array = Any
Shape = tuple[int, ...]
_OF_JAX = {
    "jax.nn": ("silu", "swish", "gelu", "softmax"),
    "jax.numpy": ("repeat", "cos", "sin"),
    "flax.nnx": ("silu", "swish", "gelu", "softmax"),
    "flax.linen": ("silu", "swish", "gelu", "softmax"),
}
"""Functions that models call as steps of their own, where they look them up."""
_NOT_OF_MODELS = {"jax", "flax", "harness", "__main__"}
_OF_FLAX = {*nnx.List.__mro__, *nnx.Dict.__mro__}
_NUMBER = re.compile(r"\d+(?=[._]|$)")


@dataclass(frozen=True)
class Stored:
    """A variable. path: {n} for a layer's number; layers: in how many layers it is; 0 where its path has no {n}."""

    path: str
    shape: Shape
    layers: int

    @property
    def where(self) -> Param:
        return Param(self.path)


@dataclass(frozen=True)
class Seen:
    """A value of a call. path: names of the call, and of its argument or result; times: how often it comes by.

    shape, times: None where the model was not run, so that a module is known by its path alone
    """

    path: str
    where: Tap
    shape: Shape | None
    times: int | None


@dataclass(frozen=True)
class Inspected:
    variables: list[Stored]
    seen: list[Seen]


def inspect(loaded: Loaded, run: Callable[..., Array] | None, reference: Reference) -> Inspected:
    """A pass is traced, by shapes, and not computed. Raises GoldensError where that cannot be."""
    shapes = {path: tuple(np.shape(value)) for path, value in loaded.model.variables.items()}
    numbers = Numbers(shapes, reference.layers)
    variables = [
        Stored(path, shapes[next(iter(each.values()))], len(each) if LAYER in path else 0)
        for path, each in numbers.grouped(shapes).items()
    ]
    if run is None:
        return Inspected(variables, list(_modules(loaded, shapes, numbers)))
    inputs = _inputs(reference.batch, reference.tokens)
    methods = Marks(lambda _, function: not function, (), _methods(loaded))
    program = _traced(loaded, run, inputs, methods)
    # once more for functions: which of several calls one is, is counted within methods that are marked
    functions = Marks(lambda _, function: bool(function), _functions(loaded, run))
    with_functions = _traced(loaded, run, inputs, functions)
    seen = [
        *_values(program, numbers),
        *_values(with_functions, numbers),
        *_named(program),
    ]
    return Inspected(variables, seen)


class Numbers:
    """Which numbers in paths are those of layers: all from 0 on are there, in this place.

    Where there are others than the reference has, they are layers if they are called so.
    """

    def __init__(self, paths: Iterable[str], layers: int) -> None:
        found = defaultdict(set)
        for path in paths:
            for number in _NUMBER.finditer(path):
                found[path[: number.start()]].add(int(number[0]))
        called = {place for place in found if re.split(r"[._]", place.rstrip("._"))[-1].lower() in LAYERS}
        every = {place for place, numbers in found.items() if numbers == set(range(len(numbers)))}
        self._places = {
            place for place in every if place in called or (layers > 1 and len(found[place]) == layers)
        }

    def of(self, path: str) -> tuple[str, int | None]:
        """A path with {n}, and the number that stood there."""
        for number in _NUMBER.finditer(path):
            if path[: number.start()] in self._places:
                return f"{path[: number.start()]}{LAYER}{path[number.end() :]}", int(number[0])
        return path, None

    def grouped(self, paths: Iterable[str]) -> dict[str, dict[int, str]]:
        """By path with {n}, the paths of each layer; without any, none but itself, by a number that is no layer's."""
        groups: dict[str, dict[int, str]] = defaultdict(dict)
        for path in paths:
            pattern, number = self.of(path)
            groups[pattern][-1 if number is None else number] = path
        return groups


def _inputs(batch: int, tokens: int) -> dict[str, np.ndarray]:
    texts = np.zeros((batch, tokens), np.int32)
    return {**dict.fromkeys(("token_ids", "positions", "attention_mask"), texts), "query_index": texts[0]}


def _traced(
    loaded: Loaded, run: Callable[..., Array], inputs: Mapping[str, np.ndarray], marks: Marks
) -> Program:
    def function(variables: Mapping[str, Array], inputs: Mapping[str, Array]) -> Array:
        model = loaded.model.made(variables)
        with loaded.model.marked(model, marks):
            return run(model, **inputs)

    try:
        program = trace(function, loaded.model.variables, inputs, marks)
    except Exception as error:  # a stranger's model may raise anything
        raise GoldensError(
            f"model {loaded.spec!r} cannot be run: called as run(model, token_ids=, positions=, attention_mask=, "
            f"query_index=), it raised {told(error)}"
        ) from error
    shapes = [tuple(program.shapes[output].shape) for output in program.outputs]
    texts = inputs["token_ids"].shape
    if len(shapes) != 1 or len(shapes[0]) != 3 or shapes[0][:2] != texts:
        raise GoldensError(
            f"model {loaded.spec!r} is run to {', '.join(map(str, shapes))}, where logits (B T V) were expected: "
            f"token_ids (B T) were {texts}"
        )
    return program


def _methods(loaded: Loaded) -> set[str]:
    """All methods of an NNX model's modules that Flax itself does not bring. Linen marks all that there are."""
    modules = nnx.iter_modules(loaded.root) if isinstance(loaded.root, nnx.Module) else ()
    classes = {owner for _, module in modules for owner in type(module).__mro__} - _OF_FLAX
    return {name for owner in classes for name in vars(owner) if not name.startswith("__")}


def _functions(loaded: Loaded, run: Callable[..., Array]) -> list[str]:
    """The functions of the packages that the model is from, where they are looked up, and some of JAX."""
    homes = {type(loaded.root).__module__, loaded.spec.partition(":")[0], run.__module__}
    packages = {home.partition(".")[0] for home in homes} - _NOT_OF_MODELS - sys.stdlib_module_names

    def of_model(name: str) -> bool:
        return name.partition(".")[0] in packages

    own = [
        f"{module_name}:{name}"
        for module_name, module in list(sys.modules.items())
        if of_model(module_name)
        for name, value in list(vars(module).items())
        if value is not run and callable(value) and not isinstance(value, type)
        if of_model(str(getattr(value, "__module__", ""))) and hasattr(value, "__name__")
    ]
    of_jax = [f"{module}:{name}" for module, names in _OF_JAX.items() for name in names]
    return [*own, *(each for each in of_jax if each.partition(":")[0] in sys.modules)]


def _modules(loaded: Loaded, paths: Iterable[str], numbers: Numbers) -> Iterator[Seen]:
    if isinstance(loaded.root, nnx.Module):
        modules = [
            ".".join(map(str, path))
            for path, module in nnx.iter_modules(loaded.root)
            if type(module) not in (nnx.List, nnx.Dict)
        ]
    else:
        modules = [path.rpartition(".")[0] for path in paths]
    for path in numbers.grouped(filter(None, modules)):
        yield Seen(path, Tap(path), None, None)


def _values(program: Program, numbers: Numbers) -> Iterator[Seen]:
    """Of every call in every layer, once in each, what it takes in and what it puts out."""
    groups: dict[Site, list[list[int]]] = defaultdict(list)
    for site, places in program.found.items():
        groups[replace(site, scope=numbers.of(site.scope)[0])].append(places)
    for site, layers in groups.items():
        once = LAYER not in site.scope or all(len(places) == 1 for places in layers)
        if once:
            name = site.function.rpartition(":")[2]
            key = site.key if isinstance(site.key, str) else ""
            path = ".".join(filter(None, (site.scope, name, key)))
            shape = tuple(program.shapes[layers[0][0]].shape)
            yield Seen(path, _tap(site), shape, sum(map(len, layers)))


def _tap(site: Site) -> Tap:
    argument, result = (site.key, None) if site.argument else (None, site.key)
    return Tap(site.scope, site.function, site.nth, argument, result)


def _named(program: Program) -> Iterator[Seen]:
    """Values that the model names by itself."""
    for name, places in program.named.items():
        yield Seen(name, Tap(value=name), tuple(program.shapes[places[0]].shape), len(places))
