"""What is recorded as a module: its steps are not known, so it can be evaluated by nothing but itself.

In float64 it is a copy of the module, run so that whatever its code casts to float32 stays float64. What rounding may
do to it is modelled backwards (Wilkinson 1963): whatever the order of its sums and the places of its roundings, what
comes out is what exact arithmetic gives for parameters that are moved a little. They are moved at random.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from harness.kinds.step import U32
from harness.kinds.table import STEPS
from harness.model import UNIT_ROUNDOFF, Component
from harness.record.decoder import Decoder, Module, module_of
from harness.record.torch_arrays import TorchArrays

FLOAT64 = TorchArrays(torch.float64)
ROUNDINGS = 4
"""How many roundings to the model's dtype stand for those between two of a module's parameters."""


def component(
    name: str, module: Module, inputs: Mapping[str, str], because: str, axes: str, alone: bool = False
) -> Component:
    """A part that is recorded as it is. alone: each token's output is made of that token's `x` and nothing else."""
    kind = name.rpartition(".")[2]
    return Component(
        name=name,
        kind="layer" if kind.isdecimal() else kind,
        axes=axes,
        step="module" if alone else None,
        inputs=dict(inputs),
        settings={"module": type(module).__name__, "because": because},
    )


def is_module(component: Component) -> bool:
    return "because" in component.settings


def is_alone(component: Component) -> bool:
    """A module that has an isolated floor, and can be replayed by itself."""
    return component.step is not None and STEPS[component.step].opaque


def code_of(module: Module) -> Any:
    """The modeling file that a module's class stands in."""
    return sys.modules[type(module).__module__]


def place_of(component: Component) -> str:
    """The name of the module that hands the component out."""
    angles = component.name.startswith("rotary_emb.")
    return "rotary_emb" if angles and is_module(component) else component.name


@dataclass(frozen=True)
class Call:
    """How the reference calls a module in a whole pass. sources: id of a tensor among `given` -> its component"""

    given: tuple[tuple[Any, ...], dict[str, Any]]
    sources: Mapping[int, str]

    def with_inputs(self, values: Mapping[str, Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The same call with other inputs, by component, and in float64."""

        def changed(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            leaf = values.get(self.sources.get(id(leaf), ""), leaf)
            return leaf.double() if leaf.is_floating_point() else leaf

        args, kwargs = tree_map(changed, self.given)
        return args, kwargs


@torch.inference_mode()
def calls(decoder: Decoder, components: list[Component], case: Mapping[str, Tensor]) -> dict[str, Call]:
    """component -> how it is called, of those that take in more than a token."""
    wanted = {place_of(c): c for c in components if is_module(c) and not is_alone(c)}
    found: dict[str, Call] = {}
    angles: dict[int, str] = {}
    if not wanted:
        return found
    with _hooked(decoder, wanted, found, angles):
        decoder.model(
            input_ids=case["case.token_ids"],
            attention_mask=case["case.attention_mask"],
            position_ids=case["case.positions"],
            use_cache=False,
        )
    return {c.name: found[place_of(c)] for c in components if place_of(c) in found}


@contextmanager
def _hooked(
    decoder: Decoder, wanted: Mapping[str, Component], found: dict[str, Call], angles: dict[int, str]
) -> Iterator[None]:
    def entered(component: Component) -> Callable[..., None]:
        def hook(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            sources = dict(angles)
            if "x" in component.inputs:
                sources[id(taken_in(args, kwargs))] = component.inputs["x"]
            found[place_of(component)] = Call((args, {**kwargs, **_uncached(kwargs)}), sources)

        return hook

    def turned(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        for part, value in zip(("cos", "sin"), output, strict=True):
            angles[id(value)] = angle_name(args, kwargs, part)

    handles = [
        module_of(decoder, place).register_forward_pre_hook(entered(component), with_kwargs=True)
        for place, component in wanted.items()
    ]
    handles.append(decoder.base.rotary_emb.register_forward_hook(turned, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _uncached(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: None for name in kwargs if name == "past_key_values"}


def angle_name(args: tuple[Any, ...], kwargs: Mapping[str, Any], part: str) -> str:
    """The component of what rotary_emb hands out, called for all layers or for a type of them."""
    layer_type = kwargs.get("layer_type", args[2] if len(args) > 2 else None)
    return f"rotary_emb.{part}" if layer_type is None else f"rotary_emb.{layer_type}.{part}"


def taken_in(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """What a module is called with first."""
    value: Tensor = args[0] if args else kwargs["hidden_states"]
    return value


def put_out(component: Component, output: Any) -> Tensor:
    """The one of a module's outputs that the component is."""
    if component.name.endswith(".sin"):
        output = output[1]
    value: Tensor = output[0] if isinstance(output, tuple) else output
    return value


class Copy:
    """A module in float64. dtype: the one that the reference has."""

    def __init__(self, decoder: Decoder, component: Component, dtype: str) -> None:
        self._component, self._u = component, UNIT_ROUNDOFF[dtype]
        module = module_of(decoder, place_of(component))
        self._module = deepcopy(module).double()
        tensors = (*module.named_parameters(), *module.named_buffers())
        self._sizes = {name: _size(tensor) for name, tensor in tensors if tensor.is_floating_point()}

    def exact(self, call: Call, values: Mapping[str, Tensor]) -> Tensor:
        return self._run({}, call, values)

    def disturbed(self, call: Call, values: Mapping[str, Tensor], noise: torch.Generator) -> Tensor:
        """As rounding could have it, in another order than the reference's."""
        own = dict((*self._module.named_parameters(), *self._module.named_buffers()))
        moved = {
            name: own[name] * (1 + size * torch.randn(own[name].shape, generator=noise, dtype=torch.float64))
            for name, size in self._sizes.items()
        }
        output = self._run(moved, call, values)
        sigma = FLOAT64.rounding(self._u, output).sqrt()
        return output + sigma * torch.randn(output.shape, generator=noise, dtype=torch.float64)

    def _run(self, tensors: Mapping[str, Tensor], call: Call, values: Mapping[str, Tensor]) -> Tensor:
        args, kwargs = call.with_inputs(values)
        with _InFloat64():
            output = functional_call(self._module, dict(tensors), args, kwargs)
        return put_out(self._component, output)


def _size(tensor: Tensor) -> float:
    """The relative size of the change that stands for rounding: of products and of their sum in float32."""
    own = UNIT_ROUNDOFF.get(str(tensor.dtype).removeprefix("torch."), U32)
    terms = tensor.shape[-1] if tensor.dim() > 1 else 1
    return float((ROUNDINGS * own**2 / 3 + U32**2 * terms / 9) ** 0.5)


class _InFloat64(TorchFunctionMode):
    """Whatever code asks for float32 or less gives float64: norms and softmax do so by themselves."""

    _CASTS = (torch.Tensor.float, torch.Tensor.half, torch.Tensor.bfloat16)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in self._CASTS:
            return args[0].double()
        widened = {name: _widest(value) for name, value in (kwargs or {}).items()}
        return func(*map(_widest, args), **widened)


def _widest(value: Any) -> Any:
    narrow = isinstance(value, torch.dtype) and value.is_floating_point
    return torch.float64 if narrow else value
