"""How far rounding alone takes the reference from float64: for each component, isolated and end to end.

Isolated, a component's step is evaluated in float64 on the inputs that the reference gave it. End to end, the whole
chain of steps is evaluated in float64 from the token ids; the modelled floor is what happens to it when every step
is disturbed by as much as its rounding model allows, drawn at random: rounding as another honest order of evaluation
would have it, carried through the network. The worst of several draws counts.

`chains` does it for a case, `evaluations` for several together.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from harness.compare.metrics import Places
from harness.kinds.table import STEPS
from harness.model import Component, Floor
from harness.record.keep import select_rows
from harness.record.modules import Call
from harness.record.watch import Captured


@dataclass(frozen=True)
class Floors:
    """The floors of one component; composites have no isolated one.

    exact: logits as float64 has them, as float32, where the model has less
    """

    end_to_end: Floor
    isolated: Floor | None = None
    exact: Tensor | None = None


@dataclass(frozen=True)
class Depth:
    """How much is found out. With fewer draws an end-to-end floor is smaller, never larger.

    isolated: whether there are isolated floors; draws: how many disturbed chains, None for as many as a case needs
    """

    isolated: bool = True
    draws: int | None = None


WHOLE = Depth()


@dataclass(frozen=True)
class Recorded:
    """What of one case is recorded.

    name: seeds the draws; case: its inputs, whole
    tokens: the token positions that are recorded, by the name of the case's input that lists them (`kept`)
    elsewhere: of these, the ones at which a component is, where they are not `kept`
    seen: (source, which token positions) -> what the reference put out; a key (S) is never left out
    calls: how the reference calls its modules that take in more than a token
    """

    name: str
    dtype: str
    case: Captured
    tokens: Mapping[str, list[int]]
    elsewhere: Mapping[str, str]
    seen: Callable[[str, str, str], Tensor]
    calls: Mapping[str, Call] = field(default_factory=dict)

    @property
    def every_token(self) -> list[int]:
        return list(range(self.case["case.token_ids"].shape[1]))

    def tokens_of(self, component: Component) -> str:
        """Which token positions of a component are recorded."""
        if component.cached:
            return "query_index"
        return self.elsewhere.get(component.composite_of or component.name, "kept")

    def places(self, tokens: str) -> Places:
        real = self.case["case.attention_mask"].numpy() != 0
        return Places(queries=real[:, self.tokens[tokens]], keys=real)

    def select(self, tensor: Tensor, axes: str, tokens: str) -> Tensor:
        return select_rows(tensor, axes, self.tokens[tokens])

    def inputs(self, component: Component) -> Captured:
        """What the reference gave to a component, at the token positions that are recorded."""
        arguments = STEPS[component.step or ""].arguments
        tokens = self.tokens_of(component)
        return {
            argument: self.seen(source, arguments[argument], tokens)
            for argument, source in component.inputs.items()
        }
