"""`--keep`: which components, layers and token positions of a recording are written.

    components=GLOB[,GLOB...]     layers=0,3-5,-1     tokens=0-15,-1

A component that is kept is written whole with all that it takes in; keeping fewer token positions keeps fewer rows
of queries and of everything that stands by itself at a position, while attention keeps every key of these rows.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import Tensor

from harness.errors import GoldensError
from harness.model import Component

Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Keep:
    """None keeps all of its kind. Ranges are inclusive; negative numbers count from the end."""

    components: tuple[str, ...] | None = None
    layers: Ranges | None = None
    tokens: Ranges | None = None

    def chosen(self, components: list[Component]) -> list[Component]:
        """The components that are written, in forward order. Raises GoldensError when there are none."""
        layers = 1 + max((_layer(component.name) for component in components), default=-1)
        wanted = None if self.layers is None else set(_expand(self.layers, layers, "layers"))
        kept = [
            component
            for component in components
            if (wanted is None or _layer(component.name) in wanted | {-1})
            and (
                self.components is None or any(fnmatchcase(component.name, glob) for glob in self.components)
            )
        ]
        if not kept:
            raise GoldensError(f"--keep leaves nothing of {len(components)} components: widen {self}")
        return kept

    def rows(self, length: int) -> list[int]:
        """The token positions of a case of `length` tokens that are written, in order."""
        if self.tokens is None:
            return list(range(length))
        inside = tuple(
            (start, min(stop, length - 1)) for start, stop in self.tokens if -length <= start < length
        )
        if not inside:
            raise GoldensError(f"--keep tokens= leaves nothing of a case of {length} tokens")
        return sorted(set(_expand(inside, length, "tokens")))

    def __str__(self) -> str:
        return " ".join(
            f"{name}={value}"
            for name, value in (
                ("components", self.components),
                ("layers", self.layers),
                ("tokens", self.tokens),
            )
            if value is not None
        )


def parse(specs: list[str]) -> Keep:
    """The `--keep` options of one recording, each of another kind."""
    values: dict[str, str] = {}
    for spec in specs:
        name, equals, value = spec.partition("=")
        if name not in ("components", "layers", "tokens") or not equals or not value:
            raise GoldensError(
                f"--keep {spec!r} is not understood: write components=GLOB, layers=0,3-5,-1 or tokens=0-15,-1"
            )
        values[name] = f"{values[name]},{value}" if name in values else value
    return Keep(
        components=tuple(values["components"].split(",")) if "components" in values else None,
        layers=_ranges(values["layers"], "layers") if "layers" in values else None,
        tokens=_ranges(values["tokens"], "tokens") if "tokens" in values else None,
    )


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


def _expand(ranges: Ranges, length: int, name: str) -> list[int]:
    numbers: list[int] = []
    for start, stop in ranges:
        first, last = (number + length if number < 0 else number for number in (start, stop))
        if not 0 <= first <= last < length:
            raise GoldensError(f"--keep {name}={start}-{stop}: there are {name} 0 to {length - 1}")
        numbers.extend(range(first, last + 1))
    return numbers
