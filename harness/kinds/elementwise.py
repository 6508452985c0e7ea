"""Steps that take each element by itself: activation, gate, residual sum."""

from harness.kinds.step import U32, Array, CastOrder, Evaluation, Hypothesis, Step, rounding


def _silu(e: Evaluation) -> Array:
    """x · sigmoid(x). Elfwing et al. 2018."""
    return e.xp.silu(e.inputs["x"])


def _silu_variance(e: Evaluation, output: Array, u: float) -> Array:
    """exp and sum in float32; the sigmoid, and then the product, may be rounded to the model's dtype."""
    return rounding(e.xp, U32, output, output) + rounding(e.xp, u, output, output)


def _gated(e: Evaluation) -> Array:
    return e.inputs["act"] * e.inputs["up"]


def _residual(e: Evaluation) -> Array:
    return e.inputs["residual"] + e.inputs["branch"]


def _rounded_once(e: Evaluation, output: Array, u: float) -> Array:
    return rounding(e.xp, u, output)


def _gelu_variance(e: Evaluation, output: Array, u: float) -> Array:
    """1 + erf or 1 + tanh cancels where x is far below zero: there the error is one of x, not of the output."""
    return _silu_variance(e, output, u) + (e.inputs["x"] * U32) ** 2 / 3


def _gelu_tanh(e: Evaluation) -> Array:
    x = e.inputs["x"]
    return x / 2 * (1 + e.xp.tanh((2 / e.xp.pi) ** 0.5 * (x + 0.044715 * x**3)))


def _quick_gelu(e: Evaluation) -> Array:
    return e.xp.silu(1.702 * e.inputs["x"]) / 1.702


def _mish(e: Evaluation) -> Array:
    return e.inputs["x"] * e.xp.tanh(e.xp.softplus(e.inputs["x"]))


_ACTIVATIONS = (
    Hypothesis(
        "gelu",
        "GELU instead of SiLU",
        evaluate=lambda e: e.inputs["x"] / 2 * (1 + e.xp.erf(e.inputs["x"] * 0.5**0.5)),
        variance=_gelu_variance,
    ),
    Hypothesis(
        "gelu_tanh",
        "GELU in its tanh approximation instead of SiLU",
        evaluate=_gelu_tanh,
        variance=_gelu_variance,
    ),
    Hypothesis("quick_gelu", "x sigmoid(1.702 x) (quick GELU) instead of SiLU", evaluate=_quick_gelu),
    Hypothesis("relu", "ReLU instead of SiLU", evaluate=lambda e: e.inputs["x"] * (e.inputs["x"] > 0)),
    Hypothesis(
        "relu_squared",
        "squared ReLU instead of SiLU",
        evaluate=lambda e: (e.inputs["x"] * (e.inputs["x"] > 0)) ** 2,
    ),
    Hypothesis("act_missing", "no activation: its input handed on", evaluate=lambda e: e.inputs["x"]),
    Hypothesis(
        "sigmoid", "sigmoid(x) instead of x sigmoid(x)", evaluate=lambda e: e.xp.sigmoid(e.inputs["x"])
    ),
    Hypothesis("act_twice", "activation applied twice", evaluate=lambda e: e.xp.silu(_silu(e))),
    Hypothesis("tanh", "tanh instead of SiLU", evaluate=lambda e: e.xp.tanh(e.inputs["x"])),
    Hypothesis("softplus", "softplus instead of SiLU", evaluate=lambda e: e.xp.softplus(e.inputs["x"])),
    Hypothesis("mish", "Mish instead of SiLU", evaluate=_mish),
)

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


def _weighted(name: str, says: str, residual: float, branch: float) -> Hypothesis:
    return Hypothesis(
        name,
        says,
        evaluate=lambda e: e.inputs["residual"] * residual + e.inputs["branch"] * branch,
    )


_SUMS = (
    _weighted("residual_missing", "residual not added: the branch alone", 0, 1),
    _weighted("branch_missing", "branch not added: the residual alone", 1, 0),
    _weighted("residual_twice", "residual added twice", 2, 1),
    _weighted("branch_twice", "branch added twice", 1, 2),
    _weighted("branch_subtracted", "branch subtracted", 1, -1),
    _weighted("branch_halved", "half of the branch added", 1, 0.5),
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
GATED = Step("gated", {"act": "B T F", "up": "B T F"}, "B T F", _gated, _rounded_once, _GATES)
RESIDUAL = Step(
    "residual", {"residual": "B T C", "branch": "B T C"}, "B T C", _residual, _rounded_once, _SUMS
)
