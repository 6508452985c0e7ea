"""What a component turns out to be when it is fed with zeros and unit vectors."""

from dataclasses import replace
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest

from harness.diagnose.probes import probe
from tests.harness.diagnose.problems import INPUTS, OUTPUTS, Made, drawn, product

SIZE, HEADS = 8, 2
HALF = SIZE // 2


def probed(made, component):
    """component: what the port computes, given the inputs by name."""
    subject = SimpleNamespace(answer=lambda golden, inputs: component(**inputs))
    return probe(subject, made.problem(made.right + 1))


def linear(weight=None, bias=None):
    """A port's product with another weight or bias than the reference's."""
    right = product().evaluation.parameters
    weight = right["weight"] if weight is None else weight
    bias = right["bias"] if bias is None else bias
    return lambda x: x.astype(np.float64) @ weight.T + bias


def told(component):
    made = product()
    text = probed(made, component)
    assert text.startswith("probed with zeros and unit vectors: ")
    return text.partition(": ")[2]


def test_a_right_weight_and_bias_are_said_to_be_right():
    assert told(linear()) == "weight and bias are right; the product is taken otherwise"


def test_a_missing_bias():
    assert told(linear(bias=np.zeros(OUTPUTS))) == "no bias"


def test_a_bias_that_is_wrong_in_places():
    bias = product().evaluation.parameters["bias"].copy()
    bias[3:5] += 1
    assert told(linear(bias=bias)) == f"bias wrong in channels 3-4 of {OUTPUTS}"


def test_one_wrong_weight():
    weight = product().evaluation.parameters["weight"].copy()
    right = weight[5, 7]
    weight[5, 7] = 2.5
    assert told(linear(weight)) == f"weight[5, 7] is 2.5, where the reference has {right:.6g}"


@pytest.mark.parametrize("axis", [0, 1])
def test_another_order(axis):
    weight = np.roll(product().evaluation.parameters["weight"], 1, axis=axis)
    what, count = ("outputs", OUTPUTS) if axis == 0 else ("inputs", INPUTS)
    last = f"0 is what belongs to {count - 1}"
    assert (
        told(linear(weight))
        == f"{what} of the weight in another order: 0-{count - 1} of {count} are moved, {last}"
    )


def test_a_half_that_was_not_loaded():
    weight = product().evaluation.parameters["weight"].copy()
    weight[6:] = 0
    assert told(linear(weight)) == (
        f"weight wrong in 50.0% of its elements: outputs 6-11 of {OUTPUTS}, inputs 0-15 of {INPUTS}, zero there"
    )


def rope():
    return Made(
        "rope",
        {
            "x": drawn(1, 3, HEADS * SIZE),
            "cos": drawn(1, 3, SIZE, seed=1),
            "sin": drawn(1, 3, SIZE, seed=2),
        },
        settings={"theta": 1e4},
    )


def turned(cross):
    """A port that turns heads by x cos + cross(x) sin."""

    def component(x, cos, sin):
        heads = x.reshape(*x.shape[:2], HEADS, SIZE).swapaxes(1, 2).astype(np.float64)
        return heads * cos[:, None] + cross(heads) * sin[:, None]

    return component


def halves(heads):
    return np.concatenate([-heads[..., HALF:], heads[..., :HALF]], -1)


def neighbours(heads):
    pairs = heads.reshape(*heads.shape[:-1], HALF, 2)
    return np.stack([-pairs[..., 1], pairs[..., 0]], -1).reshape(heads.shape)


@pytest.mark.parametrize(
    ("cross", "says"),
    [
        (halves, "the first head turns as it should"),
        (neighbours, "channel 0 turns together with channel 1, where the reference has 4"),
        (lambda heads: 0 * heads, "no channel turns with another one"),
        (
            lambda heads: -halves(heads),
            "at position 1 channel 0 gives -0.8415 to channel 4, where the reference has 0.8415",
        ),
    ],
)
def test_turns(cross, says):
    assert probed(rope(), turned(cross)) == f"probed with unit vectors at positions 0, 1 and 3: {says}"


def test_heads_that_change_where_nothing_turns():
    component = turned(halves)
    told = probed(rope(), lambda **inputs: 2 * component(**inputs))
    assert told.endswith("at position 0, where nothing turns, channel 0 gives 2 times itself to channel 0")


def test_a_port_that_refuses_is_not_probed():
    def refuses(**inputs):
        raise ValueError("only the shapes that were recorded")

    assert probed(product(), refuses) is None


def test_other_steps_are_not_probed():
    made = Made("silu", {"x": drawn(1, 3, 4)})
    assert probed(made, lambda x: x) is None


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_large_bias_does_not_blur_the_weight(dtype):
    """A port rounds the sum with the bias; the weights beside it are still told from one that is wrong."""
    made = product()
    right, bias = made.evaluation.parameters["weight"], 100 * drawn(OUTPUTS, seed=5)
    weight = right.copy()
    weight[3] = -weight[3]
    kind = np.float32 if dtype == "float32" else ml_dtypes.bfloat16

    def component(x):
        return (x.astype(np.float64) @ weight.T + bias).astype(kind)

    subject = SimpleNamespace(answer=lambda golden, inputs: component(**inputs))
    problem = made.problem(made.right + 1)
    seen = replace(
        problem.observations[0].evaluation,
        parameters={"weight": right, "bias": component(np.zeros((1, 1, INPUTS)))[0, 0].astype(np.float64)},
    )
    observation = replace(
        problem.observations[0], evaluation=seen, answer=problem.observations[0].answer.astype(kind)
    )
    text = probe(subject, replace(problem, dtype=dtype, observations=[observation]))
    assert text.endswith(f"outputs 3 of {OUTPUTS}, inputs 0-{INPUTS - 1} of {INPUTS}")
