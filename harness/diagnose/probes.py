"""What a port's own component does to inputs that are made to tell: zeros and unit vectors.

A product of matrices gives its bias for zeros and a column of its weight for each unit vector. RoPE shows for a unit
vector which channels it turns together, which way, and by what angle. Nothing has to be known of the mistake, so this
is asked when no hypothesis explains a failure.
"""

from collections.abc import Callable

import numpy as np

from harness.diagnose.fits import nearest_rows, spans
from harness.diagnose.problem import Array, Observation, Problem, wide
from harness.diagnose.subject import Subject
from harness.model import UNIT_ROUNDOFF

_MOST_WORK = 2e10
"""Multiplications that reading a weight off may take."""
_POSITIONS = (0, 1, 3)


def probe(subject: Subject, problem: Problem) -> str | None:
    """What the port's component turns out to be; None for steps that are not probed, and where the port refuses."""
    probes: dict[str, Callable[[Subject, Problem, Observation], str | None]] = {
        "linear": _linear,
        "rope": _rope,
    }
    run = probes.get(problem.step.name)
    try:
        return None if run is None else run(subject, problem, problem.observations[0])
    except Exception:  # whatever a port raises for inputs that it was not made for: then it cannot be asked
        return None


def _linear(subject: Subject, problem: Problem, observation: Observation) -> str | None:
    """Read weight and bias off, and hold them against the reference's."""
    weight = wide(np.asarray(observation.evaluation.parameters["weight"]))
    outputs, inputs = weight.shape
    if inputs * inputs * outputs > _MOST_WORK:
        return None
    dtype, right = observation.answer.dtype, observation.evaluation.parameters.get("bias")
    bias = _asked(subject, observation, x=np.zeros((1, 1, inputs), dtype))[0, 0]
    # Unit vectors so long that a bias is lost beside the weight. Each is a text of its own: what tokens do to each
    # other is not asked here.
    length = 1.0 if dtype == np.float16 else 2.0**40
    found = _asked(subject, observation, x=(length * np.eye(inputs)).astype(dtype)[:, None])[:, 0].T
    found = (found - bias[:, None]) / length
    noise = 2 * UNIT_ROUNDOFF[problem.dtype] * (np.abs(weight) + np.abs(bias)[:, None] / length)
    told = [*_of_bias(bias, right), *_of_weight(found, weight, noise)]
    if not told:
        return "probed with zeros and unit vectors: weight and bias are right; the product is taken otherwise"
    return f"probed with zeros and unit vectors: {'; '.join(told)}"


def _asked(subject: Subject, observation: Observation, **inputs: Array) -> Array:
    return wide(subject.answer(observation.golden, inputs))


def _of_bias(found: Array, right: Array | None) -> list[str]:
    if right is None:
        return ["a bias that the reference has not"] if found.any() else []
    wrong = np.flatnonzero(found != right)
    if not len(wrong):
        return []
    if not found.any():
        return ["no bias"]
    return [f"bias wrong in channels {spans(wrong)} of {len(found)}"]


def _of_weight(found: Array, right: Array, noise: Array) -> list[str]:
    """found, right, noise: (O I)."""
    wrong = np.abs(found - right) > noise
    if not wrong.any():
        return []
    for what, order in (
        ("outputs", _order(found, right, noise)),
        ("inputs", _order(found.T, right.T, noise.T)),
    ):
        if order is not None:
            moved = np.flatnonzero(order != np.arange(len(order)))
            first = f"{moved[0]} is what belongs to {order[moved[0]]}"
            return [
                f"{what} of the weight in another order: {spans(moved)} of {len(order)} are moved, {first}"
            ]
    rows, columns = np.flatnonzero(wrong.any(axis=1)), np.flatnonzero(wrong.any(axis=0))
    zero = ", zero there" if not found[wrong].any() else ""
    if wrong.sum() == 1:
        place = (int(rows[0]), int(columns[0]))
        return [f"weight{list(place)} is {found[place]:.6g}, where the reference has {right[place]:.6g}"]
    return [
        f"weight wrong in {wrong.mean():.1%} of its elements: outputs {spans(rows)} of {len(right)}, "
        f"inputs {spans(columns)} of {right.shape[1]}{zero}"
    ]


def _order(found: Array, right: Array, noise: Array) -> Array | None:
    """For each row of `found` the same row of `right`, if all are there, in another order."""
    order = nearest_rows(found, right)
    alike = np.abs(found - right[order]) <= noise[order]
    return order if len(np.unique(order)) == len(right) and alike.all() else None


def _rope(subject: Subject, problem: Problem, observation: Observation) -> str | None:
    """Turn unit vectors of the first head by the reference's angles at a few positions."""
    size = int(observation.evaluation.inputs["cos"].shape[-1])
    given, dtype = observation.evaluation.inputs["x"], observation.answer.dtype
    heads = int(np.prod(given.shape[2:])) // size
    x = np.tile(np.eye(size)[:, None], (1, heads, 1)).reshape(1, size, *given.shape[2:]).astype(dtype)
    frequencies = observation.evaluation.xp.inverse_frequencies(
        observation.evaluation.settings["theta"], size
    )
    turned = {}
    for position in _POSITIONS:
        angles = np.tile(position * frequencies, 2)
        cos, sin = (np.tile(f(angles), (1, size, 1)).astype(dtype) for f in (np.cos, np.sin))
        turned[position] = _asked(subject, observation, x=x, cos=cos, sin=sin)[0, 0]
    return f"probed with unit vectors at positions 0, 1 and 3: {_of_turns(turned, frequencies)}"


def _of_turns(turned: dict[int, Array], frequencies: Array) -> str:
    """turned: position -> (channel that went in, channel that came out)."""
    size = len(turned[0])
    wrong = {p: ~np.isclose(found, _turn(p, frequencies), atol=1e-2) for p, found in turned.items()}
    if not any(places.any() for places in wrong.values()):
        return "the first head turns as it should"
    if wrong[0].any():
        one, other = np.argwhere(wrong[0])[0]
        found = turned[0][one, other]
        return f"at position 0, where nothing turns, channel {one} gives {found:.4g} times itself to channel {other}"
    off = turned[1] - np.diag(np.diag(turned[1]))
    sizes, partners = np.abs(off).max(axis=1), np.argmax(np.abs(off), axis=1)
    still = np.flatnonzero(sizes < 1e-6)
    if len(still) == size:
        return "no channel turns with another one"
    right = (np.arange(size) + size // 2) % size
    astray = np.flatnonzero((partners != right) & (sizes > 1e-3))
    if len(astray):
        one = astray[0]
        return (
            f"channel {one} turns together with channel {partners[one]}, where the reference has {right[one]}"
        )
    position = next(p for p in _POSITIONS if wrong[p].any())
    one, other = np.argwhere(wrong[position])[0]
    found, expected = turned[position][one, other], _turn(position, frequencies)[one, other]
    rest = f"; channels {spans(still)} stand still" if len(still) else ""
    gives = f"channel {one} gives {found:.4g} to channel {other}"
    return f"at position {position} {gives}, where the reference has {expected:.4g}{rest}"


def _turn(position: int, frequencies: Array) -> Array:
    """The reference's turn in halves, as (channel that goes in, channel that comes out)."""
    cos, sin = np.diag(np.cos(position * frequencies)), np.diag(np.sin(position * frequencies))
    return np.block([[cos, sin], [-sin, cos]])
