"""Looking up rows of a table; in some models they are scaled."""

from functools import partial

from harness.kinds.shards import lookups
from harness.kinds.step import Array, Evaluation, Hypothesis, Step


def evaluate(e: Evaluation) -> Array:
    return e.parameters["weight"][e.inputs["token_ids"]]


def _shifted(by: int, e: Evaluation) -> Evaluation:
    ids = e.inputs["token_ids"] + by
    return e.with_inputs(token_ids=ids % e.parameters["weight"].shape[0])


def _in_bits(bits: int, e: Evaluation) -> Evaluation | None:
    """What fits into an unsigned integer, as of a file of token ids; None where every id does."""
    if e.parameters["weight"].shape[0] <= 2**bits:
        return None
    return e.with_inputs(token_ids=e.inputs["token_ids"] % 2**bits)


def _scaled(e: Evaluation) -> Array:
    rows = e.xp.wide(evaluate(e))
    return rows * rows.shape[-1] ** 0.5


def _zero(e: Evaluation) -> Evaluation:
    return e.with_parameters(weight=e.parameters["weight"] * 0)


_ROWS = (
    Hypothesis("ids_shifted_up", "row of the next token id", change=partial(_shifted, 1)),
    Hypothesis("ids_shifted_down", "row of the token id before", change=partial(_shifted, -1)),
    *(
        Hypothesis("ids_low_bits", f"token ids kept in {bits} bits", change=partial(_in_bits, bits))
        for bits in (8, 16)
    ),
    Hypothesis("parameters_zero", "weight is zero: never loaded", change=_zero),
)

HYPOTHESES = (
    Hypothesis(
        "scaled_root_hidden",
        "scaled by sqrt(hidden size), as Gemma does",
        evaluate=_scaled,
        variance=lambda e, output, u: e.xp.rounding(u, output, output),
    ),
    *_ROWS,
    *lookups(evaluate),
)


def _scaled_rows(e: Evaluation) -> Array:
    """Times `scale`, which is rounded to the model's dtype first, as Gemma has it, or times `multiplier` as it is."""
    return evaluate(e) * (
        e.xp.number(e.settings["scale"]) if "scale" in e.settings else e.settings["multiplier"]
    )


def _scaled_by(power: int, e: Evaluation) -> Array:
    scale = e.settings["scale"] if "scale" in e.settings else e.settings["multiplier"]
    return evaluate(e) * scale**power


def _twice_rounded(e: Evaluation, output: Array, u: float) -> Array:
    """The scale, and the product."""
    return e.xp.rounding(u, output, output)


SCALED_HYPOTHESES = (
    *(
        Hypothesis(name, says, evaluate=partial(_scaled_by, power))
        for name, says, power in (
            ("scale_missing", "rows not scaled", 0),
            ("scale_twice", "rows scaled twice", 2),
            ("scale_inverse", "rows divided by the scale instead of multiplied", -1),
        )
    ),
    *_ROWS,
    *lookups(_scaled_rows),
)

EMBEDDING = Step("embedding", {"token_ids": "B T"}, "B T C", evaluate, hypotheses=HYPOTHESES)
SCALED_EMBEDDING = Step(
    "scaled_embedding", {"token_ids": "B T"}, "B T C", _scaled_rows, _twice_rounded, SCALED_HYPOTHESES
)
