"""Turning heads by the cosines and sines of their token's position.

Su et al. 2021, "RoFormer", in the half-split layout: channel i turns together with channel i + D/2. Where cosines and
sines are of fewer channels than a head has (`head_dim`), the first channels of each head turn; the rest stands still.
"""

from collections.abc import Callable
from functools import partial

from harness.kinds.step import Array, Evaluation, Hypothesis, Step


def _heads(e: Evaluation) -> Array:
    """x (B T H·D) or (B T H D) -> (B H T D)."""
    x = e.inputs["x"]
    return e.xp.swap(x.reshape(*x.shape[:2], -1, e.inputs["cos"].shape[-1]), 1, 2)


def _halves_turned(e: Evaluation) -> tuple[Array, Array]:
    """The two products whose sum is the turned head, each (B H T D)."""
    x, cos, sin = _heads(e), e.inputs["cos"], e.inputs["sin"]
    size = cos.shape[-1]
    crossed = e.xp.concat((-x[..., size // 2 :], x[..., : size // 2]), -1)
    return x * cos[:, None], crossed * sin[:, None]


Pair = Callable[[Evaluation], tuple[Array, Array]]
"""The two products whose sum is what a port turns a head into, each (B H T D)."""


def _apart(e: Evaluation) -> tuple[Evaluation, Array | None]:
    """With the channels that turn alone, and those that stand still, (B H T D'), if there are any."""
    x, turning = e.inputs["x"], e.inputs["cos"].shape[-1]
    size = e.settings.get("head_dim", turning)
    if size == turning:
        return e, None
    heads = x.reshape(*x.shape[:2], -1, size)
    still = e.xp.swap(heads[..., turning:], 1, 2)
    return e.with_inputs(x=heads[..., :turning].reshape(*x.shape[:2], -1)), still


def _by(pair: Pair, e: Evaluation) -> Array:
    turning, still = _apart(e)
    straight, crossed = pair(turning)
    turned = straight + crossed
    return turned if still is None else e.xp.concat((turned, still), -1)


def _variance_by(pair: Pair, e: Evaluation, output: Array, u: float) -> Array:
    turning, still = _apart(e)
    spread = e.xp.rounding(u, *pair(turning), output[..., : e.inputs["cos"].shape[-1]])
    return spread if still is None else e.xp.concat((spread, still * 0), -1)


def _rope(e: Evaluation) -> Array:
    return _by(_halves_turned, e)


def _rope_variance(e: Evaluation, output: Array, u: float) -> Array:
    return _variance_by(_halves_turned, e, output, u)


def _as_halves(e: Evaluation, cos: Array, sin: Array, sign: float = 1.0) -> tuple[Array, Array]:
    return _halves_turned(e.with_inputs(cos=cos, sin=sin * sign))


def _neighbours(e: Evaluation) -> Array:
    """(B H T D), channels 2i and 2i + 1 exchanged, the first of them negated."""
    x = _heads(e)
    pairs = x.reshape(*x.shape[:-1], -1, 2)
    return e.xp.stack((-pairs[..., 1], pairs[..., 0]), -1).reshape(x.shape)


def _interleaved_pairs(e: Evaluation) -> tuple[Array, Array]:
    """Channel 2i turns with channel 2i + 1, by the i-th angle."""
    half = e.inputs["cos"].shape[-1] // 2
    cos, sin = (e.inputs[part][..., :half].repeat(2, axis=-1) for part in ("cos", "sin"))
    return _heads(e) * cos[:, None], _neighbours(e) * sin[:, None]


def _neighbours_by_halves(e: Evaluation) -> tuple[Array, Array]:
    """Channel 2i turns with channel 2i + 1, by the angles of channels i and i + D/2."""
    return _heads(e) * e.inputs["cos"][:, None], _neighbours(e) * e.inputs["sin"][:, None]


def _not_turned(e: Evaluation) -> tuple[Array, Array]:
    x = _heads(e)
    return x, x * 0


def _turned_twice(e: Evaluation) -> tuple[Array, Array]:
    cos, sin = e.inputs["cos"], e.inputs["sin"]
    return _as_halves(e, cos**2 - sin**2, 2 * cos * sin)


def _half_of_head(own_angles: bool, e: Evaluation) -> tuple[Array, Array]:
    """The first half of each head turns, in halves of its own; the rest stands still.

    own_angles: both halves of what turns have the same angles, as a head of that size would; else the angles given
    """
    x, size = _heads(e), e.inputs["cos"].shape[-1]
    quarter = size // 4
    turning, still = x[..., : size // 2], x[..., size // 2 :]
    crossed = e.xp.concat((-turning[..., quarter:], turning[..., :quarter], still * 0), -1)

    def angles(part: str, rest: float) -> Array:
        given = e.inputs[part]
        first = (given[..., :quarter],) * 2 if own_angles else (given[..., : size // 2],)
        return e.xp.concat((*first, given[..., size // 2 :] * 0 + rest), -1)[:, None]

    return x * angles("cos", 1.0), crossed * angles("sin", 0.0)


def _dim_major(e: Evaluation) -> tuple[Array, Array]:
    """x split into heads as (D H) instead of (H D)."""
    x, size = e.inputs["x"], e.inputs["cos"].shape[-1]
    apart = e.xp.swap(x.reshape(*x.shape[:2], size, -1), 2, 3)
    return _halves_turned(e.with_inputs(x=apart))


def _one_further(by: int, e: Evaluation) -> tuple[Array, Array]:
    """Turned by the angle of the next position, or the one before."""
    cos, sin = e.inputs["cos"], e.inputs["sin"]
    frequencies = e.xp.inverse_frequencies(e.settings["theta"], cos.shape[-1]) * by
    step = e.xp.concat((frequencies, frequencies), -1)
    return _as_halves(
        e, cos * e.xp.cos(step) - sin * e.xp.sin(step), sin * e.xp.cos(step) + cos * e.xp.sin(step)
    )


def _first_row(e: Evaluation) -> tuple[Array, Array]:
    return _as_halves(e, *(e.inputs[part][:1] + e.inputs[part] * 0 for part in ("cos", "sin")))


def _theta_known(e: Evaluation) -> Evaluation | None:
    return e if "theta" in e.settings else None


def _turned(
    name: str, says: str, pair: Pair, change: Callable[[Evaluation], Evaluation | None] | None = None
) -> Hypothesis:
    return Hypothesis(
        name, says, change=change, evaluate=partial(_by, pair), variance=partial(_variance_by, pair)
    )


TURNS = (
    _turned(
        "interleaved_pairs",
        "channels 2i and 2i+1 turn together (interleaved), not i and i+D/2",
        _interleaved_pairs,
    ),
    _turned(
        "interleaved_pairs",
        "channels 2i and 2i+1 turn together, by the angles of halves",
        _neighbours_by_halves,
    ),
    _turned(
        "sign_flipped", "turned backwards", lambda e: _as_halves(e, e.inputs["cos"], e.inputs["sin"], -1)
    ),
    _turned("rope_missing", "not turned at all", _not_turned),
    _turned("rope_twice", "turned twice", _turned_twice),
    _turned(
        "cos_and_sin_exchanged",
        "cos and sin exchanged",
        lambda e: _as_halves(e, e.inputs["sin"], e.inputs["cos"]),
    ),
    *(
        _turned(
            "partial_rotary", "only half of each head turns (partial rotary)", partial(_half_of_head, own)
        )
        for own in (False, True)
    ),
    _turned("heads_dim_major", "heads split as (D H) instead of (H D)", _dim_major),
    _turned("position_plus_one", "turned as if one position further", partial(_one_further, 1), _theta_known),
    _turned(
        "position_minus_one", "turned as if one position earlier", partial(_one_further, -1), _theta_known
    ),
    _turned("first_row_for_all", "every text of the batch turned by the first one's positions", _first_row),
    _turned(
        "sine_part_missing",
        "x cos alone: the part with sin left out",
        lambda e: _as_halves(e, e.inputs["cos"], e.inputs["sin"] * 0),
    ),
    _turned(
        "cosine_part_missing",
        "the part with sin alone: x cos left out",
        lambda e: _as_halves(e, e.inputs["cos"] * 0, e.inputs["sin"]),
    ),
)


ROPE = Step("rope", {"x": "B T I", "cos": "B T D", "sin": "B T D"}, "B H T D", _rope, _rope_variance, TURNS)
