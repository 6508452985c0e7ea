"""What is left to say of a failure that no hypothesis explains: how the port's numbers are made of the right ones.

Each fit says something only if it holds by the rule that judges components. A description is no name: it says
which channels and which tokens are wrong, or by what factor, and nothing of why.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from harness.compare.metrics import Places
from harness.diagnose.problem import Array, Observation, Problem, Sample
from harness.diagnose.search import Outcome, allowance, distance, explains, under

_MOST_CHANNELS = 4096
"""Beyond this, comparing every channel with every other takes too long."""
_FEW = 0.5
"""Up to this share of the channels or tokens, what is wrong is told by which ones."""
_RIGHT = 0.8
"""How near to their limit the others may be: nearer, and they may be as wrong, only less so."""
_LEAST_ROWS = 4
"""Numbers that are fitted have to be fewer than those they are fitted to."""


@dataclass(frozen=True)
class Seen:
    """One observation in full, beside what is right there."""

    problem: Problem
    observation: Observation
    outcome: Outcome

    @property
    def answer(self) -> Array:
        return self.observation.answer.astype(np.float64)

    def fits(self, output: Array, growth: float = 1.0) -> bool:
        """Whether the port's answer is `output`. growth: how much rounding grew with it."""
        sigma = None if self.outcome.sigma is None else self.outcome.sigma * growth
        found = distance(self.problem, self.observation, Outcome(output, sigma), Sample())
        return explains(found, self.observation.over_floor)


def describe(problem: Problem, observation: Observation) -> str | None:
    """What the port's answer is, in words; None if no fit holds."""
    outcome = under(problem, observation, None, Sample())
    if outcome is None or outcome.output.shape != observation.answer.shape:
        return None
    if not np.isfinite(outcome.output).all() or not np.isfinite(observation.answer.astype(np.float64)).all():
        return None
    seen = Seen(problem, observation, outcome)
    if seen.fits(outcome.output):
        return "it is what the weights of this checkpoint give: they are not the ones that were recorded"
    fits: tuple[Callable[[Seen], str | None], ...] = (
        _few_channels,
        _few_tokens,
        _scale,
        _combination,
        _offset,
        _channel_order,
        _token_order,
        _channel_scales,
    )
    with np.errstate(all="ignore"):
        return next((text for text in (fit(seen) for fit in fits) if text), None)


def rows_of(tensor: Array, axes: str, places: Places) -> Array:
    """A tensor as (real tokens, channels): all that belongs to one index of the axes that are no place is a channel."""
    letters = axes.split()
    front = [letters.index("B"), letters.index("T")]
    rest = [n for n in range(len(letters)) if n not in front]
    moved = tensor.transpose(*front, *rest)
    return moved.reshape(*moved.shape[:2], -1)[places.queries]


def _pair(seen: Seen) -> tuple[Array, Array]:
    axes, places = seen.problem.component.axes, seen.observation.places
    return rows_of(seen.answer, axes, places), rows_of(seen.outcome.output, axes, places)


def _scale(seen: Seen) -> str | None:
    right, valid = seen.outcome.output, seen.observation.places.valid(seen.problem.component.axes)
    answer, right_valid = np.where(valid, seen.answer, 0), np.where(valid, right, 0)
    factor = _ratio(answer, right_valid)
    if factor is None or not seen.fits(right * factor, abs(factor)):
        return None
    return f"the right output times {_number(factor)}"


def _number(factor: float) -> str:
    """Six digits; more where these say 1."""
    told = f"{factor:.6g}"
    return f"{factor:.8g}" if told == "1" else told


def _ratio(answer: Array, right: Array) -> float | None:
    power = float(np.vdot(right, right))
    return float(np.vdot(right, answer)) / power if power > 0 and np.any(answer) else None


def _combination(seen: Seen) -> str | None:
    """a x + b y of a step with two inputs of the output's shape."""
    inputs = {n: x for n, x in seen.observation.evaluation.inputs.items() if x.shape == seen.answer.shape}
    if len(inputs) != 2 or seen.answer.size < _LEAST_ROWS:
        return None
    valid = np.broadcast_to(seen.observation.places.valid(seen.problem.component.axes), seen.answer.shape)
    features = np.stack([x[valid] for x in inputs.values()], axis=-1)
    (a, b), *_ = np.linalg.lstsq(features, seen.answer[valid], rcond=None)
    first, second = inputs.values()
    if not seen.fits(a * first + b * second, max(abs(a), abs(b), 1.0)):
        return None
    left, right = inputs
    return f"{a:.6g} · {left} + {b:.6g} · {right}"


def _offset(seen: Seen) -> str | None:
    """The same number added to each channel in every token."""

    def fitted(answer: Array, right: Array) -> Array:
        return np.mean(answer - right, axis=0)

    offset = _by_channel(seen, fitted, lambda right, offset: right + offset)
    if offset is None:
        return None
    return (
        f"the right output plus an offset that is the same for every token, from {offset.min():.4g} to "
        f"{offset.max():.4g} by channel: a bias that is added or left out"
    )


def _channel_scales(seen: Seen) -> str | None:
    """Each channel times a number of its own."""

    def fitted(answer: Array, right: Array) -> Array:
        power = np.sum(right**2, axis=0)
        return np.sum(answer * right, axis=0) / np.where(power > 0, power, 1.0)

    factors = _by_channel(seen, fitted, lambda right, factors: right * factors)
    if factors is None:
        return None
    span = f"from {factors.min():.4g} to {factors.max():.4g}"
    return f"the right output with each channel times a number of its own, {span}"


def _by_channel(
    seen: Seen, fitted: Callable[[Array, Array], Array], applied: Callable[[Array, Array], Array]
) -> Array | None:
    """A number for each channel, fitted to all tokens; one fitted to every second token must hold for the others."""
    answer, right = _pair(seen)
    if len(answer) < _LEAST_ROWS:
        return None
    halves = fitted(answer[::2], right[::2]), fitted(answer[1::2], right[1::2])
    crossed = np.empty_like(right)
    crossed[::2], crossed[1::2] = applied(right[::2], halves[1]), applied(right[1::2], halves[0])
    return fitted(answer, right) if _rows_fit(seen, crossed, growth=2.0) else None


def _rows_fit(seen: Seen, rows: Array, growth: float = 1.0) -> bool:
    """Whether the answer is `rows` at the real tokens; padding is not looked at."""
    axes, places = seen.problem.component.axes, seen.observation.places
    letters = axes.split()
    front = [letters.index("B"), letters.index("T")]
    rest = [n for n in range(len(letters)) if n not in front]
    moved = seen.outcome.output.transpose(*front, *rest).copy()
    flat = moved.reshape(*moved.shape[:2], -1)
    flat[places.queries] = rows
    back = np.argsort([*front, *rest])
    return seen.fits(flat.reshape(moved.shape).transpose(*back), growth)


def _channel_order(seen: Seen) -> str | None:
    """The right channels in another order."""
    answer, right = _pair(seen)
    if "S" in seen.problem.component.axes.split() or right.shape[1] > _MOST_CHANNELS or len(right) < 2:
        return None
    order = nearest_rows(answer.T, right.T)
    if len(np.unique(order)) < len(order) or not _rows_fit(seen, right[:, order]):
        return None
    moved = np.flatnonzero(order != np.arange(len(order)))
    first = f"channel {moved[0]} holds what belongs to {order[moved[0]]}"
    return f"the right channels in another order: {spans(moved)} of {len(order)} are moved, {first}"


def _token_order(seen: Seen) -> str | None:
    """The right rows at other tokens."""
    answer, right = _pair(seen)
    if "S" in seen.problem.component.axes.split() or len(right) < 2:
        return None
    order = nearest_rows(answer, right)
    if not _rows_fit(seen, right[order]):
        return None
    moved = np.flatnonzero(order != np.arange(len(order)))
    return f"the right rows at other tokens: token {moved[0]} holds what belongs to token {order[moved[0]]}"


def nearest_rows(these: Array, those: Array) -> Array:
    """For each row of `these`, the row of `those` that is nearest."""
    distance = np.sum(these**2, 1)[:, None] - 2 * these @ those.T + np.sum(those**2, 1)[None]
    return np.argmin(distance, axis=1)


def _few_channels(seen: Seen) -> str | None:
    axes = seen.problem.component.axes
    letters = axes.split()
    wrong = _wrong(seen, tuple(n for n, letter in enumerate(letters) if letter in "BTS"), "channel")
    if wrong is None:
        return None
    names = [letter for letter in letters if letter not in "BTS"]
    if len(names) > 1:
        return f"only {_grid(wrong, names)}; {_what_there(seen, wrong)}"
    places = np.flatnonzero(wrong)
    noun = "head" if names == ["H"] else "channel"
    told = f"only {noun}{'s' if len(places) > 1 else ''} {spans(places)} of {wrong.size} {_are(len(places))} wrong"
    return f"{told}; {_what_there(seen, wrong)}"


def _few_tokens(seen: Seen) -> str | None:
    letters = seen.problem.component.axes.split()
    wrong = _wrong(seen, tuple(n for n, letter in enumerate(letters) if letter not in "BT"), "row")
    if wrong is None:
        return None
    real = int(seen.observation.places.queries.sum())
    texts = "; ".join(
        f"token{'s' if row.sum() > 1 else ''} {spans(np.flatnonzero(row))}"
        + (f" of text {n}" if len(wrong) > 1 else "")
        for n, row in enumerate(wrong)
        if row.any()
    )
    return f"only {texts} {_are(int(wrong.sum()))} wrong, of {real} in all"


def _wrong(seen: Seen, summed: tuple[int, ...], view: str) -> Array | None:
    """Which channels, or which tokens, are wrong.

    None if none is, if too many are to be told by which, or if the others are not right either.
    """
    valid = seen.observation.places.valid(seen.problem.component.axes)
    error = np.where(valid, seen.answer - seen.outcome.output, 0.0)
    right = np.where(valid, seen.outcome.output, 0.0)
    allowed = getattr(allowance(seen.problem, seen.observation, seen.outcome, Sample()), view)
    powers = np.sum(right**2, axis=summed, keepdims=True)
    # A channel or token of which nothing is left, or that was nothing, is measured against an average one.
    typical = np.maximum(powers, np.mean(powers) * 1e-6)
    wrong: Array = np.sum(error**2, axis=summed, keepdims=True) > allowed**2 * typical
    if not 0 < wrong.mean() <= _FEW:
        return None
    mended = np.where(wrong, seen.outcome.output, seen.answer)
    rest = distance(seen.problem, seen.observation, seen.outcome, Sample(), answer=mended)
    return np.squeeze(wrong, axis=summed) if rest.over_limit <= _RIGHT else None


def _what_there(seen: Seen, wrong: Array) -> str:
    """What the wrong channels hold, if it can be told, and that the others are right."""
    letters = seen.problem.component.axes.split()
    channel_axes = [n for n, letter in enumerate(letters) if letter not in "BTS"]
    valid = np.broadcast_to(seen.observation.places.valid(seen.problem.component.axes), seen.answer.shape)
    there = np.moveaxis(np.where(valid, seen.answer, 0.0), channel_axes, range(len(channel_axes)))[wrong]
    if not there.any():
        return "they are zero there" if wrong.sum() > 1 else "it is zero"
    return next(_one_weight(seen, wrong), "the others are right")


def _one_weight(seen: Seen, wrong: Array) -> Iterator[str]:
    """A single wrong weight moves one output of a product, by a multiple of one input."""
    if seen.problem.step.name != "linear" or wrong.sum() != 1:
        return
    answer, right = _pair(seen)
    x = seen.observation.evaluation.inputs["x"][seen.observation.places.queries]
    if len(x) < _LEAST_ROWS:
        return
    output = int(np.flatnonzero(wrong)[0])
    difference = answer[:, output] - right[:, output]
    power = np.sum(x**2, axis=0)
    factor = x.T @ difference / np.where(power > 0, power, 1.0)
    left = np.sum((difference[:, None] - x * factor) ** 2, axis=0)
    place = int(np.argmin(left))
    moved = right.copy()
    moved[:, output] += x[:, place] * factor[place]
    if _rows_fit(seen, moved):
        yield f"as if weight[{output}, {place}] were larger by {factor[place]:.4g}"


def _grid(wrong: Array, names: list[str]) -> str:
    """Channels of several axes, each told by its own places."""
    told = [
        f"{name} {spans(np.flatnonzero(wrong.any(axis=tuple(m for m in range(wrong.ndim) if m != n))))}"
        for n, name in enumerate(names)
    ]
    return f"channels within {', '.join(told)} are wrong ({int(wrong.sum())} of {wrong.size})"


def spans(places: Array, most: int = 6) -> str:
    """`0, 3-7, 9`; where there are many, the first few and how many more."""
    if len(places) == 0:
        return "none"
    breaks = np.flatnonzero(np.diff(places) > 1)
    starts, ends = np.append(0, breaks + 1), np.append(breaks, len(places) - 1)
    told = [
        f"{places[a]}-{places[b]}" if b > a else str(places[a])
        for a, b in list(zip(starts, ends, strict=True))[:most]
    ]
    more = len(starts) - most
    return ", ".join(told) + (f" and {more} more" if more > 0 else "")


def _are(count: int) -> str:
    return "are" if count > 1 else "is"
