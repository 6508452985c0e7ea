"""Steps that take each element by itself: activation, gate, residual sum, soft cap, scale."""

from functools import partial

from harness.kinds.shards import SHARDS
from harness.kinds.step import (
    U32,
    Array,
    CastOrder,
    Evaluate,
    Evaluation,
    Hypothesis,
    Step,
    Variance,
)


def _silu(e: Evaluation) -> Array:
    """x · sigmoid(x). Elfwing et al. 2018."""
    return e.xp.silu(e.inputs["x"])


def _silu_variance(e: Evaluation, output: Array, u: float) -> Array:
    """exp and sum in float32; the sigmoid, and then the product, may be rounded to the model's dtype."""
    return e.xp.rounding(U32, output, output) + e.xp.rounding(u, output, output)


def _gated(e: Evaluation) -> Array:
    return e.inputs["act"] * e.inputs["up"]


def _residual(e: Evaluation) -> Array:
    """The branch as it is, or times `multiplier`."""
    branch = e.inputs["branch"]
    return e.inputs["residual"] + (
        branch * e.settings["multiplier"] if "multiplier" in e.settings else branch
    )


def _residual_variance(e: Evaluation, output: Array, u: float) -> Array:
    if "multiplier" not in e.settings:
        return e.xp.rounding(u, output)
    return e.xp.rounding(u, output, e.inputs["branch"] * e.settings["multiplier"])


def _rounded_once(e: Evaluation, output: Array, u: float) -> Array:
    return e.xp.rounding(u, output)


def _gelu_variance(e: Evaluation, output: Array, u: float) -> Array:
    """1 + erf or 1 + tanh cancels where x is far below zero: there the error is one of x, not of the output."""
    return _silu_variance(e, output, u) + (e.inputs["x"] * U32) ** 2 / 3


def _gelu(e: Evaluation) -> Array:
    """x Phi(x). Hendrycks and Gimpel 2016."""
    return e.xp.gelu(e.inputs["x"])


def _gelu_tanh(e: Evaluation) -> Array:
    """The same, approximated by tanh."""
    return e.xp.gelu_tanh(e.inputs["x"])


def _relu(e: Evaluation) -> Array:
    return e.inputs["x"] * (e.inputs["x"] > 0)


def _quick_gelu(e: Evaluation) -> Array:
    return e.xp.silu(1.702 * e.inputs["x"]) / 1.702


def _mish(e: Evaluation) -> Array:
    return e.inputs["x"] * e.xp.tanh(e.xp.softplus(e.inputs["x"]))


_FUNCTIONS: tuple[tuple[str, str, Evaluate, Variance | None], ...] = (
    ("gelu", "GELU", _gelu, _gelu_variance),
    ("gelu_tanh", "GELU in its tanh approximation", _gelu_tanh, _gelu_variance),
    ("silu", "SiLU", _silu, _silu_variance),
    ("quick_gelu", "x sigmoid(1.702 x) (quick GELU)", _quick_gelu, None),
    ("relu", "ReLU", _relu, None),
    ("relu_squared", "squared ReLU", lambda e: _relu(e) ** 2, None),
    ("sigmoid", "sigmoid(x)", lambda e: e.xp.sigmoid(e.inputs["x"]), None),
    ("tanh", "tanh", lambda e: e.xp.tanh(e.inputs["x"]), None),
    ("softplus", "softplus", lambda e: e.xp.softplus(e.inputs["x"]), None),
    ("mish", "Mish", _mish, None),
)
"""Name, words, evaluation and rounding; None where that of the right one holds."""


def _instead_of(right: str) -> tuple[Hypothesis, ...]:
    """Mistakes in the activation that is `right`."""
    [(words, evaluate)] = [(words, evaluate) for name, words, evaluate, _ in _FUNCTIONS if name == right]
    others = (
        Hypothesis(name, f"{says} instead of {words}", evaluate=other, variance=variance)
        for name, says, other, variance in _FUNCTIONS
        if name != right
    )
    return (
        *others,
        Hypothesis("act_missing", "no activation: its input handed on", evaluate=lambda e: e.inputs["x"]),
        Hypothesis(
            "act_twice",
            "activation applied twice",
            evaluate=lambda e: evaluate(e.with_inputs(x=evaluate(e))),
        ),
    )


_ACTIVATIONS = _instead_of("silu")

_GATES = (
    Hypothesis("act_only", "up is left out", evaluate=lambda e: e.inputs["act"]),
    Hypothesis("up_only", "act is left out", evaluate=lambda e: e.inputs["up"]),
    Hypothesis(
        "sum_for_product", "act + up instead of act · up", evaluate=lambda e: e.inputs["act"] + e.inputs["up"]
    ),
    Hypothesis(
        "act_twice",
        "activation applied to what it was applied to already",
        evaluate=lambda e: e.xp.silu(e.inputs["act"]) * e.inputs["up"],
        variance=_silu_variance,
    ),
    Hypothesis(
        "act_on_up",
        "activation applied to up as well",
        evaluate=lambda e: e.inputs["act"] * e.xp.silu(e.inputs["up"]),
        variance=_silu_variance,
    ),
    Hypothesis(
        "act_on_product",
        "activation applied to the product as well",
        evaluate=lambda e: e.xp.silu(_gated(e)),
        variance=_silu_variance,
    ),
)


def _summed(residual: float, branch: float, e: Evaluation) -> Array:
    """The two terms so many times."""
    return e.inputs["residual"] * residual + e.inputs["branch"] * (e.settings.get("multiplier", 1) * branch)


def _multiplier_missing(e: Evaluation) -> Evaluation | None:
    return e.with_settings(multiplier=1.0) if "multiplier" in e.settings else None


_SUMS = (
    *(
        Hypothesis(name, says, evaluate=partial(_summed, residual, branch))
        for name, says, residual, branch in (
            ("residual_missing", "residual not added: the branch alone", 0, 1),
            ("branch_missing", "branch not added: the residual alone", 1, 0),
            ("residual_twice", "residual added twice", 2, 1),
            ("branch_twice", "branch added twice", 1, 2),
            ("branch_subtracted", "branch subtracted", 1, -1),
            ("branch_halved", "half of the branch added", 1, 0.5),
        )
    ),
    *(
        Hypothesis(
            "residual_on_every_shard",
            f"residual added on each of {shards} devices, before the branch is summed over them",
            evaluate=partial(_summed, shards, 1),
        )
        for shards in SHARDS[1:]  # on two, it is added twice
    ),
    Hypothesis("multiplier_missing", "branch added without its multiplier", change=_multiplier_missing),
)


def _capped(e: Evaluation) -> Array:
    """cap · tanh(x / cap). Bello et al. 2016; Gemma Team 2024."""
    cap = e.settings["cap"]
    return e.xp.tanh(e.inputs["x"] / cap) * cap


def _capped_variance(e: Evaluation, output: Array, u: float) -> Array:
    """Quotient, tanh and product are rounded; what is nearly at the cap hardly moves with the quotient."""
    cap = e.settings["cap"]
    bent = 1 - (output / cap) ** 2
    return e.xp.rounding(u, e.inputs["x"]) * bent**2 + e.xp.rounding(u, output, output)


def _cap(cap: float, e: Evaluation) -> Evaluation | None:
    return None if cap == e.settings["cap"] else e.with_settings(cap=cap)


def _clipped(e: Evaluation) -> Array:
    return e.xp.clip(e.inputs["x"], -e.settings["cap"], e.settings["cap"])


_CAPS = (
    Hypothesis("cap_missing", "not capped", evaluate=lambda e: e.inputs["x"]),
    *(
        Hypothesis(f"cap_{cap:g}", f"capped at {cap:g}", change=partial(_cap, cap))
        for cap in (15.0, 20.0, 30.0, 50.0, 100.0)
    ),
    Hypothesis(
        "tanh_only",
        "tanh(x / cap), not multiplied by the cap",
        evaluate=lambda e: _capped(e) / e.settings["cap"],
    ),
    Hypothesis("clipped", "cut off at the cap, not bent", evaluate=_clipped),
    Hypothesis("cap_twice", "capped twice", evaluate=lambda e: _capped(e.with_inputs(x=_capped(e)))),
)


def _scaled(e: Evaluation) -> Array:
    """x times `multiplier`, or divided by `divisor`."""
    x, settings = e.inputs["x"], e.settings
    return x / settings["divisor"] if "divisor" in settings else x * settings["multiplier"]


def _factor(e: Evaluation) -> float:
    return float(1 / e.settings["divisor"] if "divisor" in e.settings else e.settings["multiplier"])


_SCALES = (
    Hypothesis("scale_missing", "not scaled", evaluate=lambda e: e.inputs["x"]),
    Hypothesis(
        "scale_inverse", "divided instead of multiplied", evaluate=lambda e: e.inputs["x"] / _factor(e)
    ),
    Hypothesis("scale_twice", "scaled twice", evaluate=lambda e: e.inputs["x"] * _factor(e) ** 2),
)


def _sigmoid_rounded(e: Evaluation) -> Array:
    """x times a sigmoid that was rounded to the model's dtype first."""
    x = e.inputs["x"]
    return x * e.xp.narrow(e.xp.sigmoid(e.xp.wide(x)))


SILU = Step(
    "silu",
    {"x": "B T F"},
    "B T F",
    _silu,
    _silu_variance,
    _ACTIVATIONS,
    (CastOrder("sigmoid_rounded", "sigmoid rounded before it is multiplied", _sigmoid_rounded),),
)
GELU = Step("gelu", {"x": "B T F"}, "B T F", _gelu, _gelu_variance, _instead_of("gelu"))
GELU_TANH = Step("gelu_tanh", {"x": "B T F"}, "B T F", _gelu_tanh, _gelu_variance, _instead_of("gelu_tanh"))
GATED = Step("gated", {"act": "B T F", "up": "B T F"}, "B T F", _gated, _rounded_once, _GATES)
RESIDUAL = Step(
    "residual", {"residual": "B T C", "branch": "B T C"}, "B T C", _residual, _residual_variance, _SUMS
)
CAPPED_SCORES = Step("capped_scores", {"x": "B H T S"}, "B H T S", _capped, _capped_variance, _CAPS)
CAPPED_LOGITS = Step("capped_logits", {"x": "B T V"}, "B T V", _capped, _capped_variance, _CAPS)
SCALED_LOGITS = Step("scaled_logits", {"x": "B T V"}, "B T V", _scaled, _rounded_once, _SCALES)
