"""Looking up rows of a table."""

from harness.kinds.step import Array, Evaluation, Step


def evaluate(e: Evaluation) -> Array:
    return e.parameters["weight"][e.inputs["token_ids"]]


EMBEDDING = Step("embedding", {"token_ids": "B T"}, "B T C", evaluate)
