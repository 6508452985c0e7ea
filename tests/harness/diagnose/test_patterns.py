"""What failures have in common, and orders of roundings that are none."""

import ml_dtypes
import numpy as np
import pytest

from harness.audit.fault import Answer
from harness.audit.planted import Planted
from harness.diagnose.patterns import cast_orders, low_precision
from harness.diagnose.subject import Subject
from harness.model import Mode
from harness.replay.port import load_port
from harness.replay.session import Session
from harness.report.result import Explanation
from tests.harness.diagnose.places import place

CASES = ("left-padded", "tiny-norm")
WITH_ORDERS = ("layers.0.input_layernorm", "layers.0.mlp.act", "layers.0.self_attn.probs")


def to_bfloat16(x):
    return x.astype(ml_dtypes.bfloat16).astype(np.float64)


def product(call):
    """Any product of matrices, of operands that were rounded to bfloat16."""
    if "weight" not in call.parameters:
        return call.run(**{name: to_bfloat16(x) for name, x in call.inputs.items()})
    out = to_bfloat16(call.inputs["x"]) @ to_bfloat16(call.parameters["weight"]).T
    return out + call.parameters["bias"] if "bias" in call.parameters else out


def replayed(port, dtype, include=()):
    here = place("qwen2-tiny", dtype)
    goldens = here.file.select(include, (), CASES, (dtype,))
    results = list(Session(here.file, lambda dtype: port).replay(goldens, [Mode.ISOLATED]))
    return Subject(here.file, lambda dtype: port, here.weights), results


def planted(*at, change=product, dtype="float32"):
    here = place("qwen2-tiny", dtype)
    port = Planted(here.port, here.file.contents.components, Answer(at, change), here.weights)
    return replayed(port, dtype)


PRODUCTS = ("*_proj", "lm_head", "*.scores", "*.context")


def test_products_in_less_precision_are_the_platform():
    (note,) = low_precision(*planted(*PRODUCTS), [])
    assert note.startswith("in float32 every product of matrices fails and everything else passes")
    assert "jax_default_matmul_precision" in note


@pytest.mark.parametrize(
    ("at", "change"),
    [
        (PRODUCTS[:2], product),
        ((*PRODUCTS, "*.act"), lambda call: call.output * 1.001),
        (PRODUCTS, lambda call: call.output * 1.2),
    ],
    ids=["not all products", "something else as well", "by more than a precision"],
)
def test_anything_else_is_not(at, change):
    assert list(low_precision(*planted(*at, change=change), [])) == []


def test_what_has_another_name_is_not_the_platform():
    subject, results = planted(*PRODUCTS)
    told = [Explanation("layers.0.self_attn.q_proj", ["quantised_int8"], "")]
    assert list(low_precision(subject, results, told)) == []
    told = [Explanation("layers.0.self_attn.q_proj", ["low_precision_tf32"], "")]
    assert len(list(low_precision(subject, results, told))) == 1


def test_products_that_were_not_compared_are_not_said_to_fail():
    subject, results = planted("*_proj", "lm_head")
    seen = [result for result in results if result.kind not in ("scores", "context")]
    assert list(low_precision(subject, seen, [])) == []


def test_a_right_port_has_no_notes():
    subject, results = replayed(place("qwen2-tiny").port, "float32")
    assert [*low_precision(subject, results, []), *cast_orders(subject, results)] == []
    subject, results = replayed(place("qwen2-tiny", "bfloat16").port, "bfloat16")
    assert [*low_precision(subject, results, []), *cast_orders(subject, results)] == []


def test_other_orders_of_roundings_are_told_and_are_no_failures():
    port = load_port("tests.linen_port:make", str(place("qwen2-tiny").folder), "bfloat16")
    notes = list(cast_orders(*replayed(port, "bfloat16", WITH_ORDERS)))
    assert [note.split(" (")[0] for note in notes] == [
        "layers.0.input_layernorm in bfloat16 rounds in another order than the reference: "
        "weight multiplied in float32, and rounded once",
        "layers.0.mlp.act in bfloat16 rounds in another order than the reference: "
        "sigmoid rounded before it is multiplied",
    ]
    assert all(note.endswith("It is inside the noise floor, and no failure") for note in notes)


def test_float32_has_no_orders_that_could_be_told_apart():
    port = load_port("tests.linen_port:make", str(place("qwen2-tiny").folder), "float32")
    assert list(cast_orders(*replayed(port, "float32", WITH_ORDERS))) == []


def narrow_softmax(call):
    """Each operation rounded to bfloat16, on what a query sees: what it does not see has a probability of 0."""
    seen = call.output > 0
    scores = np.where(seen, call.inputs["scores"], -np.inf)
    with np.errstate(invalid="ignore"):
        shifted = to_bfloat16(scores - scores.max(axis=-1, keepdims=True))
    exponentials = to_bfloat16(np.where(seen, np.exp(shifted), 0))
    total = to_bfloat16(exponentials.sum(axis=-1, keepdims=True))
    return np.where(seen.any(axis=-1, keepdims=True), exponentials / np.where(total > 0, total, 1), 0)


def test_a_softmax_in_the_models_dtype_is_told():
    subject, results = planted("*.probs", change=narrow_softmax, dtype="bfloat16")
    (note,) = cast_orders(subject, [r for r in results if r.kind == "probs"])
    assert "softmax taken in the model's dtype instead of float32" in note
