"""Hypotheses that no fault of the catalogue is named by, each planted in a formula of its own."""

import math

import ml_dtypes
import numpy as np
import pytest

from harness.audit.catalogue.table import OF_PASSES as FAULTS
from harness.audit.fault import Answer
from harness.kinds.table import STEPS
from tests.harness.diagnose.places import place
from tests.harness.diagnose.problems import Made, drawn

BUILT_IN = ("qwen2-tiny", "qwen3-tiny")


def relu_squared(call):
    return np.square(np.maximum(call.inputs["x"], 0))


def mish(call):
    x = call.inputs["x"]
    return x * np.tanh(np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0))


def softplus(call):
    x = call.inputs["x"]
    return np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0)


def silu(x):
    return x / (1 + np.exp(-x))


def angles(call, theta, size=None, divided=1):
    half = call.component.settings["head_dim"] // 2
    each = [theta ** (-2 * i / (size or 2 * half)) / divided for i in range(half)]
    turned = call.inputs["positions"][..., None] * np.array(each + each)
    return (np.cos if call.component.step == "cos" else np.sin)(turned)


def of_theta(value, **more):
    return lambda call: angles(call, value or call.component.settings["theta"], **more)


def eps(value):
    def change(call):
        x = call.inputs["x"]
        power = (x * x).sum(axis=-1, keepdims=True) / x.shape[-1]
        return call.parameters["weight"] * x / np.sqrt(power + value)

    return change


def only_crossed(call):
    x, cos = call.inputs["x"], call.inputs["cos"]
    heads = x.reshape(*x.shape[:2], -1, cos.shape[-1]).transpose(0, 2, 1, 3)
    first, second = np.split(heads, 2, axis=-1)
    return np.concatenate([-second, first], axis=-1) * call.inputs["sin"][:, None]


def unscaled(call):
    return call.output / call.component.settings["scaling"]


def met_tiled(name):
    """Heads in the order 0 0 1 1 met as if they were 0 1 0 1."""

    def change(call):
        given = call.inputs[name]
        kv_heads = 2 if given.shape[1] == 14 else 4
        order = [n % kv_heads * (given.shape[1] // kv_heads) for n in range(given.shape[1])]
        return call.run(**{name: given[:, order]})

    return change


ANGLES = ("rotary_emb.*",)
PLANTED = {
    "relu_squared": ("*.act", relu_squared),
    "mish": ("*.act", mish),
    "softplus": ("*.act", softplus),
    "tanh": ("*.act", lambda call: np.tanh(call.inputs["x"])),
    "act_on_up": ("*.gated", lambda call: call.inputs["act"] * silu(call.inputs["up"])),
    "act_on_product": ("*.gated", lambda call: silu(call.inputs["act"] * call.inputs["up"])),
    "eps_0.0001": ("*layernorm", eps(1e-4)),
    "theta_100000": ("rotary_emb.*", of_theta(1e5)),
    "theta_1e+07": ("rotary_emb.*", of_theta(1e7)),
    "linear_scaling_2": ("rotary_emb.*", of_theta(None, divided=2)),
    "linear_scaling_8": ("rotary_emb.*", of_theta(None, divided=8)),
    "frequencies_of_hidden": ("rotary_emb.*", of_theta(None, size=112)),
    "scale_folded": ("*.q_proj", lambda call: call.output / math.sqrt(8)),
    "cosine_part_missing": ("*_rope", only_crossed),
    "scale_by_hidden": ("*.scores", lambda call: unscaled(call) / math.sqrt(112)),
    "heads_tiled": ("*.scores", met_tiled("k")),
}


@pytest.mark.parametrize("name", PLANTED)
def test_it_is_named(name):
    at, change = PLANTED[name]
    said = place("qwen2-tiny").diagnosed(Answer((at,), change))
    assert said.failed
    assert [e.hypotheses for e in said.explanations] == [[name]] * len(said.failed)


def test_value_heads_met_in_tiled_order():
    said = place("qwen2-tiny").diagnosed(Answer(("*.context",), met_tiled("v")))
    assert said.names == {"heads_tiled"}


def test_a_scale_by_hidden_over_heads_where_that_is_not_the_head_size():
    said = place("qwen3-tiny").diagnosed(
        Answer(("*.scores",), lambda call: unscaled(call) / math.sqrt(64 / 8))
    )
    assert said.names == {"scale_by_hidden_over_heads"}


def test_queries_that_stand_elsewhere_are_counted_from_zero_in_the_mask():
    """Here they stand in reverse order."""
    scores, queries = drawn(2, 3, 9, 9), np.arange(9)[::-1]
    inputs = {"scores": scores, "attention_mask": np.ones((2, 9), int), "query_index": queries}
    made = Made("probs", inputs, settings={"window": None})
    seen = np.where(np.arange(9) <= np.arange(9)[:, None], np.exp(scores), 0)
    answer = seen / seen.sum(axis=-1, keepdims=True)
    assert made.named(answer) == {"query_index_from_zero"}
    assert made.named(answer, withheld={"query_index_from_zero"}) == set()


def test_queries_behind_others_are_counted_from_zero_in_the_window_alone():
    scores, queries, keys = drawn(2, 3, 4, 12), np.arange(8, 12), np.arange(12)
    inputs = {"scores": scores, "attention_mask": np.ones((2, 12), int), "query_index": queries}
    made = Made("probs", inputs, settings={"window": 2})
    visible = (keys <= queries[:, None]) & (keys > np.arange(4)[:, None] - 2)
    seen = np.where(visible, np.exp(scores), 0)
    answer = seen / seen.sum(axis=-1, keepdims=True)
    assert made.named(answer) == {"window_from_zero"}
    assert made.named(answer, withheld={"window_from_zero"}) == set()


def truncated(weight):
    bits = weight.astype(np.float32).view(np.uint32) >> np.uint32(16) << np.uint32(16)
    return bits.view(np.float32)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("weight_rounded_bfloat16", lambda weight: weight.astype(ml_dtypes.bfloat16)),
        ("weight_rounded_float16", lambda weight: weight.astype(np.float16)),
        ("weight_truncated_bfloat16", truncated),
    ],
)
def test_a_weight_in_less_precision_where_the_checkpoint_has_more(name, change):
    weight = drawn(96, 64, seed=1)
    made = Made("linear", {"x": drawn(2, 9, 64)}, {"weight": weight})
    answer = made.under(weight=change(weight).astype(np.float64))
    assert made.named(answer) == {name}
    assert made.named(answer, withheld={name}) == set()


def test_every_hypothesis_is_planted_somewhere():
    """But eps in places where the checkpoint has that very one, or none can tell it from its neighbours.

    What is no step of the built-in checkpoints, tests/test_architectures.py plants.
    """
    planted = set(PLANTED).union(*(fault.named_by for fault in FAULTS))
    planted |= {"weight_rounded_bfloat16", "weight_truncated_bfloat16", "scale_by_hidden_over_heads"}
    planted |= {"query_index_from_zero", "window_from_zero"}
    steps = {component.step for name in BUILT_IN for component in place(name).file.contents.components}
    known = {hypothesis.name for step in steps - {None} for hypothesis in STEPS[step].hypotheses}
    elsewhere = {"weight_without_one", "multiplier_missing"}
    assert known - planted - elsewhere == {"eps_1e-06", "eps_1e-07"}
