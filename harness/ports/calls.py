"""Mark what goes in and out of calls while a model is traced, so that its values can be found in the program by name.

A model is not edited. NNX modules have the methods of their classes replaced for as long as the tracing lasts, Linen
modules are intercepted, and plain functions are replaced where the model looks them up.
"""

import importlib
import inspect
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Any
from unittest.mock import patch

import jax
from flax import linen, nnx
from jax.ad_checkpoint import checkpoint_name

Arguments = dict[str, Any]
_PATH = "_goldens_path"
_MARK = "goldens/"


@dataclass(frozen=True)
class Site:
    """A place where values go by. scope: a module's path, with its method unless that is `__call__`.

    function: one that is called in it, or nothing, if it is itself the call; nth: which of several such calls within
    one call of what is around it; key: of an argument its name, of a result its place or key, None if there is one
    """

    scope: str
    function: str
    nth: int
    argument: bool = False
    key: str | int | None = None


@dataclass
class Marks:
    """What was marked in one tracing.

    wanted: whether calls of a scope, or of a function in it, are marked
    functions, methods: those that are looked at; `__call__` always is
    arguments: the names of what each call takes in, in order
    """

    wanted: Callable[[str, str], bool]
    functions: Collection[str] = ()
    methods: Collection[str] = ()
    sites: list[Site] = field(default_factory=list)
    arguments: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    _frames: list[tuple[str, Counter[tuple[str, str]]]] = field(default_factory=lambda: [("", Counter())])

    def site_of(self, mark: str) -> Site | None:
        """What a mark in a program stands for; None for a name that the model gave itself."""
        return self.sites[int(mark.removeprefix(_MARK))] if mark.startswith(_MARK) else None

    def of_module(
        self, path: str, method: str, run: Callable[..., Any], names: Sequence[str], *args: Any, **kwargs: Any
    ) -> Any:
        """Run a method of the module at `path`, and mark what goes in and out."""
        scope = path if method == "__call__" else f"{path}.{method}".lstrip(".")
        nth = self._count(scope, "")
        self._frames.append((path, Counter()))
        try:
            return self._marked(Site(scope, "", nth), run, names, args, kwargs)
        finally:
            self._frames.pop()

    def of_function(
        self, function: str, run: Callable[..., Any], names: Sequence[str], *args: Any, **kwargs: Any
    ) -> Any:
        scope = self._frames[-1][0]
        call = Site(scope, function, self._count(scope, function))
        return self._marked(call, run, names, args, kwargs)

    def _count(self, scope: str, function: str) -> int:
        counter = self._frames[-1][1]
        counter[scope, function] += 1
        return counter[scope, function] - 1

    def _marked(
        self,
        call: Site,
        run: Callable[..., Any],
        names: Sequence[str],
        args: Sequence[Any],
        kwargs: Arguments,
    ) -> Any:
        if not self.wanted(call.scope, call.function):
            return run(*args, **kwargs)
        names = [*names[: len(args)], *map(str, range(len(names), len(args)))]
        self.arguments[call.scope, call.function] = [*names, *kwargs]

        def mark(value: Any, argument: bool, key: str | int | None) -> Any:
            return self._mark(value, replace(call, argument=argument, key=key))

        args = tuple(mark(value, True, name) for name, value in zip(names, args, strict=True))
        kwargs = {name: mark(value, True, name) for name, value in kwargs.items()}
        found = run(*args, **kwargs)
        if isinstance(found, dict):
            return {key: mark(value, False, key) for key, value in found.items()}
        if type(found) in (tuple, list):
            return type(found)(mark(value, False, place) for place, value in enumerate(found))
        return mark(found, False, None)

    def _mark(self, value: Any, site: Site) -> Any:
        if not isinstance(value, jax.Array):
            return value
        self.sites.append(site)
        return checkpoint_name(value, f"{_MARK}{len(self.sites) - 1}")


def _names(function: Callable[..., Any]) -> list[str]:
    """The names of what a function takes by place; none where it does not say."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [parameter.name for parameter in parameters if parameter.kind in kinds]


@contextmanager
def functions(marks: Marks) -> Iterator[None]:
    """Mark calls of plain functions, named as `MODULE:NAME`. Raises LookupError for one that there is not."""
    with ExitStack() as stack:
        for spec in marks.functions:
            module_name, _, name = spec.partition(":")
            try:
                module = importlib.import_module(module_name)
                function = getattr(module, name)
            except (ImportError, AttributeError, ValueError) as error:
                raise LookupError(f"there is no function {spec!r}, to be written as MODULE:NAME") from error
            stack.enter_context(patch.object(module, name, _function(marks, spec, function)))
        yield


def _function(marks: Marks, spec: str, function: Callable[..., Any]) -> Callable[..., Any]:
    names = _names(function)

    @wraps(function)
    def marked(*args: Any, **kwargs: Any) -> Any:
        return marks.of_function(spec, function, names, *args, **kwargs)

    return marked


@contextmanager
def nnx_modules(marks: Marks, model: nnx.Module) -> Iterator[None]:
    """Mark calls of methods of an NNX model's modules, which is the copy that is traced.

    Its modules are told their paths in an attribute, which they keep where a transformation takes them apart.
    """
    classes = set()
    for path, module in nnx.iter_modules(model):
        setattr(module, _PATH, ".".join(map(str, path)))
        classes.add(type(module))
    running: set[tuple[int, str]] = set()
    with ExitStack() as stack:
        for owner in classes:
            for method in {"__call__", *marks.methods}:
                function = inspect.getattr_static(owner, method, None)
                if inspect.isfunction(function):
                    stack.enter_context(
                        patch.object(owner, method, _method(marks, method, function, running))
                    )
        yield


def _method(
    marks: Marks, method: str, function: Callable[..., Any], running: set[tuple[int, str]]
) -> Callable[..., Any]:
    """running: the modules whose method is being run, of whatever class: one may call that of the class above it."""
    names = _names(function)[1:]

    @wraps(function)
    def marked(module: Any, *args: Any, **kwargs: Any) -> Any:
        path, call = getattr(module, _PATH, None), (id(module), method)
        if path is None or call in running:
            return function(module, *args, **kwargs)
        running.add(call)
        try:
            bound = function.__get__(module)
            return marks.of_module(path, method, bound, names, *args, **kwargs)
        finally:
            running.discard(call)

    return marked


@contextmanager
def linen_modules(marks: Marks) -> Iterator[None]:
    """Mark calls of all methods of Linen modules."""

    def intercept(run: Any, args: Any, kwargs: Any, context: Any) -> Any:
        function = getattr(type(context.module), context.method_name, None)
        if function is None:  # what Linen itself runs in a module's name
            return run(*args, **kwargs)
        path, names = ".".join(context.module.path), _names(function)[1:]
        return marks.of_module(path, context.method_name, run, names, *args, **kwargs)

    with linen.intercept_methods(intercept):
        yield
