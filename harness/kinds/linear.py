"""A product with a matrix, with or without bias: every projection and the head."""

from collections.abc import Callable
from functools import partial

from harness.kinds.precision import PRODUCTS, quantised, rounded, truncated
from harness.kinds.rows import Rows
from harness.kinds.shards import PRODUCTS as SPLIT
from harness.kinds.step import Array, Evaluation, Hypothesis, Step, summation


def evaluate(e: Evaluation) -> Array:
    return e.xp.linear(e.inputs["x"], e.parameters["weight"], e.parameters.get("bias"))


def variance(e: Evaluation, output: Array, u: float) -> Array:
    """Summed in any order in float32, with the bias as one more term, and rounded before and after the bias."""
    x, weight, bias = e.inputs["x"], e.parameters["weight"], e.parameters.get("bias")
    squares = e.xp.linear_squares(x, weight, bias)
    product = output if bias is None else output - bias
    terms = weight.shape[1] + (bias is not None)
    return summation(terms, product, squares) + e.xp.rounding(u, product, output)


def _transposed(e: Evaluation) -> Evaluation | None:
    weight = e.parameters["weight"]
    return e.with_parameters(weight=weight.T) if weight.shape[0] == weight.shape[1] else None


def _bias_times(factor: int, e: Evaluation) -> Evaluation | None:
    bias = e.parameters.get("bias")
    return None if bias is None else e.with_parameters(bias=bias * factor)


def _zero(roles: tuple[str, ...], e: Evaluation) -> Evaluation | None:
    if any(role not in e.parameters for role in roles):
        return None
    return e.with_parameters(**{role: e.xp.zeros_like(e.parameters[role]) for role in roles})


Order = Callable[[Evaluation, int, int], Array]
"""(evaluation, heads, head size) -> for each output of the port, the reference's output that it is."""


def _interleaved(e: Evaluation, heads: int, size: int) -> Array:
    return e.xp.indices(heads * size).reshape(heads, 2, size // 2).swapaxes(1, 2)


def _deinterleaved(e: Evaluation, heads: int, size: int) -> Array:
    return e.xp.indices(heads * size).reshape(heads, size // 2, 2).swapaxes(1, 2)


def _dim_major(e: Evaluation, heads: int, size: int) -> Array:
    return e.xp.indices(heads * size).reshape(heads, size).swapaxes(0, 1)


def _dim_major_undone(e: Evaluation, heads: int, size: int) -> Array:
    return e.xp.indices(heads * size).reshape(size, heads).swapaxes(0, 1)


def _reordered(order: Order, roles: tuple[str, ...], e: Evaluation) -> Evaluation | None:
    """Some parameters with their outputs in another order; the bias of the port may have kept its own."""
    size, outputs = e.settings.get("head_dim"), e.parameters["weight"].shape[0]
    if not size or outputs % size or outputs == size or any(role not in e.parameters for role in roles):
        return None
    rows = order(e, outputs // size, size).reshape(-1)
    return e.with_parameters(**{role: Rows(e.parameters[role], rows) for role in roles})


def _operands(precise: Callable[[Array], Array], e: Evaluation) -> Array:
    return e.xp.linear(precise(e.inputs["x"]), precise(e.parameters["weight"]), e.parameters.get("bias"))


def _weight_as(precise: Callable[[Array], Array], e: Evaluation) -> Array:
    return e.xp.linear(e.inputs["x"], precise(e.parameters["weight"]), e.parameters.get("bias"))


def _stored(precise: Callable[[Array], Array], weight: Array) -> Array:
    """What comes of a weight that is stored in bfloat16 afterwards, as converted checkpoints are."""
    return rounded(precise(weight), "bfloat16")


def _scale_folded(e: Evaluation) -> Array:
    return evaluate(e) * e.settings["head_dim"] ** -0.5 if e.settings.get("head_dim") else evaluate(e)


def _softcapped(e: Evaluation) -> Array:
    return e.xp.tanh(evaluate(e) / 30) * 30


def _scaled_root_hidden(power: float, e: Evaluation) -> Array:
    return evaluate(e) * e.settings.get("hidden_size", e.inputs["x"].shape[-1]) ** power


def _log_softmax(e: Evaluation) -> Array:
    logits = evaluate(e)
    return logits - e.xp.log_total_exp(logits)


def _log_softmax_variance(e: Evaluation, output: Array, u: float) -> Array:
    return variance(e, evaluate(e), u) + e.xp.rounding(u, output)


def _softmax_variance(e: Evaluation, output: Array, u: float) -> Array:
    """A probability moves with its logit."""
    return output**2 * variance(e, evaluate(e), u) + e.xp.rounding(u, output)


BOTH, WEIGHT, BIAS = ("weight", "bias"), ("weight",), ("bias",)

HYPOTHESES = (
    Hypothesis(
        "weight_not_transposed",
        "weight used without transposing (W instead of W.T; silent in shape checks, since it is square)",
        change=_transposed,
    ),
    Hypothesis("bias_missing", "bias not added", change=partial(_bias_times, 0)),
    Hypothesis("bias_twice", "bias added twice", change=partial(_bias_times, 2)),
    Hypothesis("bias_negated", "bias subtracted", change=partial(_bias_times, -1)),
    Hypothesis("weight_zero", "weight is zero: never loaded", change=partial(_zero, WEIGHT)),
    Hypothesis("parameters_zero", "weight and bias are zero: never loaded", change=partial(_zero, BOTH)),
    *(
        Hypothesis(name, f"{says}{more}", change=partial(_reordered, order, roles))
        for name, says, order in (
            ("rows_interleaved", "outputs of each head permuted for interleaved RoPE", _interleaved),
            (
                "rows_deinterleaved",
                "outputs of each head permuted back from interleaved RoPE",
                _deinterleaved,
            ),
            ("heads_dim_major", "outputs ordered by head size before heads (D H instead of H D)", _dim_major),
            ("heads_dim_major", "outputs split as (D H) and merged as (H D)", _dim_major_undone),
        )
        for roles, more in ((BOTH, ""), (WEIGHT, ", in the weight only"), (BIAS, ", in the bias only"))
    ),
    *(
        Hypothesis(name, f"operands of the product {says}", evaluate=partial(_operands, precise))
        for name, says, precise in PRODUCTS
    ),
    *(
        Hypothesis(name, f"{says}{more}", evaluate=partial(_weight_as, stored))
        for name, says, precise in (
            (
                f"quantised_int{bits}",
                f"weight quantised to {bits} bits, by output",
                partial(quantised, levels=levels, dtype=dtype),
            )
            for bits, levels in ((8, 127), (4, 7))
            for dtype in ("float64", "float32")
        )
        for stored, more in ((precise, ""), (partial(_stored, precise), ", and stored in bfloat16"))
    ),
    *(
        Hypothesis(name, says, evaluate=partial(_weight_as, precise))
        for name, says, precise in (
            ("quantised_fp8", "weight rounded to 8-bit floats (e4m3)", partial(rounded, precision="fp8")),
            (
                "weight_rounded_bfloat16",
                "weight rounded to bfloat16 first",
                partial(rounded, precision="bfloat16"),
            ),
            (
                "weight_rounded_float16",
                "weight rounded to float16 first",
                partial(rounded, precision="float16"),
            ),
            (
                "weight_truncated_bfloat16",
                "weight cut to bfloat16 instead of rounded",
                partial(truncated, dropped=16),
            ),
        )
    ),
    Hypothesis(
        "scale_folded", "scaled by 1 / sqrt(head size), which belongs to the scores", evaluate=_scale_folded
    ),
    Hypothesis("softcapped_30", "soft-capped: 30 tanh(x / 30)", evaluate=_softcapped),
    Hypothesis(
        "scaled_root_hidden", "multiplied by sqrt(hidden size)", evaluate=partial(_scaled_root_hidden, 0.5)
    ),
    Hypothesis(
        "scaled_root_hidden", "divided by sqrt(hidden size)", evaluate=partial(_scaled_root_hidden, -0.5)
    ),
    Hypothesis(
        "log_softmax",
        "log-probabilities handed out as logits",
        evaluate=_log_softmax,
        variance=_log_softmax_variance,
        whole=True,
    ),
    Hypothesis(
        "softmax_applied",
        "probabilities handed out as logits",
        evaluate=lambda e: e.xp.softmax(evaluate(e)),
        variance=_softmax_variance,
        whole=True,
    ),
    *SPLIT,
)

LINEAR = Step("linear", {"x": "B T I"}, "B T O", evaluate, variance, HYPOTHESES, by_output=BOTH)
