"""Find in a program what an adapter's table names."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import TypeVar

from harness.model import CASE, Component
from harness.ports.calls import Marks, Site
from harness.ports.program import Program, Variable
from harness.ports.tap import LAYER, Param, Tap
from harness.replay.port import Miswired, NotOffered

Found = tuple[Tap, int | None]
"""A tap, and the number of the layer it is asked for, if it is of one."""
_Row = TypeVar("_Row", Tap, Param)


class TapError(Miswired):
    """The model has no such value, or computes it from something else."""


def marks_for(components: Mapping[str, Tap]) -> Marks:
    """Marks of the calls that a table names, and of no others."""
    taken = [each for tap in components.values() for each in tap.takes.values() if isinstance(each, Tap)]
    taps = [tap for tap in (*components.values(), *taken) if not tap.value]
    calls = {(tap.function, _pattern(tap.call)) for tap in taps}

    @cache
    def wanted(scope: str, function: str) -> bool:
        return any(function == named and pattern.fullmatch(scope) for named, pattern in calls)

    functions = {tap.function for tap in taps if tap.function}
    methods = {tap.call.rpartition(".")[2] for tap in taps if tap.call}
    return Marks(wanted, functions, methods)


@cache
def _pattern(call: str) -> re.Pattern[str]:
    return re.compile(r"(\d+)".join(re.escape(part) for part in call.split(LAYER)))


def row_of(table: Mapping[str, _Row], name: str) -> tuple[_Row, int | None] | None:
    """The row of a table that a name belongs to, and the number of its layer."""
    if name in table:
        return table[name], None
    for pattern, row in table.items():
        match = LAYER in pattern and _pattern(pattern).fullmatch(name)
        if match:
            return row, int(match[1])
    return None


@dataclass(frozen=True)
class Locations:
    """Where the values of a table are in a program."""

    program: Program
    marks: Marks
    components: Mapping[str, Tap]

    def find(self, name: str) -> Found | None:
        return row_of(self.components, name)

    def variable(self, tap: Tap, n: int | None, name: str) -> Variable:
        """The value that a tap names. Raises TapError where the model has none, or several that nobody tells apart."""
        n = n if tap.layer is None else tap.layer
        counted = None if LAYER in tap.call else n
        if tap.value:
            places, told = self.program.named.get(tap.value, []), f"value named {tap.value!r}"
        else:
            site = self._site(tap, n, tap.argument)
            places = self._places(site, counted is not None)
            told = self._told(site) if places else f"{self._told(site)}{self._others(site)}"
        if counted is None and len(places) > 1:
            raise TapError(f"the model comes by the {told} {len(places)} times, where {name} is one of them")
        if (counted or 0) < len(places):
            return places[counted or 0]
        layer = f" for layer {counted}" if places else ""
        raise TapError(f"the model has no {told}{layer}, where the table has {name}")

    def taken(self, component: Component, argument: str) -> tuple[Variable, Tap]:
        """Where a component takes an argument in, and how that lies there.

        Raises NotOffered where neither the call nor the table tells.
        """
        source = component.inputs[argument]
        if source.startswith(CASE):
            return self.program.inputs[source.removeprefix(CASE)], Tap()
        producer = self.find(source)
        layout = Tap() if producer is None else producer[0]
        tap, n = self.find(component.name) or (Tap(), None)
        declared = tap.takes.get(argument)
        if isinstance(declared, Tap):
            return self.variable(declared, n, component.name), declared
        own = declared or self._own(tap, n, argument, component)
        if own is not None:
            place = replace(tap, argument=own, layout=layout.layout, part=layout.part)
            return self.variable(place, n, component.name), place
        if producer is None:
            raise NotOffered(
                f"{component.name} takes {argument} from {source}, which the table does not have"
            )
        return self.variable(*producer, source), layout

    def _own(self, tap: Tap, n: int | None, argument: str, component: Component) -> str | None:
        """The argument of the tapped call that is this one of the component; None where that is not plain."""
        if tap.value or tap.argument is not None or not (tap.call or tap.function):
            return None
        scope = _scope(tap, n)
        there = [
            name
            for name in self.marks.arguments.get((scope, tap.function), [])
            if self._places(self._site(tap, n, name), LAYER not in tap.call)
        ]
        if argument in there:
            return argument
        return there[0] if len(there) == 1 == len(component.inputs) else None

    def _places(self, site: Site, stacked: bool) -> list[Variable]:
        """Where a site is passed. What is scanned over is called again and again by what is around it: once a layer."""
        found = self.program.found.get(site, [])
        if not stacked or site.nth or len(found) > 1:
            return found
        calls = sorted((s for s in self.program.found if replace(s, nth=0) == site), key=lambda s: s.nth)
        return [place for call in calls for place in self.program.found[call]]

    def _site(self, tap: Tap, n: int | None, argument: str | int | None) -> Site:
        scope = _scope(tap, n)
        if isinstance(argument, int):
            names = self.marks.arguments.get((scope, tap.function), [])
            argument = names[argument] if argument < len(names) else str(argument)
        is_argument = argument is not None
        return Site(scope, tap.function, tap.nth, is_argument, argument if is_argument else tap.result)

    def _told(self, site: Site) -> str:
        call = f"call {site.nth} of {site.function}" if site.function else f"call of {site.scope!r}"
        call = f"{call} in {site.scope!r}" if site.function else call
        return f"{_which(site)} of {call}"

    def _others(self, site: Site) -> str:
        """What there is of the same call."""
        place = (site.scope, site.function, site.nth)
        there = {
            _which(other) for other in self.program.found if (other.scope, other.function, other.nth) == place
        }
        return f" (of that call it has {', '.join(sorted(there))})" if there else ""


def _scope(tap: Tap, n: int | None) -> str:
    return tap.call if n is None else tap.call.replace(LAYER, str(n))


def _which(site: Site) -> str:
    if site.argument:
        return f"argument {site.key!r}"
    return "value" if site.key is None else f"result {site.key!r}"
