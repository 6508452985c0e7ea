"""Steps in float64, some rows at a time: on what the reference gave them, exactly, and in disturbed chains."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import linear

from harness.kinds.step import Evaluation
from harness.kinds.table import STEPS
from harness.model import CASE, Component
from harness.record.spread import Spread
from harness.record.tiles import cut, rows_of
from harness.record.torch_arrays import TorchArrays
from harness.record.watch import Captured

FLOAT64 = TorchArrays(torch.float64)


@contextmanager
def to_a_few_digits() -> Iterator[None]:
    """Products of float32 may take their operands in bfloat16, where the processor is quick at that.

    Eight bits are enough for how large rounding is, never for an error that is measured.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@dataclass(frozen=True)
class Weights:
    """Parameters of a component for a part of its outputs, by role, in the reference's dtype."""

    outputs: slice
    parameters: Mapping[str, Tensor]

    @cached_property
    def wide(self) -> Mapping[str, Tensor]:
        return {role: value.double() for role, value in self.parameters.items()}

    @cached_property
    def narrow(self) -> Tensor:
        return self.parameters["weight"].float()

    @cached_property
    def squares(self) -> Tensor:
        return self.narrow.square()


class Factor:
    """What a product takes in, which is the same for all parts of its outputs.

    given: what the reference gave it, at the rows `positions`; None where nothing is evaluated by itself
    """

    def __init__(self, x: Spread, given: Tensor | None, positions: list[int]) -> None:
        self.x, self._positions = x, positions
        self.squares = x.exact.float().square_()
        self.apart = None if given is None else torch.sub(given, self.at(x.exact)).float()

    def at(self, value: Tensor) -> Tensor:
        """At the rows where the reference was recorded."""
        every = len(self._positions) == value.shape[1]
        return value if every else value[:, self._positions]


class Product:
    """A part of a product's outputs."""

    def __init__(self, component: Component, factor: Factor, weights: Weights, draws: int) -> None:
        x, self._settings, self._own = factor.x, component.settings, weights.wide
        self._evaluate, self._x = STEPS[component.step or ""].evaluate, x.exact
        self._output = self._evaluate(Evaluation(FLOAT64, {"x": x.exact}, self._own, self._settings))
        with to_a_few_digits():
            self._squares = linear(factor.squares, weights.squares)
            if x.moved is None:
                self._moved = self._output.new_zeros((draws, *self._output.shape), dtype=torch.float32)
            else:
                self._moved = linear(x.moved, weights.narrow)
        if factor.apart is not None:
            self._apart = linear(factor.apart, weights.narrow)
            self._there, self._there_squares = factor.at(self._output), factor.at(self._squares)

    @cached_property
    def tiles(self) -> list[slice]:
        return _rows(self._output)

    @cached_property
    def tiles_alone(self) -> list[slice]:
        return _rows(self._apart)

    def alone(self, tile: slice) -> tuple[Evaluation, Tensor]:
        return self._knowing(self._there_squares[:, tile]), self._there[:, tile] + self._apart[:, tile]

    def exact(self, tile: slice) -> tuple[Evaluation, Tensor]:
        return self._knowing(self._squares[:, tile]), self._output[:, tile]

    def moved(self, tile: slice, output: Tensor, first: int, count: int) -> Tensor:
        return self._moved[first : first + count, :, tile]

    def together(self, parts: list[Spread]) -> Spread:
        """Where draws were disturbed in a copy, it takes their place."""
        for tile, part in zip(self.tiles, parts, strict=True):
            if part.moved is not None and part.moved.data_ptr() != self._moved[:, :, tile].data_ptr():
                self._moved[:, :, tile] = part.moved
        return Spread(self._output, self._moved if len(self._moved) else None)

    def _knowing(self, squares: Tensor) -> Evaluation:
        return Evaluation(_Knowing(squares), {"x": self._x}, self._own, self._settings)


def _rows(value: Tensor) -> list[slice]:
    return cut(value.shape[1], value.numel() // max(1, value.shape[1]))


class Steps:
    """Any other step. Its rows are evaluated apart, unless a case is all it takes in: angles may depend on all."""

    def __init__(
        self,
        component: Component,
        given: Mapping[str, Spread],
        recorded: Captured,
        weights: Weights,
        size: int,
    ) -> None:
        """size: elements of the output in a row"""
        self._step, self._settings, self._size = STEPS[component.step or ""], component.settings, size
        self._split = not all(source.startswith(CASE) for source in component.inputs.values())
        looked_up = "token_ids" in component.inputs
        self._own = {r: _Table(v) for r, v in weights.parameters.items()} if looked_up else weights.wide
        self._given, self._recorded = given, recorded
        fixed = [name for name in given if not self._has("T", name)]
        self._fixed = {name: _widened(recorded[name]) for name in fixed}
        self._moving = {name: given[name].several() for name in fixed if given[name].moved is not None}

    @cached_property
    def tiles(self) -> list[slice]:
        return self._cut({name: value.exact for name, value in self._given.items()})

    @cached_property
    def tiles_alone(self) -> list[slice]:
        return self._cut(self._recorded)

    def alone(self, tile: slice) -> tuple[Evaluation, Tensor]:
        inputs = {
            name: self._fixed[name] if name in self._fixed else _widened(self._of(name, value, tile))
            for name, value in self._recorded.items()
        }
        return self._evaluated(inputs)

    def exact(self, tile: slice) -> tuple[Evaluation, Tensor]:
        return self._evaluated(
            {name: self._of(name, value.exact, tile) for name, value in self._given.items()}
        )

    def moved(self, tile: slice, output: Tensor, first: int, count: int) -> Tensor:
        inputs = {name: self._several(name, tile, first, count) for name in self._given}
        _, outputs = self._evaluated(inputs)
        return (outputs.view(count, *output.shape) - output).float()

    def together(self, parts: list[Spread]) -> Spread:
        if len(parts) == 1:
            return parts[0]
        rows = self._step.output.split().index("T")
        moved = [part.moved for part in parts if part.moved is not None]
        exact = torch.cat([part.exact for part in parts], rows)
        return Spread(exact, torch.cat(moved, rows + 1) if moved else None)

    def _has(self, letter: str, name: str) -> bool:
        return letter in self._step.arguments[name].split()

    def _of(self, name: str, value: Tensor, tile: slice) -> Tensor:
        return rows_of(value, self._step.arguments[name], tile)

    def _several(self, name: str, tile: slice, first: int, count: int) -> Tensor:
        """Of disturbed chains, in float64, side by side in the batch."""
        if name in self._moving:  # the same for all tiles
            return self._moving[name][first : first + count].flatten(0, 1)
        value, axes = self._given[name], self._step.arguments[name]
        exact = rows_of(value.exact, axes, tile)
        if value.moved is not None:
            moved = rows_of(value.moved[first : first + count], f"N {axes}", tile)
            return Spread(exact, moved).several().flatten(0, 1)
        return exact.repeat(count, *(1,) * (exact.dim() - 1)) if self._has("B", name) else exact

    def _evaluated(self, inputs: Captured) -> tuple[Evaluation, Tensor]:
        evaluation = Evaluation(FLOAT64, inputs, self._own, self._settings)
        return evaluation, self._step.evaluate(evaluation)

    def _cut(self, inputs: Captured) -> list[slice]:
        """By the largest of what goes in and what comes out; keys and values are gone through for each tile."""
        length, width = 0, self._size
        for name, value in inputs.items():
            if self._has("T", name):
                length = value.shape[self._step.arguments[name].split().index("T")]
                width = max(width, value.numel() // max(1, length))
        fixed = max((value.numel() for value in self._fixed.values()), default=0)
        return cut(length, width, fixed) if self._split else [slice(0, length)]


def _widened(value: Tensor) -> Tensor:
    return value.double() if value.is_floating_point() else value


class _Table:
    """Rows are cast when they are looked up: in float64 the whole table of a large model would fill gigabytes."""

    def __init__(self, table: Tensor) -> None:
        self._table = table

    def __getitem__(self, ids: Tensor) -> Tensor:
        return self._table[ids].double()


class _Knowing(TorchArrays):
    """float64, with a product's squares known: to the few digits that count, the exact chain has the reference's."""

    def __init__(self, squares: Tensor) -> None:
        super().__init__(torch.float64)
        self._squares = squares

    def linear_squares(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        squares = self._squares.double()
        return squares if bias is None else squares.add_(bias.square())
