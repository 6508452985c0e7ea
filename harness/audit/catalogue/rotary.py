"""Mistakes in the angles of RoPE, and in turning queries and keys by them."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from msgspec.structs import replace

from harness.audit.catalogue import scaling
from harness.audit.catalogue.making import heads_inside, setting, to_bfloat16
from harness.audit.catalogue.scaling import ANGLES, frequencies, scaling_of, wave
from harness.audit.fault import Answer, Area, Call, Fault, always
from harness.model import Component

Array = Any

_ROPE = ("*.q_rope", "*.k_rope")


def _own(call: Call, theta: float | None = None, exponent: float = 2.0) -> Array:
    """The frequencies (D/2) of this checkpoint, or with another base or exponent."""
    return frequencies(call, scaling_of(call.component), theta, exponent)


def _wave(call: Call, angles: Array) -> Array:
    return wave(call, angles, scaling_of(call.component))


def _turning(turning: Callable[[Call], Array], when: Callable[[Component], bool] = always) -> Answer:
    """Other frequencies (D/2)."""
    return Answer(ANGLES, lambda call: _wave(call, call.inputs["positions"][..., None] * turning(call)), when)


def _theta(value: float) -> Answer:
    return _turning(lambda call: _own(call, value), setting("theta", lambda theta: theta != value))


def _exponent(value: float) -> Answer:
    return _turning(lambda call: _own(call, exponent=value))


def _at_positions(moved: Callable[[Array], Array]) -> Answer:
    return Answer(ANGLES, lambda call: call.run(positions=moved(call.inputs["positions"])))


def _from_zero(positions: Array) -> Array:
    return np.broadcast_to(np.arange(positions.shape[1]), positions.shape)


def _pairs_side_by_side(call: Call) -> Array:
    """Angle of pair i in channels 2i and 2i + 1."""
    size = call.component.settings["head_dim"]
    return call.output[..., np.repeat(np.arange(size // 2), 2)]


def _exchanged(call: Call) -> Array:
    other = replace(call.component, kind="sin" if call.component.kind == "cos" else "cos")
    return _wave(dataclasses.replace(call, component=other), call.inputs["positions"][..., None] * _own(call))


def _coarse_angles(call: Call) -> Array:
    return _wave(call, to_bfloat16(call.inputs["positions"][..., None] * _own(call)))


def _rotated(call: Call, cos: Array, sin: Array, sign: float = -1.0) -> Array:
    """Halves of a head paired, with cos and sin (B T D) for every head."""
    x = heads_inside(call.inputs["x"], cos.shape[-1])
    first, second = np.split(x, 2, axis=-1)
    return x * cos[:, None] + np.concatenate([sign * second, first], axis=-1) * sin[:, None]


def _neighbours_paired(call: Call) -> Array:
    """Channels 2i and 2i + 1 turned as one pair."""
    cos, sin = call.inputs["cos"], call.inputs["sin"]
    x = heads_inside(call.inputs["x"], cos.shape[-1])
    half = cos.shape[-1] // 2
    c, s = cos[:, None, :, :half], sin[:, None, :, :half]
    even, odd = x[..., ::2], x[..., 1::2]
    return np.stack([even * c - odd * s, odd * c + even * s], axis=-1).reshape(x.shape)


def _half_of_the_channels(call: Call) -> Array:
    """The first half of a head turned as a head of half the size, the second left as it is."""
    cos, sin = call.inputs["cos"], call.inputs["sin"]
    x = heads_inside(call.inputs["x"], cos.shape[-1])
    half = cos.shape[-1] // 2
    turned, kept = x[..., :half], x[..., half:]
    first, second = np.split(turned, 2, axis=-1)
    moved = np.concatenate([-second, first], axis=-1)
    return np.concatenate([turned * cos[:, None, :, :half] + moved * sin[:, None, :, :half], kept], axis=-1)


def _twice(call: Call) -> Array:
    once = call.output
    return call.run(x=once.swapaxes(1, 2).reshape(call.inputs["x"].shape))


def _channels_first(call: Call) -> Array:
    """x split as (D H) instead of (H D)."""
    x = call.inputs["x"]
    size = call.inputs["cos"].shape[-1]
    return call.run(x=x.reshape(*x.shape[:2], size, -1).swapaxes(2, 3).reshape(x.shape))


def _first_text_for_all(call: Call) -> Array:
    cos, sin = call.inputs["cos"], call.inputs["sin"]
    return call.run(cos=np.broadcast_to(cos[:1], cos.shape), sin=np.broadcast_to(sin[:1], sin.shape))


def _by_head_instead_of_token(call: Call) -> Array:
    """cos and sin laid along the heads: head h is turned as token h."""
    cos, sin = call.inputs["cos"], call.inputs["sin"]
    x = heads_inside(call.inputs["x"], cos.shape[-1])
    places = np.arange(x.shape[1]) % cos.shape[1]
    first, second = np.split(x, 2, axis=-1)
    moved = np.concatenate([-second, first], axis=-1)
    return x * cos[:, places][:, :, None] + moved * sin[:, places][:, :, None]


FAULTS = (
    *scaling.FAULTS,
    Fault(
        "theta-10000",
        Area.ROTARY,
        "the base of RoPE is the default 10000, not the checkpoint's",
        _theta(1e4),
        frozenset({"theta_10000"}),
    ),
    Fault(
        "theta-500000", Area.ROTARY, "the base of RoPE is 500000", _theta(5e5), frozenset({"theta_500000"})
    ),
    Fault(
        "position-plus-one",
        Area.ROTARY,
        "positions start at 1",
        _at_positions(lambda positions: positions + 1),
        frozenset({"position_plus_one"}),
    ),
    Fault(
        "position-minus-one",
        Area.ROTARY,
        "positions start at -1",
        _at_positions(lambda positions: positions - 1),
        frozenset({"position_minus_one"}),
    ),
    Fault(
        "positions-count-padding",
        Area.ROTARY,
        "positions are counted from the first column of the batch, padding too",
        _at_positions(_from_zero),
        frozenset({"positions_from_zero"}),
    ),
    Fault(
        "position-zero-for-all",
        Area.ROTARY,
        "every token stands at position 0",
        _at_positions(np.zeros_like),
        frozenset({"position_zero"}),
    ),
    Fault(
        "positions-end-at-the-table",
        Area.ROTARY,
        "positions beyond a table of 4096 are read at its end",
        _at_positions(lambda positions: np.minimum(positions, 4095)),
    ),
    Fault(
        "first-text-positions-for-all",
        Area.ROTARY,
        "every text of the batch has the positions of the first",
        _at_positions(lambda positions: np.broadcast_to(positions[:1], positions.shape)),
        frozenset({"first_row_for_all"}),
    ),
    Fault(
        "angles-side-by-side",
        Area.ROTARY,
        "each angle is repeated side by side, though halves of a head are paired",
        Answer(ANGLES, _pairs_side_by_side),
        frozenset({"frequencies_interleaved"}),
    ),
    Fault(
        "frequencies-reversed",
        Area.ROTARY,
        "the fastest frequency is that of the last pair",
        _turning(lambda call: _own(call)[::-1]),
        frozenset({"frequencies_reversed"}),
    ),
    Fault(
        "exponent-halved",
        Area.ROTARY,
        "the exponent of the frequencies is i/D instead of 2i/D",
        _exponent(1.0),
        frozenset({"frequency_exponent_halved"}),
    ),
    Fault(
        "exponent-doubled",
        Area.ROTARY,
        "the exponent of the frequencies is 4i/D instead of 2i/D",
        _exponent(4.0),
        frozenset({"frequency_exponent_doubled"}),
    ),
    Fault(
        "attention-factor-on",
        Area.ROTARY,
        "cos and sin are enlarged by 0.1 ln 4 + 1, as YaRN does for four times the length, though this is not YaRN",
        Answer(
            ANGLES,
            lambda call: call.output * (0.1 * math.log(4) + 1),
            lambda component: "attention_factor" not in (scaling_of(component) or {}),
        ),
        frozenset({"attention_factor"}),
    ),
    Fault(
        "cos-and-sin-exchanged-when-made",
        Area.ROTARY,
        "cos holds sines and sin cosines",
        Answer(ANGLES, _exchanged),
        frozenset({"cos_and_sin_exchanged"}),
    ),
    Fault(
        "sin-negated",
        Area.ROTARY,
        "sin has the other sign: frequencies were divided the wrong way round and negated",
        Answer(("*.sin",), lambda call: -call.output),
        frozenset({"sign_flipped"}),
    ),
    Fault(
        "angles-in-bfloat16",
        Area.ROTARY,
        "angles are computed in bfloat16",
        Answer(ANGLES, _coarse_angles),
        frozenset({"angles_low_precision"}),
    ),
    Fault(
        "frequencies-in-bfloat16",
        Area.ROTARY,
        "the frequencies were cast to bfloat16 with the model's parameters",
        _turning(lambda call: to_bfloat16(_own(call))),
        frozenset({"frequencies_low_precision"}),
    ),
    Fault(
        "positions-in-bfloat16",
        Area.ROTARY,
        "positions are cast to bfloat16, which does not tell 256 from 257",
        _at_positions(to_bfloat16),
        frozenset({"positions_low_precision"}),
    ),
    Fault(
        "cos-of-negative-positions",
        Area.ROTARY,
        "cosines are taken of minus the position",
        Answer(
            ("*.cos",),
            lambda call: call.run(positions=-call.inputs["positions"]),
            lambda component: (
                (scaling_of(component) or {}).get("rope_type") != "dynamic"
            ),  # its angles are others
        ),
        equivalent="The cosine is even: cos(-a) = cos(a) for every angle, and a sign costs no rounding.",
    ),
    Fault(
        "neighbours-paired",
        Area.ROPE,
        "channels 2i and 2i + 1 are turned as a pair, where the checkpoint pairs halves",
        Answer(_ROPE, _neighbours_paired),
        frozenset({"interleaved_pairs"}),
    ),
    Fault(
        "turned-backwards",
        Area.ROPE,
        "queries and keys are turned the other way",
        Answer(_ROPE, lambda call: call.run(sin=-call.inputs["sin"])),
        frozenset({"sign_flipped"}),
    ),
    Fault(
        "keys-turned-backwards",
        Area.ROPE,
        "keys are turned the other way than queries",
        Answer(("*.k_rope",), lambda call: call.run(sin=-call.inputs["sin"])),
        frozenset({"sign_flipped"}),
    ),
    Fault(
        "minus-missing",
        Area.ROPE,
        "the halves of a head are exchanged without the minus",
        Answer(_ROPE, lambda call: _rotated(call, call.inputs["cos"], call.inputs["sin"], sign=1.0)),
    ),
    Fault(
        "keys-not-turned",
        Area.ROPE,
        "RoPE is applied to queries only",
        Answer(("*.k_rope",), lambda call: heads_inside(call.inputs["x"], call.inputs["cos"].shape[-1])),
        frozenset({"rope_missing"}),
    ),
    Fault(
        "turned-twice",
        Area.ROPE,
        "RoPE is applied twice",
        Answer(_ROPE, _twice),
        frozenset({"rope_twice"}),
    ),
    Fault(
        "cos-and-sin-exchanged-when-used",
        Area.ROPE,
        "RoPE multiplies by sin where cos belongs",
        Answer(_ROPE, lambda call: call.run(cos=call.inputs["sin"], sin=call.inputs["cos"])),
        frozenset({"cos_and_sin_exchanged"}),
    ),
    Fault(
        "half-of-the-channels-turned",
        Area.ROPE,
        "RoPE turns only the first half of every head",
        Answer(_ROPE, _half_of_the_channels),
        frozenset({"partial_rotary"}),
    ),
    Fault(
        "sine-part-missing",
        Area.ROPE,
        "queries are multiplied by cos and nothing is added",
        Answer(("*.q_rope",), lambda call: call.run(sin=0 * call.inputs["sin"])),
        frozenset({"sine_part_missing"}),
    ),
    Fault(
        "heads-split-dim-major",
        Area.ROPE,
        "queries and keys are split into channels first and heads second",
        Answer(_ROPE, _channels_first),
        frozenset({"heads_dim_major"}),
    ),
    Fault(
        "first-text-angles-for-all",
        Area.ROPE,
        "every text of the batch is turned by the angles of the first",
        Answer(_ROPE, _first_text_for_all),
        frozenset({"first_row_for_all"}),
    ),
    Fault(
        "angles-along-the-heads",
        Area.ROPE,
        "cos and sin are laid along the heads instead of the tokens",
        Answer(_ROPE, _by_head_instead_of_token),
    ),
)
