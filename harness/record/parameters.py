"""The reference's parameters, which need not fit in memory in the dtype that is recorded.

A checkpoint that is loaded in the dtype it is stored in is mapped into memory: what is not looked at is not read. Where
it is recorded in another dtype, a part at a time is cast before it runs (a layer, the embedding, the head), and what
was cast is dropped behind it.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

Module = Any


class Parameters:
    """Those of a model, by the reference's names, in a dtype. layers: what is cast as a whole."""

    def __init__(self, model: Module, layers: tuple[Module, ...], dtype: torch.dtype) -> None:
        self.dtype, self._model = dtype, model
        self._parts: dict[int, list[Any]] = {}
        self._stored: dict[int, list[Tensor]] = {}
        self._users: Counter[int] = Counter()
        if any(parameter.dtype != dtype for parameter in model.parameters()):
            self._cast_as_they_run(layers)

    def __getitem__(self, name: str) -> Tensor:
        return self.part(name, slice(None))

    def part(self, name: str, rows: slice) -> Tensor:
        return self._model.get_parameter(name)[rows].to(self.dtype)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._model.get_parameter(name).shape)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(parameter.shape) for name, parameter in self._model.named_parameters()}

    @contextmanager
    def held(self, part: Module) -> Iterator[None]:
        """A layer's own are cast while the context is open, whoever runs it."""
        self._cast(part)
        try:
            yield
        finally:
            self._drop(part)

    def _cast_as_they_run(self, layers: tuple[Module, ...]) -> None:
        inside = {id(module) for layer in layers for module in layer.modules()}
        for module in self._model.modules():
            own = list(module.parameters(recurse=module in layers))
            if not own or (id(module) in inside and module not in layers):
                continue
            self._parts[id(module)] = own
            module.register_forward_pre_hook(lambda part, _: self._cast(part))
            module.register_forward_hook(lambda part, _, __: self._drop(part), always_call=True)

    def _cast(self, part: Module) -> None:
        """For one more user."""
        own = self._parts.get(id(part))
        if own is None:
            return
        self._users[id(part)] += 1
        if self._users[id(part)] == 1:
            self._stored[id(part)] = [parameter.data for parameter in own]
            with torch.inference_mode(False), torch.no_grad():
                for parameter in own:
                    parameter.data = parameter.data.to(self.dtype)

    def _drop(self, part: Module) -> None:
        """The last user lets go of what was cast."""
        own = self._parts.get(id(part))
        if own is None:
            return
        self._users[id(part)] -= 1
        if not self._users[id(part)]:
            for parameter, stored in zip(own, self._stored.pop(id(part)), strict=True):
                parameter.data = stored
