"""Looking up rows of a table."""

from functools import partial

from harness.kinds.step import Array, Evaluation, Hypothesis, Step, rounding


def evaluate(e: Evaluation) -> Array:
    return e.parameters["weight"][e.inputs["token_ids"]]


def _shifted(by: int, e: Evaluation) -> Evaluation:
    ids = e.inputs["token_ids"] + by
    return e.with_inputs(token_ids=ids % e.parameters["weight"].shape[0])


def _scaled(e: Evaluation) -> Array:
    rows = e.xp.wide(evaluate(e))
    return rows * rows.shape[-1] ** 0.5


def _zero(e: Evaluation) -> Array:
    return evaluate(e) * 0


HYPOTHESES = (
    Hypothesis(
        "scaled_root_hidden",
        "scaled by sqrt(hidden size), as Gemma does",
        evaluate=_scaled,
        variance=lambda e, output, u: rounding(e.xp, u, output, output),
    ),
    Hypothesis("ids_shifted_up", "row of the next token id", change=partial(_shifted, 1)),
    Hypothesis("ids_shifted_down", "row of the token id before", change=partial(_shifted, -1)),
    Hypothesis("parameters_zero", "weight is zero: never loaded", evaluate=_zero),
)

EMBEDDING = Step("embedding", {"token_ids": "B T"}, "B T C", evaluate, hypotheses=HYPOTHESES)
