"""Mistakes that ports make where they run token by token, and nowhere else.

They are hypotheses as those in `harness.kinds`, and are tried beside those of the step. `settings` hold, beside all
others, `decoded`: the case as the port decoded it (`DecodedCase`), and `tokens`: which of its tokens are looked at.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from harness.diagnose.problem import Array, Problem, step_of
from harness.kinds.step import Evaluation, Hypothesis, Step
from harness.kinds.table import STEPS

if TYPE_CHECKING:
    from harness.diagnose.decoded import DecodedCase


@dataclass(frozen=True)
class InDecode(Problem):
    """A problem of a component in decode: what is known of decode is tried, too.

    What a compiled run hands out need not be bit for bit what the next component in it takes in: XLA may compute a
    small product once more where it is used. Seen: probabilities at 1.2 times what the rule allows, of the scores
    that were handed out.
    """

    slack: ClassVar[float] = 2.0

    @property
    def step(self) -> Step:
        step = step_of(self.component)
        own = (hypothesis for hypothesis in step.hypotheses if hypothesis.name not in _OF_WHOLE_PASSES)
        return replace(step, hypotheses=(*own, *self._of_decode(step.name)))

    def _of_decode(self, step: str) -> Iterator[Hypothesis]:
        yield from _OF_STEP.get(step, ())
        if step in ("expand_keys", "expand_values"):
            yield from self._other_caches()

    def _other_caches(self) -> Iterator[Hypothesis]:
        source = self.component.inputs["x"]
        for other in self.observations[0].evaluation.settings["decoded"].decoded.cache:
            if other != source and other.rpartition(".")[2] == source.rpartition(".")[2]:
                says = f"{other} is read from the cache, not {source}"
                yield Hypothesis("cache_of_another_layer", says, change=partial(_from_cache, other))


_OF_WHOLE_PASSES = ("positions_from_zero", "query_index_from_zero")
"""Hypotheses that say something else of single tokens."""


def _from_cache(name: str, e: Evaluation) -> Evaluation:
    return e.with_inputs(x=e.settings["decoded"].held(name))


Positions = Callable[["DecodedCase", Array], Array]
"""(the case, tokens) -> their positions, (T) or (B T)."""


def _at(positions: Positions, e: Evaluation) -> Evaluation:
    given = e.inputs["positions"]
    made = np.broadcast_to(positions(e.settings["decoded"], e.settings["tokens"]), given.shape)
    return e.with_inputs(positions=made.astype(given.dtype))


def _where_the_prompt_ended(case: "DecodedCase", tokens: Array) -> Array:
    return case.case["positions"][:, case.prompt - 1 : case.prompt]


def _of_capacity(less: int, case: "DecodedCase", tokens: Array) -> Array:
    return np.full_like(tokens, case.capacity - less)


_MADE_UP: tuple[tuple[str, str, Positions], ...] = (
    (
        "positions_from_zero",
        "positions are slots of the cache: padding counted",
        lambda case, tokens: tokens,
    ),
    (
        "positions_start_over",
        "positions start over after the prompt",
        lambda case, tokens: tokens - case.prompt,
    ),
    ("position_not_advanced", "the position stays where the prompt ended", _where_the_prompt_ended),
    ("position_of_capacity", "the position is the cache's capacity", partial(_of_capacity, 0)),
    ("position_of_capacity", "the position is that of the cache's last slot", partial(_of_capacity, 1)),
)

_POSITIONS = tuple(Hypothesis(name, says, partial(_at, positions)) for name, says, positions in _MADE_UP)


def _within_the_step(e: Evaluation) -> Evaluation:
    return e.with_inputs(query_index=e.inputs["query_index"] * 0)


def _rolled(by: Callable[["DecodedCase"], int], e: Evaluation) -> Evaluation:
    return e.with_inputs(
        attention_mask=np.roll(e.inputs["attention_mask"], by(e.settings["decoded"]), axis=1)
    )


_MASKS = (
    Hypothesis(
        "query_index_from_zero",
        "the causal mask is counted from the step's first token, not from the cache's first slot",
        change=_within_the_step,
    ),
    *(
        Hypothesis("padding_mask_moved", f"the padding mask is {says}", change=partial(_rolled, by))
        for says, by in (
            ("one slot too far to the right", lambda case: 1),
            ("one slot too far to the left", lambda case: -1),
            ("aligned with the end of the cache", lambda case: case.capacity - case.tokens),
        )
    ),
)


def _axis(e: Evaluation) -> int:
    """Of tokens in what is expanded: keys (B K T D) or values (B T K·D)."""
    return 2 if e.inputs["x"].ndim == 4 else 1


def _instead(tokens: Callable[[int], slice], value: float, e: Evaluation) -> Evaluation:
    x = np.array(e.inputs["x"])
    np.moveaxis(x, _axis(e), 0)[tokens(x.shape[_axis(e)])] = value
    return e.with_inputs(x=x)


_READ = tuple(
    Hypothesis(name, says, change=partial(_instead, tokens, value))
    for name, says, tokens in (
        (
            "own_slot_not_read",
            "a token does not find itself in the cache",
            lambda count: slice(count - 1, None),
        ),
        (
            "cache_not_read",
            "a token finds nothing but itself in the cache",
            lambda count: slice(0, count - 1),
        ),
    )
    for value in (0.0, np.nan)
)


def _turned_by(positions: Callable[["DecodedCase"], Array], e: Evaluation) -> Evaluation:
    """Keys (B K T D) turned once more, by the angles of positions (B T)."""
    cos, sin = e.settings["decoded"].angles(positions(e.settings["decoded"]))
    x = np.swapaxes(e.inputs["x"].astype(np.float64), 1, 2)
    turned = STEPS["rope"].evaluate(Evaluation(e.xp, {"x": x, "cos": cos, "sin": sin}, {}, {}))
    return e.with_inputs(x=turned)


def _of_reader(case: "DecodedCase") -> Array:
    return np.repeat(case.case["positions"][:, -1:], case.tokens, axis=1)


def _turned_variance(e: Evaluation, output: Array, u: float) -> Array:
    """Products of numbers as large as the head may have been added."""
    largest = np.sqrt(np.mean(np.square(output), axis=-1, keepdims=True)) + 0 * output
    return e.xp.rounding(u, largest, output)


_TURNED = tuple(
    Hypothesis(
        "rope_twice",
        f"keys are turned again {says}",
        change=partial(_turned_by, positions),
        variance=_turned_variance,
    )
    for says, positions in (
        ("by the angles of the token that reads them", _of_reader),
        ("by their own angles when they are read", lambda case: case.case["positions"]),
    )
)


def _before_norm(turned: bool, e: Evaluation) -> Evaluation | None:
    """What the norm of heads took in, in the place of what it put out."""
    x = e.settings["decoded"].before_norm(e.settings["component"], e.settings["tokens"])
    if x is None:
        return None
    still = {} if turned else {"cos": e.inputs["cos"] * 0 + 1, "sin": e.inputs["sin"] * 0}
    return e.with_inputs(x=x, **still)


_BEFORE_NORM = tuple(
    Hypothesis("cached_before_norm", says, change=partial(_before_norm, turned))
    for says, turned in (
        ("heads before their norm", True),
        ("heads before their norm, and not turned", False),
    )
)

_OF_STEP = {
    "cos": _POSITIONS,
    "sin": _POSITIONS,
    "probs": _MASKS,
    "expand_keys": (*_READ, *_TURNED),
    "expand_values": _READ,
    "rope": _BEFORE_NORM,
}
