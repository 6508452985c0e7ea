"""A product with a matrix, with or without bias: every projection and the head."""

from harness.kinds.step import Array, Evaluation, Step, rounding, summation


def evaluate(e: Evaluation) -> Array:
    return e.xp.linear(e.inputs["x"], e.parameters["weight"], e.parameters.get("bias"))


def variance(e: Evaluation, output: Array, u: float) -> Array:
    """Summed in any order in float32, with the bias as one more term, and rounded before and after the bias."""
    x, weight, bias = e.inputs["x"], e.parameters["weight"], e.parameters.get("bias")
    squares = e.xp.linear_squares(x, weight, bias)
    product = output if bias is None else output - bias
    terms = weight.shape[1] + (bias is not None)
    return summation(terms, product, squares) + rounding(e.xp, u, product, output)


LINEAR = Step("linear", {"x": "B T I"}, "B T O", evaluate, variance)
