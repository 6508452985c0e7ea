"""The model that somebody names, as an adapter takes it."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flax import linen, nnx

from harness.errors import GoldensError, told
from harness.ports import linen_model, nnx_model
from harness.ports.port import Model
from harness.replay.port import imported

_EXPECTED = "expected an nnx.Module, a pair (linen module, variables), or a function that gives one of these"


@dataclass(frozen=True)
class Loaded:
    """A model. helper: the function of `harness.ports` that took it; call: the arguments of a function that gave it."""

    spec: str
    model: Model
    helper: str
    call: str
    root: Any


def named(spec: str, what: str) -> Any:
    """The object that `MODULE:NAME` names. Raises GoldensError where there is none."""
    module_name, _, name = spec.partition(":")
    if not module_name or not name.isidentifier() or module_name.startswith("."):
        raise GoldensError(f"{what} {spec!r} names nothing: write it as MODULE:NAME")
    module = imported(module_name, f"{what} {spec!r}")
    if not hasattr(module, name):
        raise GoldensError(f"{what} {spec!r}: module {module_name!r} has no {name!r}")
    return getattr(module, name)


def run_of(spec: str) -> Callable[..., Any]:
    """The function that runs a model."""
    found = named(spec, "run")
    if not callable(found):
        raise GoldensError(f"run {spec!r} is a {type(found).__name__}, and cannot be called")
    function: Callable[..., Any] = found
    return function


def load(spec: str, checkpoint: Callable[[], str], dtype: str) -> Loaded:
    """The model that `spec` names. checkpoint: the folder of the recorded one, asked for by a factory.

    Raises GoldensError for what is no model.
    """
    found, call = named(spec, "model"), ""
    if callable(found) and not isinstance(found, nnx.Module):
        found, call = _called(spec, found, checkpoint, dtype)
    try:
        if isinstance(found, nnx.Module):
            return Loaded(spec, nnx_model(found), "nnx_model", call, found)
        module, variables = found if isinstance(found, tuple) and len(found) == 2 else (None, None)
        if isinstance(module, linen.Module) and isinstance(variables, Mapping):
            return Loaded(spec, linen_model(module, variables), "linen_model", call, module)
    except (TypeError, AttributeError) as error:  # variables without values, as `eval_shape` gives them
        raise GoldensError(f"model {spec!r} has variables that are no arrays: {told(error)}") from error
    raise GoldensError(f"model {spec!r} is a {type(found).__name__}: {_EXPECTED}")


def _called(
    spec: str, function: Callable[..., Any], checkpoint: Callable[[], str], dtype: str
) -> tuple[Any, str]:
    """What a function gives that takes nothing, or a checkpoint's folder and a dtype, and how it was called."""
    parameters = inspect.signature(function).parameters.values()
    wanted = [
        each.name
        for each in parameters
        if each.default is each.empty and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    ]
    folders = [name for name in wanted if name != "dtype"]
    of_checkpoint = len(folders) == 1 and any(each.name == "dtype" for each in parameters)
    if wanted and not of_checkpoint:
        raise GoldensError(
            f"model {spec!r} takes {', '.join(wanted)}: {_EXPECTED}, called without arguments or with "
            "(checkpoint, dtype=...)"
        )
    try:
        if of_checkpoint:
            return function(checkpoint(), dtype=dtype), "(checkpoint, dtype=dtype)"
        return function(), "()"
    except GoldensError:
        raise
    except Exception as error:  # a stranger's function may raise anything
        raise GoldensError(f"model {spec!r} could not be made: it raised {told(error)}") from error
