"""Between the reference's axes and a port's, as `Tap` and `Param` declare them. Nothing is concluded from a shape."""

import math
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from harness.ports.tap import UNDECIDED, Param, Part, Tap

Array = Any
Sizes = Mapping[str, int]


class LayoutError(ValueError):
    """What was declared does not fit what there is."""


def to_reference(value: Array, where: Tap | Param, sizes: Sizes) -> Array:
    """A value of the port in the reference's axes."""
    if where.part is not None:
        value = value[_of_part(value.shape, where.part, sizes)]
    if not where.layout:
        return value
    left, right = _declared(where)
    return _einops(value, f"{right} -> {left}", where.layout, sizes)


def to_port(value: Array, where: Tap | Param, sizes: Sizes, into: Array | None = None) -> Array:
    """A value of the reference in the port's axes. What is one of several parts is put into `into`, or between NaN."""
    if where.layout:
        left, right = _declared(where)
        copies = " ".join(sorted(_letters(left) - _letters(right)))
        value = _einops(value, f"{left} -> {f'({copies}) ' if copies else ''}{right}", where.layout, sizes)
        value = value[0] if copies else value
    if where.part is None:
        return value
    axis, (start, stop), total = where.part.axis, *_bounds(where.part, sizes)
    if value.shape[axis] != stop - start:
        raise LayoutError(f"{value.shape[axis]} along axis {axis}, where {where.part} has {stop - start}")
    shape = list(value.shape)
    shape[axis] = total
    whole = np.full(shape, np.nan, value.dtype) if into is None else np.array(into)
    whole[_of_part(whole.shape, where.part, sizes)] = value
    return whole


def layers_axis(where: Param) -> int | None:
    """Along which axis of the port's parameter its layers are stacked; None if they are not."""
    letters = _declared(where)[1].split() if where.layout else []
    return letters.index("L") if "L" in letters else None


def of_one_layer(where: Param) -> Param:
    """The same of a single layer of a stack."""
    left, right = _declared(where)
    return Param(where.path, f"{left} -> {' '.join(x for x in right.split() if x != 'L')}", where.part)


def _of_part(shape: tuple[int, ...], part: Part, sizes: Sizes) -> tuple[slice, ...]:
    (start, stop), total = _bounds(part, sizes)
    if shape[part.axis] != total:
        raise LayoutError(
            f"{shape[part.axis]} along axis {part.axis}, where the parts {part.sizes} are {total}"
        )
    places = [slice(None)] * len(shape)
    places[part.axis] = slice(start, stop)
    return tuple(places)


def _bounds(part: Part, sizes: Sizes) -> tuple[tuple[int, int], int]:
    widths = [_width(width, sizes) for width in part.sizes]
    start = sum(widths[: part.index])
    return (start, start + widths[part.index]), sum(widths)


def _width(width: str | int, sizes: Sizes) -> int:
    if isinstance(width, int):
        return width
    missing = [letter for letter in width.split() if letter not in sizes]
    if missing:
        raise LayoutError(f"the size of {missing[0]} in the part {width!r} is not among the sizes given")
    return math.prod(sizes[letter] for letter in width.split())


def _declared(where: Tap | Param) -> tuple[str, str]:
    """The two sides of a layout. Raises LayoutError where a draft leaves it to somebody."""
    if where.layout == UNDECIDED:
        path = where.path if isinstance(where, Param) else where.value or where.call or where.function
        raise LayoutError(f"layout of {path} is undecided: write it as REFERENCE'S AXES -> PORT'S AXES")
    return _sides(where.layout)


@cache
def _sides(layout: str) -> tuple[str, str]:
    left, arrow, right = (side.strip() for side in layout.partition("->"))
    if not arrow or not left or not right:
        raise LayoutError(f"layout {layout!r} is not written as REFERENCE'S AXES -> PORT'S AXES")
    return left, right


def _letters(side: str) -> set[str]:
    return {letter for letter in side.replace("(", " ").replace(")", " ").split() if not letter.isdigit()}


def _einops(value: Array, pattern: str, layout: str, sizes: Sizes) -> Array:
    import einops

    given = {letter: sizes[letter] for letter in _letters(pattern) if letter in sizes}
    try:
        return einops.repeat(value, pattern, **given)
    except einops.EinopsError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise LayoutError(
            f"layout {layout!r} does not fit a value of shape {value.shape}: {reason}"
        ) from error
