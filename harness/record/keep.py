"""`--keep`: which components, layers and token positions of a recording are written.

    components=GLOB[,GLOB...]     layers=0,3-5,-1     tokens=0-15,-1     tokens=sample:8

A component that is kept is written whole with all that it takes in; keeping fewer token positions keeps fewer rows
of queries and of everything that stands by itself at a position, while attention keeps every key of these rows.
Of a sample, wide components keep a quarter: `harness.record.sample` says which positions these are.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import Tensor

from harness.errors import GoldensError, nearest
from harness.inputs import CaseInputs
from harness.kinds.table import STEPS
from harness.model import Component
from harness.record.sample import covering, sample

Ranges = tuple[tuple[int, int], ...]

FEWER, WIDE = 4, 2
"""Of a sample, components WIDE times as wide as the residual stream keep one row in FEWER. They work token by token and
have thousands of channels; of a model of 7B they would be three fifths of a file."""


@dataclass(frozen=True)
class Keep:
    """None keeps all of its kind. Ranges are inclusive; negative numbers count from the end.

    sample: so many token positions of each case, beside those of `tokens`; 0 for no sample
    """

    components: tuple[str, ...] | None = None
    layers: Ranges | None = None
    tokens: Ranges | None = None
    sample: int = 0

    def chosen(self, components: list[Component]) -> list[Component]:
        """The components that are written, in forward order. Raises GoldensError when there are none."""
        layers = 1 + max((_layer(component.name) for component in components), default=-1)
        wanted = None if self.layers is None else set(_expand(self.layers, layers, "layers"))
        names = [component.name for component in components]
        for glob in self.components or ():
            if not any(fnmatchcase(name, glob) for name in names):
                raise GoldensError(f"--keep components={glob} matches no component{nearest(glob, names)}")
        kept = [
            component
            for component in components
            if (wanted is None or _layer(component.name) in wanted | {-1})
            and (
                self.components is None or any(fnmatchcase(component.name, glob) for glob in self.components)
            )
        ]
        if not kept:
            raise GoldensError(f"--keep {self} leaves nothing of {len(components)} components")
        return kept

    def positions(self, case: CaseInputs) -> dict[str, list[int]]:
        """The token positions of a case that are written, in order: `kept`; of a sample, `few` of them, too."""
        length = case.token_ids.shape[1]
        if not self.sample:
            return {"kept": self._ranges(length)}
        named = self._ranges(length) if self.tokens else []
        kept = sorted({*named, *sample(case, self.sample)})
        return {"kept": kept, "few": covering(case, kept, -(-self.sample // FEWER))}

    def _ranges(self, length: int) -> list[int]:
        if self.tokens is None:
            return list(range(length))
        # Cases differ in length: a range reaches as far as a case does.
        inside = tuple(
            (max(start, 0), min(stop, length - 1))
            for start, stop in (_from_start(each, length) for each in self.tokens)
            if start <= stop and start < length and stop >= 0
        )
        if not inside:
            raise GoldensError(f"--keep {self} leaves nothing of a case of {length} tokens")
        return sorted(set(_expand(inside, length, "tokens")))

    def __str__(self) -> str:
        """As it is written on the command line; empty when everything is kept."""
        tokens = [f"sample:{self.sample}"] if self.sample else []
        parts = {
            "components": ",".join(self.components or ()),
            "layers": _written(self.layers),
            "tokens": ",".join(tokens + [_written(self.tokens)] * bool(self.tokens)),
        }
        return " ".join(f"{name}={value}" for name, value in parts.items() if value)


def parse(specs: list[str]) -> Keep:
    """The `--keep` options of one recording, each of another kind."""
    values: dict[str, str] = {}
    for spec in specs:
        name, equals, value = spec.partition("=")
        if name not in ("components", "layers", "tokens") or not equals or not value:
            raise GoldensError(
                f"--keep {spec!r} is not understood: write components=GLOB, layers=0,3-5,-1, tokens=0-15,-1 or "
                "tokens=sample:8"
            )
        values[name] = f"{values[name]},{value}" if name in values else value
    size, tokens = _sampled(values.get("tokens", ""))
    return Keep(
        components=tuple(values["components"].split(",")) if "components" in values else None,
        layers=_ranges(values["layers"], "layers") if "layers" in values else None,
        tokens=_ranges(tokens, "tokens") if tokens else None,
        sample=size,
    )


def _sampled(tokens: str) -> tuple[int, str]:
    """How large a sample is asked for, and the ranges beside it."""
    parts = tokens.split(",")
    sizes = [part.removeprefix("sample:") for part in parts if part.startswith("sample:")]
    if len(sizes) > 1 or not all(size.isdecimal() and int(size) for size in sizes):
        raise GoldensError(f"--keep tokens={tokens}: write one sample:N, with N token positions of a case")
    return sum(map(int, sizes)), ",".join(part for part in parts if not part.startswith("sample:"))


def wide(components: Iterable[Component], shapes: Mapping[str, tuple[int, ...]]) -> frozenset[str]:
    """The components that keep few rows of a sample: a row of theirs is WIDE times as wide as the residual stream.

    Attention's own steps are as wide as there are keys, and take in each other's rows: they keep all of the sample.
    shapes: of what each component puts out
    """
    components = list(components)
    widths = {
        component.name: math.prod(
            size
            for axis, size in zip(component.axes.split(), shapes[component.name], strict=True)
            if axis not in ("B", "T")
        )
        for component in components
    }
    limit = WIDE * widths["embed_tokens"]
    return frozenset(
        component.name
        for component in components
        if component.composite_of is None
        and not _takes_keys(component)
        and any(widths.get(name, 0) > limit for name in (component.name, *component.inputs.values()))
    )


def _takes_keys(component: Component) -> bool:
    arguments = STEPS[component.step].arguments.values() if component.step else ()
    return any("S" in axes.split() for axes in (component.axes, *arguments))


def select_rows(tensor: Tensor, axes: str, rows: list[int]) -> Tensor:
    """The kept rows of a tensor's T axis; keys (S) stay whole."""
    letters = axes.split()
    if "T" not in letters or len(rows) == tensor.shape[letters.index("T")]:
        return tensor
    return tensor[(slice(None),) * letters.index("T") + (rows,)]


def _layer(name: str) -> int:
    """The layer that a component belongs to, or -1."""
    first, _, rest = name.partition(".")
    return int(rest.split(".")[0]) if first == "layers" else -1


def _ranges(text: str, name: str) -> Ranges:
    ranges = []
    for part in text.split(","):
        start, dash, stop = part[1:].partition("-")
        try:
            first = int(part[:1] + start)
            ranges.append((first, int(stop) if dash else first))
        except ValueError:
            raise GoldensError(
                f"--keep {name}={text}: {part!r} is neither a number nor a range such as 3-5"
            ) from None
    return tuple(ranges)


def _written(ranges: Ranges | None) -> str:
    return ",".join(str(start) if start == stop else f"{start}-{stop}" for start, stop in ranges or ())


def _from_start(ends: tuple[int, int], length: int) -> tuple[int, int]:
    """A range with negative numbers counted from the end of `length`."""
    first, last = (number + length if number < 0 else number for number in ends)
    return first, last


def _expand(ranges: Ranges, length: int, name: str) -> list[int]:
    numbers: list[int] = []
    for start, stop in ranges:
        first, last = _from_start((start, stop), length)
        if not 0 <= first <= last < length:
            raise GoldensError(
                f"--keep {name}={_written(((start, stop),))}: there are {name} 0 to {length - 1}"
            )
        numbers.extend(range(first, last + 1))
    return numbers
