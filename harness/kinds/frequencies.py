"""The frequencies of rotary position embedding: plain, or stretched for texts longer than a model was trained on.

How they are stretched stands in a step's setting `scaling`, without which they are plain:

    linear    every frequency divided by `factor` (Kaiokendev 2023)
    dynamic   the base enlarged as soon as a call is longer than `max_position_embeddings` ("NTK-aware"; bloc97 2023)
    yarn      slow frequencies divided, fast ones kept, and cos and sin enlarged (Peng et al. 2023, "YaRN")
    llama3    waves longer than the original length divided, shorter ones kept (Llama 3.1)

Each is written as the reference writes it, operation by operation, so that it is bit-equal in float32.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.errors import GoldensError
from harness.kinds.step import Array, Evaluation, Settings

_BETA_FAST, _BETA_SLOW = 32, 1
"""YaRN's own: turns within the original length from which a frequency is kept, and up to which it is divided."""
_ORIGINAL = "original_max_position_embeddings"
_SINGULAR = 0.001
"""What the reference widens an empty ramp by."""


def scaling_of(parameters: Mapping[str, Any], longest: int) -> dict[str, Any] | None:
    """The setting `scaling` for a reference's `rope_parameters`; None for plain frequencies.

    longest: `max_position_embeddings`, which `linear` and `dynamic` take for the original length. What is left out has
    the value that the reference takes for it.
    Raises GoldensError for a rope type that is not known.
    """
    rope_type = parameters.get("rope_type", "default")
    if rope_type == "default":
        return None
    if rope_type not in TYPES:
        known = ", ".join(map(repr, ("default", *TYPES)))
        raise GoldensError(f"rotary_emb has rope_type {rope_type!r}: only {known} can be recorded")
    original = parameters.get(_ORIGINAL) if _ORIGINAL in TYPES[rope_type].needs else longest
    factor = parameters.get("factor")
    if rope_type == "yarn" and factor is None and original:
        factor = longest / original
    needed: dict[str, Any] = {
        **{name: parameters.get(name) for name in TYPES[rope_type].needs},
        "factor": factor,
        _ORIGINAL: original,
    }
    missing = [name for name, value in needed.items() if value is None]
    if missing:
        raise GoldensError(f"rotary_emb has rope_type {rope_type!r} without {', '.join(missing)}")
    more = _of_yarn(parameters, needed["factor"]) if rope_type == "yarn" else {}
    return {"rope_type": rope_type, **needed, "max_position_embeddings": longest, **more}


def _of_yarn(parameters: Mapping[str, Any], factor: float) -> dict[str, Any]:
    mscale, all_dim = parameters.get("mscale"), parameters.get("mscale_all_dim")
    given = parameters.get("attention_factor")
    inferred = enlargement(factor)
    if mscale and all_dim:
        inferred = enlargement(factor, mscale) / enlargement(factor, all_dim)
    return {
        "attention_factor": inferred if given is None else given,
        "beta_fast": parameters.get("beta_fast") or _BETA_FAST,
        "beta_slow": parameters.get("beta_slow") or _BETA_SLOW,
        "mscale": mscale,
        "mscale_all_dim": all_dim,
        "truncate": bool(parameters.get("truncate", True)),
    }


def enlargement(factor: float, mscale: float = 1) -> float:
    """By how much YaRN enlarges cos and sin for `factor` times the length."""
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


def attention_factor(settings: Settings) -> float:
    """What cos and sin are multiplied by."""
    return float((settings.get("scaling") or {}).get("attention_factor", 1.0))


def frequencies(e: Evaluation) -> Array:
    """The frequency of each pair of channels (D/2), wide, for `positions` (B T)."""
    return _type(e.settings).frequencies(e)


def relative_variance(e: Evaluation) -> Array:
    """The variance of each frequency (D/2) computed in float32, relative, in u32^2/6: half of a rounding's largest.

    theta ** -x, taken as exp(-x ln theta), carries the rounding of x ln(theta), and those of power and quotient.
    """
    return _type(e.settings).relative_variance(e)


def depend_on_length(settings: Settings, length: int) -> bool:
    """Whether a text of so many tokens, read in parts, is turned otherwise than read at once: the parts are shorter.

    settings: of any component; what scores are multiplied by is called `scaling`, too.
    """
    scaling = settings.get("scaling")
    if not isinstance(scaling, Mapping) or scaling["rope_type"] != "dynamic":
        return False
    return length > int(scaling["max_position_embeddings"])


def is_plain(settings: Settings) -> bool:
    return settings.get("scaling") is None


def stretched_base(e: Evaluation, length: Any) -> Any:
    """The base that `dynamic` has in a call of `length` tokens, one number or an array of them."""
    factor, longest = _of(e, "factor", "max_position_embeddings")
    size = e.settings["head_dim"]
    return e.settings["theta"] * ((factor * length / longest) - (factor - 1)) ** (size / (size - 2))


def plain(e: Evaluation, theta: Any = None) -> Array:
    """The frequencies of a base, of `settings` if none is given, stretched by nothing."""
    return 1.0 / _powers(e, theta)


def _powers(e: Evaluation, theta: Any = None) -> Array:
    """theta ** (2i / D). A hypothesis may multiply the exponents."""
    theta = e.settings["theta"] if theta is None else theta
    return e.xp.powers(theta ** e.settings.get("exponents_times", 1), e.settings["head_dim"])


def _plain_variance(e: Evaluation, theta: Any = None) -> Array:
    theta = e.settings["theta"] if theta is None else theta
    return (_exponents(e) * (math.log(theta) if isinstance(theta, float) else e.xp.log(theta))) ** 2 + 2


def _exponents(e: Evaluation) -> Array:
    size = e.settings["head_dim"]
    return e.xp.wide(e.xp.indices(size // 2)) * (2 / size) * e.settings.get("exponents_times", 1)


def _linear(e: Evaluation) -> Array:
    return plain(e) / _of(e, "factor")[0]


def _linear_variance(e: Evaluation) -> Array:
    return _plain_variance(e) + 1


def _dynamic(e: Evaluation) -> Array:
    return plain(e, stretched_base(e, _length(e)))


def _length(e: Evaluation) -> Any:
    """The length of a call, as the reference counts it: wide beyond the configuration's, which it starts from."""
    scaling = e.settings["scaling"]
    if "length" in scaling:
        return scaling["length"]
    length, longest = e.inputs["positions"].max() + 1, scaling["max_position_embeddings"]
    return e.xp.wide(length) if length > longest else longest


def for_length(e: Evaluation, length: Any = None) -> Evaluation:
    """As a part of a call of `length` tokens, by default of its own: one number, or one for each text or token."""
    scaling = e.settings.get("scaling")
    if scaling is None or scaling["rope_type"] != "dynamic" or "length" in scaling:
        return e
    longest = scaling["max_position_embeddings"]
    length = _length(e) if length is None else e.xp.where(length > longest, length, longest)
    return e.with_settings(scaling={**scaling, "length": length})


def _dynamic_variance(e: Evaluation) -> Array:
    """The base has errors of its own: three roundings of what grows, those of its difference, power and product."""
    factor, longest = _of(e, "factor", "max_position_embeddings")
    size, length = e.settings["head_dim"], _length(e)
    grown = factor * length / longest
    stretch = grown - (factor - 1)
    of_stretch = 3 * (grown / stretch) ** 2 + ((factor - 1) / stretch) ** 2 + 1
    of_base = (size / (size - 2)) ** 2 * of_stretch + 2
    return _plain_variance(e, stretched_base(e, length)) + _exponents(e) ** 2 * of_base


def _yarn(e: Evaluation) -> Array:
    kept = 1 - _ramp(e)
    powers, factor = _powers(e), _of(e, "factor")[0]
    return 1.0 / (factor * powers) * (1 - kept) + 1.0 / powers * kept


def _ramp(e: Evaluation) -> Array:
    """How much of each frequency (D/2) is divided: 0 for fast ones, 1 for slow ones."""
    low, high = _ends_of_ramp(e.settings)
    pairs = e.xp.wide(e.xp.indices(e.settings["head_dim"] // 2))
    return e.xp.clip((pairs - low) / (high - low), 0, 1)


def _ends_of_ramp(settings: Settings) -> tuple[float, float]:
    """The pairs of channels between which YaRN goes over from keeping frequencies to dividing them."""
    size, theta, scaling = settings["head_dim"], settings["theta"], settings["scaling"]

    def pair(turns: float) -> float:
        """The pair that turns so often within the original length."""
        return (size * math.log(scaling[_ORIGINAL] / (turns * 2 * math.pi))) / (2 * math.log(theta))

    low, high = pair(scaling["beta_fast"]), pair(scaling["beta_slow"])
    if scaling["truncate"]:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, size - 1)
    return (low, high + _SINGULAR) if low == high else (low, high)


def _yarn_variance(e: Evaluation) -> Array:
    """Quotient, products and sum round once more each; inside the ramp, its own roundings move the frequency."""
    low, high = _ends_of_ramp(e.settings)
    ramp, share = _ramp(e), 1 - 1 / _of(e, "factor")[0]
    of_ramp = 2 * ramp**2 + (low / (high - low)) ** 2 + 2
    moved = e.xp.where((ramp > 0) & (ramp < 1), of_ramp * (share / (1 - share * ramp)) ** 2, ramp * 0)
    return _plain_variance(e) + 5 + moved


def _llama3(e: Evaluation) -> Array:
    factor, low, high, original = _of(e, "factor", "low_freq_factor", "high_freq_factor", _ORIGINAL)
    own = plain(e)
    waves = 2 * math.pi / own
    ends = e.xp.where(waves > original / low, own / factor, own)
    if low == high:
        return ends
    smooth = (original / waves - low) / (high - low)
    between = (waves >= original / high) & (waves <= original / low)
    return e.xp.where(between, (1 - smooth) * ends / factor + smooth * ends, ends)


def _llama3_variance(e: Evaluation) -> Array:
    """Between the ends, how much of a frequency is kept depends on the frequency itself, and carries its error."""
    factor, low, high, original = _of(e, "factor", "low_freq_factor", "high_freq_factor", _ORIGINAL)
    own, share = _plain_variance(e), 1 - 1 / factor
    turns = original * plain(e) / (2 * math.pi)
    inside = (turns > low) & (turns < high)
    width = max(high - low, _SINGULAR)
    kept = e.xp.where(inside, (turns - low) / width, turns * 0)
    steepness = share * (turns / width) / (1 - share * (1 - kept))
    moved = own * ((1 + steepness) ** 2 - 1) + 4 * steepness**2 + 4
    return own + 1 + e.xp.where(inside, moved, own * 0)


def _of(e: Evaluation, *names: str) -> list[Any]:
    return [e.settings["scaling"][name] for name in names]


@dataclass(frozen=True)
class RopeType:
    """needs: what a configuration must have beside `factor`, or the reference puts in."""

    frequencies: Callable[[Evaluation], Array]
    relative_variance: Callable[[Evaluation], Array]
    needs: tuple[str, ...] = ()


_PLAIN = RopeType(plain, _plain_variance)
TYPES = {
    "linear": RopeType(_linear, _linear_variance),
    "dynamic": RopeType(_dynamic, _dynamic_variance),
    "yarn": RopeType(_yarn, _yarn_variance, (_ORIGINAL,)),
    "llama3": RopeType(_llama3, _llama3_variance, (_ORIGINAL, "low_freq_factor", "high_freq_factor")),
}


def _type(settings: Settings) -> RopeType:
    return _PLAIN if is_plain(settings) else TYPES[settings["scaling"]["rope_type"]]
