"""`trace`: one pass against the contract, against a second one, and against one that is asked for less."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from harness.errors import nearest
from harness.model import CASE, LOGITS, Component, Mode, Verdict
from harness.portcheck.asked import Asked, Broken, misshapen
from harness.portcheck.trouble import Trouble, difference
from harness.replay.forward import Forward

Array = Any
_DRAWN = "nothing in it may be drawn, or left over from an earlier call"


class Whole:
    """A port's pass over a case, and what is wrong with it.

    handed_out: as the port did; forward: what is worth comparing of it
    steady: whether it is the same when it is run again, so that anything can be held against it
    """

    def __init__(self, asked: Asked) -> None:
        """Raises Broken where there is no pass to look at."""
        self._asked = asked
        self._names = [component.name for component in asked.components]
        self.troubles: list[Trouble] = []
        self.handed_out = asked.trace(self._names)
        self.forward = Forward.of(asked.file, asked.case, asked.dtype, dict(self._readable(self.handed_out)))
        not_finite = list(self._not_finite())
        self._leave_out(trouble.component for trouble in not_finite)
        self.troubles += [*self._names_wrong(), *not_finite, *self._composites()]
        again = list(self._twice())
        self.steady = not again
        self.troubles += again or self._fewer()

    @property
    def lacking(self) -> list[Component]:
        """The components that it does not hand out."""
        return [component for component in self._asked.components if component.name not in self.handed_out]

    def has_logits(self, value: Array) -> bool:
        """Whether these are the logits of the pass. Where the pass has none, nothing is said against them."""
        if LOGITS not in self.forward.values:
            return True
        return not self._unlike(self._asked.file.component(LOGITS), {LOGITS: value})

    def _readable(self, outputs: Mapping[str, Any]) -> Iterator[tuple[str, Array]]:
        """The arrays among what was handed out, in the shape and dtype that were asked for."""
        for component in self._asked.components:
            if component.name not in outputs:
                continue
            try:
                value = self._asked.copied(outputs[component.name])
            except Broken as broken:
                self.troubles.append(replace(broken.trouble, component=component))
                continue
            wrong = misshapen(value, self._asked.whole_shape(component), self._asked.dtype)
            if wrong:
                way_out = f"hand it out in {self._asked.dtype}, as {component.axes}, at every token"
                self.troubles.append(
                    Trouble(
                        "trace", f"what `trace` hands out of it {wrong}", way_out, component, by_kind=True
                    )
                )
            else:
                yield component.name, value

    def _names_wrong(self) -> Iterator[Trouble]:
        if LOGITS in self._names and LOGITS not in self.handed_out:
            yield Trouble("trace", f"`trace` hands out no {LOGITS}", "every port hands out its logits")
        for name in self.handed_out:
            if name not in self._names:
                what = f"`trace` hands out {name}, which was not asked for{nearest(str(name), self._names)}"
                yield Trouble("trace", what, "hand out those of `names` that there are, by these names")

    def _not_finite(self) -> Iterator[Trouble]:
        """A component that makes NaN or infinities of finite numbers, and not because the reference overflows, too."""
        places = self.forward.places
        for component in self._asked.components:
            if component.step is None or not self.forward.has(component):
                continue
            sources = [source for source in component.inputs.values() if not source.startswith(CASE)]
            if self._finite(component.name) or not all(map(self._finite, sources)):
                continue
            golden = self._asked.file.output(self._asked.goldens[component.name])
            if np.isfinite(golden.astype(np.float32)).all():
                value = self.forward.values[component.name].astype(np.float32)
                strange = np.argwhere(places.valid(component.axes) & ~np.isfinite(value))[0].tolist()
                what = "it is not finite where all that it takes in is"
                yield Trouble(
                    "trace", what, "look at its mask, its eps or its dtype", component, f"first at {strange}"
                )

    def _leave_out(self, components: Iterable[Component | None]) -> None:
        """What is known to be wrong would be found wrong by everything that it is held against."""
        wrong = {component.name for component in components if component is not None}
        values = {name: value for name, value in self.forward.values.items() if name not in wrong}
        self.forward = replace(self.forward, values=values)

    def _finite(self, name: str) -> bool:
        """At the real tokens: what padding is computed from is nobody's concern."""
        component, value = self._asked.file.component(name), self.forward.values[name].astype(np.float32)
        return bool(
            np.isfinite(value[np.broadcast_to(self.forward.places.valid(component.axes), value.shape)]).all()
        )

    def _composites(self) -> Iterator[Trouble]:
        for component in self._asked.components:
            own, value = component.composite_of, self.forward.values.get(component.name)
            if own is None or value is None or own not in self.forward.values:
                continue
            result = self.forward.again(self._asked.file.component(own), value, Mode.ISOLATED)
            if result.verdict is Verdict.FAIL:
                what = "as a whole it hands out something else than its last step does"
                yield Trouble("trace", what, f"hand out what {own} is", component, difference(result))

    def _twice(self) -> Iterator[Trouble]:
        """By the limits of a whole run, since not every accelerator sums in the same order each time."""
        again = self._asked.trace(self._names)
        for component in self._asked.components:
            unlike = self._unlike(component, again) if component.name in self.forward.values else ""
            if unlike:
                what = "the same `trace` gives something else the second time"
                yield Trouble("trace", what, _DRAWN, component, unlike)

    def _fewer(self) -> Iterator[Trouble]:
        """Asked for half of it, a compiler may order roundings otherwise, as it may in a whole run."""
        names = {*self._names[::2], *([LOGITS] if LOGITS in self._names else [])}
        try:
            outputs = self._asked.trace(names)
        except Broken as broken:
            yield Trouble(
                "trace", f"asked for half of the names, {broken.trouble.what}", broken.trouble.way_out
            )
            return
        surplus = [name for name in self._names if name in outputs and name not in names]
        if surplus:
            what = f"asked for other names, `trace` hands out {surplus[0]}, which was not asked for"
            yield Trouble("trace", what, "hand out those of `names` that there are, and no others")
        for component in self._asked.components:
            if component.name in names and component.name in self.forward.values:
                unlike = self._unlike(component, outputs)
                if unlike:
                    what = "asked for fewer names, `trace` gives something else"
                    way_out = "take values by their names, never by their order"
                    yield Trouble("trace", what, way_out, component, unlike)

    def _unlike(self, component: Component, outputs: Mapping[str, Any]) -> str:
        """How another pass has something else of a component; empty if it has not. Raises Broken."""
        if component.name not in outputs:
            return "nothing at all"
        value = self._asked.copied(outputs[component.name])
        there = self.forward.values[component.name]
        wrong = misshapen(value, there.shape, self._asked.dtype)
        if wrong:
            return f"it {wrong}"
        result = self.forward.again(component, value, Mode.END_TO_END)
        return difference(result) if result.verdict is Verdict.FAIL else ""
