"""Which value of a model is which component's, and which variable which parameter: by names, and by how large they are.

Layouts are not proposed. Where a shape is the reference's own and no two of its sizes are equal, there is nothing to
declare; everywhere else somebody has to.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.draft.inspect import Inspected, Seen, Stored
from harness.draft.names import Likeness, in_fused, in_layers, likeness, of_argument
from harness.draft.reference import Reference, Shape, Wanted
from harness.errors import GoldensError
from harness.model import LOGITS
from harness.ports.tap import LAYER, UNDECIDED, Param, Tap

Where = Tap | Param
Found = Seen | Stored
Alike = Callable[[str, str], Likeness | None]


@dataclass(frozen=True)
class Row:
    """What is proposed for a component or a parameter. candidates: where it may be; why: what that rests on."""

    name: str
    candidates: tuple[Where, ...]
    why: str

    @property
    def where(self) -> Where | None:
        """The row of the table, unless there are several, or none."""
        return self.candidates[0] if len(self.candidates) == 1 else None

    @property
    def proposed(self) -> bool:
        return self.where is not None and self.where.layout != UNDECIDED

    @property
    def undecided(self) -> bool:
        return bool(self.candidates) and not self.proposed


@dataclass(frozen=True)
class Proposal:
    """unnamed: variables of the model that no row names."""

    components: list[Row]
    parameters: list[Row]
    unnamed: list[str]


@dataclass(frozen=True)
class Candidate:
    """A value or a variable that may be the one. like: in what it is alike; fused: what it holds together."""

    found: Found
    like: str
    fused: tuple[str, ...] = ()


def propose(reference: Reference, inspected: Inspected, model: str) -> Proposal:
    """Raises GoldensError for a model that is another one than the golden file's."""
    match = Match(reference, inspected)
    found = {wanted.name: match.parameter(wanted) for wanted in reference.parameters}
    _refuse_other(match, found, model)
    parameters = [match.row(wanted, found[wanted.name]) for wanted in reference.parameters]
    named = {where.path for row in parameters for where in row.candidates if isinstance(where, Param)}
    unnamed = [stored.path for stored in inspected.variables if stored.path not in named]
    return Proposal(_components(match), parameters, unnamed)


def _components(match: "Match") -> list[Row]:
    found = {wanted.name: match.component(wanted) for wanted in match.reference.components}
    for wanted in match.reference.components:
        if not found[wanted.name]:
            found[wanted.name] = match.by_wiring(wanted, found)
    rows = [match.row(wanted, found[wanted.name]) for wanted in match.reference.components]
    # the logits are what `run` gives, whatever the call is that they come from
    return [row for row in rows if row.name != LOGITS or row.proposed]


class Match:
    """A reference and a model, side by side."""

    def __init__(self, reference: Reference, inspected: Inspected) -> None:
        self.reference, self.variables = reference, inspected.variables
        self.outputs = [seen for seen in inspected.seen if seen.where.argument is None]
        self.arguments = [seen for seen in inspected.seen if seen.where.argument is not None]
        every = [*reference.components, *reference.parameters]
        self._numbers = {wanted.name: math.prod(wanted.shape) for wanted in every}

    def parameter(self, wanted: Wanted) -> list[Candidate]:
        return self._own(wanted, self.variables) or self._fused(wanted, self.variables)

    def component(self, wanted: Wanted) -> list[Candidate]:
        return (
            self._own(wanted, self.outputs)
            or self._own(wanted, self.arguments, of_argument)
            or self._fused(wanted, self.outputs)
        )

    def by_wiring(self, wanted: Wanted, found: Mapping[str, list[Candidate]]) -> list[Candidate]:
        """What the one call takes in that is its only reader's, or what that puts out whose last step it is."""
        for name in wanted.taken_by:
            calls = [each.found.where for each in found.get(name, ()) if isinstance(each.found, Seen)]
            taken = [seen for seen in self.arguments if len(calls) == 1 and _same_call(seen.where, calls[0])]
            fitting = [seen for seen in taken if self._fits(seen, wanted)]
            if fitting:
                return [Candidate(seen, f"what {_last(name)} takes in") for seen in fitting]
        for name in wanted.composites:
            if len(found.get(name, ())) == 1:
                return [replace(found[name][0], like=f"what {_last(name)} puts out, whose last step it is")]
        return []

    def row(self, wanted: Wanted, candidates: Sequence[Candidate]) -> Row:
        if not candidates:
            what = "variable" if wanted in self.reference.parameters else "call"
            return Row(wanted.name, (), f"no {what} of the model is like it by name and size")
        if len(candidates) > 1:
            return Row(
                wanted.name, tuple(each.found.where for each in candidates), "undecided: several are like it"
            )
        (candidate,) = candidates
        found = candidate.found
        where = found.where if _is_plain(wanted, found) else replace(found.where, layout=UNDECIDED)
        return Row(wanted.name, (where,), f"{candidate.like}; {self._shapes(wanted, candidate)}")

    def _own(self, wanted: Wanted, several: Iterable[Found], alike: Alike = likeness) -> list[Candidate]:
        """Those that are as large, and most alike."""
        fitting = [each for each in several if self._fits(each, wanted)]
        found = [(each, like) for each in fitting if (like := alike(wanted.name, each.path))]
        least = min((like.distance for _, like in found), default=0)
        return [Candidate(each, like.told) for each, like in found if like.distance == least]

    def _fused(self, wanted: Wanted, several: Iterable[Found]) -> list[Candidate]:
        """Those that are as large as all that they hold."""
        return [
            Candidate(each, fused[0].told, fused[1])
            for each in several
            if (fused := in_fused(wanted.name, each.path)) and self._fits(each, wanted, fused[1])
        ]

    def _fits(self, each: Found, wanted: Wanted, fused: Sequence[str] = ()) -> bool:
        """Whether it is there as often as is wanted, and holds as many numbers."""
        numbers = sum(self._numbers.get(name, 0) for name in fused or [wanted.name])
        if each.shape is None:
            return in_layers(each.path) == wanted.in_layers
        if LAYER in each.path and not wanted.in_layers:
            return False
        layers = self.reference.layers if wanted.in_layers else 1
        if isinstance(each, Seen):
            return each.times == layers and math.prod(each.shape) == numbers
        if self._is_stack(each, wanted):
            return each.shape[:1] == (layers,) and math.prod(each.shape) == layers * numbers
        return each.layers in (0, layers) and math.prod(each.shape) == numbers

    def _is_stack(self, each: Found, wanted: Wanted) -> bool:
        return isinstance(each, Stored) and wanted.in_layers and LAYER not in each.path

    def _shapes(self, wanted: Wanted, candidate: Candidate) -> str:
        shape, own = candidate.found.shape, f"{wanted.axes} {wanted.shape}".strip()
        if shape is None:
            return f"{own} in the reference, not seen in the model"
        told = f"{own} in both" if shape == wanted.shape else f"{own} in the reference, {shape} in the model"
        if self._is_stack(candidate.found, wanted):
            told += f", of {self.reference.layers} layers"
        if candidate.fused:
            told += (
                f", with {', '.join(_last(name) for name in candidate.fused)} in one: declare its `part`, too"
            )
        elif shape == wanted.shape and not _is_plain(wanted, candidate.found):
            told += ", which does not tell which axis is which"
        return told


def _is_plain(wanted: Wanted, found: Found) -> bool:
    """Whether its shape alone says which axis is which. Elsewhere a layout is somebody's to declare."""
    return found.shape == wanted.shape and len(set(wanted.shape)) == len(wanted.shape)


def _same_call(argument: Tap, output: Tap) -> bool:
    return replace(argument, argument=None) == replace(output, result=None)


def _last(name: str) -> str:
    """A component's name in its layer, a parameter's module."""
    parts = name.removesuffix(".weight").removesuffix(".bias").split(".")
    return parts[-1] if parts[-1] != LAYER else "the layer"


def _refuse_other(match: Match, found: Mapping[str, Sequence[Candidate]], model: str) -> None:
    """A model whose parameters are called like the reference's, and are mostly of another size, is another one."""
    other = [
        (wanted, stored)
        for wanted in match.reference.parameters
        for stored in match.variables
        if not found[wanted.name] and likeness(wanted.name, stored.path)
    ]
    fitting = [name for name, candidates in found.items() if candidates]
    names = dict.fromkeys(wanted.name for wanted, _ in other)
    if len(names) > len(fitting):
        wanted, stored = other[0]
        raise GoldensError(
            f"model {model!r} is not the one of {match.reference.path}: of {len(names) + len(fitting)} parameters that "
            f"are called alike, {len(names)} are not as large; {stored.path} is {_told(stored.shape, stored.layers)}, "
            f"where {wanted.name} is {_told(wanted.shape, match.reference.layers if wanted.in_layers else 0)}"
        )


def _told(shape: Shape, layers: int) -> str:
    return f"{shape} in {layers} layers" if layers else str(shape)
