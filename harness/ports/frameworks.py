"""Models as a port takes them: of Flax NNX, of Flax Linen, and plain functions. None is edited."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen, nnx
from flax.traverse_util import flatten_dict, unflatten_dict

from harness.ports.calls import Marks, functions, linen_modules, nnx_modules
from harness.ports.port import Model

Array = Any
Variables = Mapping[str, Array]


def nnx_model(model: nnx.Module, loaded: Variables | None = None) -> Model:
    """An NNX model. Parameters are named by their paths in it: `layers.0.attn.q_proj.kernel`.

    loaded: where `model` has shapes alone (`nnx.eval_shape`), they by path, each to be asked for when it is needed
    """
    graph, state = nnx.split(model)
    leaves = {".".join(map(str, path)): (path, leaf) for path, leaf in nnx.to_flat_state(state)}

    def made(variables: Variables) -> nnx.Module:
        filled = [(leaves[name][0], leaves[name][1].replace(value)) for name, value in variables.items()]
        return nnx.merge(graph, nnx.from_flat_state(filled))

    @contextmanager
    def marked(copy: nnx.Module, marks: Marks) -> Iterator[None]:
        with functions(marks), nnx_modules(marks, copy):
            yield

    own = {name: leaf if loaded is not None else leaf[...] for name, (_, leaf) in leaves.items()}
    return _model(own, loaded, made, marked)


def linen_model(module: linen.Module, variables: Mapping[str, Any], loaded: Variables | None = None) -> Model:
    """A Linen module and its variables, as `module.apply` takes them: it is called as `module.apply` is, without them.

    Parameters are named by their paths, without `params`.
    loaded: where `variables` are shapes alone (`jax.eval_shape`), they by path, each to be asked for when it is needed
    """
    flat = flatten_dict(dict(variables), sep=".")
    full = {name.removeprefix("params."): name for name in flat}

    def made(given: Variables) -> Callable[..., Any]:
        return partial(
            module.apply, unflatten_dict({full[name]: value for name, value in given.items()}, sep=".")
        )

    @contextmanager
    def marked(_: Any, marks: Marks) -> Iterator[None]:
        with functions(marks), linen_modules(marks):
            yield

    return _model({name: flat[path] for name, path in full.items()}, loaded, made, marked)


def function_model(function: Callable[..., Any], variables: Any, loaded: Variables | None = None) -> Model:
    """A plain function of variables, any pytree of arrays, and of whatever else: it is called without them.

    Parameters are named by their paths in the pytree.
    loaded: where `variables` are shapes alone (`jax.eval_shape`), they by path, each to be asked for when it is needed
    """
    leaves, tree = jax.tree_util.tree_flatten_with_path(variables)
    named = {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}

    def made(given: Variables) -> Callable[..., Any]:
        return partial(function, jax.tree_util.tree_unflatten(tree, [given[name] for name in named]))

    def marked(_: Any, marks: Marks) -> AbstractContextManager[None]:
        return functions(marks)

    return _model(named, loaded, made, marked)


def _model(variables: Mapping[str, Any], loaded: Variables | None, made: Any, marked: Any) -> Model:
    """variables: arrays, or shapes where they are `loaded` from elsewhere."""
    if loaded is not None:
        return Model(loaded, _shapes(variables), made, marked)
    own = {name: jnp.asarray(leaf) for name, leaf in variables.items()}
    return Model(own, own, made, marked)


def _shapes(leaves: Mapping[str, Any]) -> dict[str, jax.ShapeDtypeStruct]:
    return {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in leaves.items()}
