"""What is said of a failure without a name holds, and is not said where it does not hold."""

import numpy as np
import pytest

from harness.diagnose.fits import spans
from harness.diagnose.search import Distance, explains
from tests.harness.diagnose.problems import OUTPUTS, drawn, product, residual

ORDER = [0, 1, 4, 2, 3, 5, 6, 7, 8, 9, 10, 11]


def changed(right, place, value):
    answer = right.copy()
    answer[place] = value
    return answer


def test_a_scale():
    made = product()
    assert made.described(2.5 * made.right) == "the right output times 2.5"


@pytest.mark.parametrize("difference", [1e-4, 1e-2])
def test_a_scale_of_all_but_one_element_is_none(difference):
    made = product()
    answer = 2.5 * made.right
    assert "times" not in str(made.described(changed(answer, (1, 3, 7), answer[1, 3, 7] + difference)))


def test_a_combination_of_two_inputs():
    made = residual()
    x = made.evaluation.inputs
    assert made.described(0.3 * x["residual"] + 1.7 * x["branch"]) == "0.3 · residual + 1.7 · branch"


def test_no_combination_of_what_is_not_linear():
    made = residual()
    x = made.evaluation.inputs
    assert made.described(0.3 * x["residual"] + 1.7 * x["branch"] ** 3) is None


def test_an_offset():
    made = product()
    offset = np.linspace(-2, 3, OUTPUTS)
    told = made.described(made.right + offset)
    assert told.startswith("the right output plus an offset that is the same for every token, from -2 to 3")


def test_an_offset_that_differs_from_token_to_token_is_none():
    made = product()
    assert made.described(made.right + drawn(*made.right.shape, seed=5)) is None


def test_each_channel_times_a_number_of_its_own():
    made = product()
    told = made.described(made.right * np.linspace(0.5, 4, OUTPUTS))
    assert told == "the right output with each channel times a number of its own, from 0.5 to 4"


def test_numbers_that_were_made_for_these_tokens_are_none():
    """Channels times a number, but another one in every text."""
    made = product()
    factors = np.stack([np.linspace(0.5, 4, OUTPUTS), np.linspace(4, 0.5, OUTPUTS)])[:, None]
    assert made.described(made.right * factors) is None


def test_channels_in_another_order():
    made = product()
    told = made.described(made.right[..., ORDER[::-1]])
    assert told == (
        "the right channels in another order: 0-11 of 12 are moved, channel 0 holds what belongs to 11"
    )


def test_a_channel_that_is_there_twice_is_no_order():
    made = product()
    order = [11, 11, *range(9, -1, -1)]
    assert "another order" not in str(made.described(made.right[..., order]))


def test_rows_at_other_tokens():
    made = product()
    told = made.described(np.roll(made.right, 1, axis=1))
    assert told == "the right rows at other tokens: token 0 holds what belongs to token 4"


def test_a_few_channels():
    made = product()
    told = made.described(changed(made.right, (..., [3, 4, 9]), drawn(2, 5, 3, seed=4)))
    assert told == "only channels 3-4, 9 of 12 are wrong; the others are right"


def test_a_few_channels_of_zeros():
    made = product()
    told = made.described(changed(made.right, (..., [3, 4]), 0))
    assert told == "only channels 3-4 of 12 are wrong; they are zero there"


def test_most_channels_are_not_told_one_by_one():
    made = product()
    assert "only" not in str(made.described(changed(made.right, (..., range(9)), drawn(2, 5, 9, seed=4))))


def test_one_wrong_weight_is_found():
    made = product()
    weight = made.evaluation.parameters["weight"].copy()
    weight[7, 2] += 0.25
    told = made.described(made.under(weight=weight))
    assert told == "only channel 7 of 12 is wrong; as if weight[7, 2] were larger by 0.25"


def test_two_wrong_weights_are_not_told_as_one():
    made = product()
    weight = made.evaluation.parameters["weight"].copy()
    weight[7, 2:4] += 0.25
    assert made.described(made.under(weight=weight)) == "only channel 7 of 12 is wrong; the others are right"


def test_a_few_tokens():
    made = product()
    told = made.described(changed(made.right, (1, [0, 3]), drawn(2, OUTPUTS, seed=4)))
    assert told == "only tokens 0, 3 of text 1 are wrong, of 10 in all"


def test_padding_is_not_looked_at():
    made = product(padding=[(0, 0), (0, 1)])
    answer = changed(2 * made.right, (0, [0, 1]), 1e3)
    assert made.described(answer) == "the right output times 2"
    assert made.described(changed(2 * made.right, (0, 2), 1e3)) != "the right output times 2"


@pytest.mark.parametrize("seed", range(5))
def test_of_anything_else_nothing_is_said(seed):
    made = product()
    assert made.described(drawn(*made.right.shape, seed=10 + seed)) is None
    assert made.named(drawn(*made.right.shape, seed=10 + seed)) == set()


def test_a_right_answer_is_not_described():
    made = product()
    assert made.described(made.right) is None
    assert made.named(made.right) == set()


def test_a_scale_of_nearly_one_is_told_with_all_its_digits():
    made = product()
    assert made.described(made.right * (1 + 1e-6)).startswith("the right output times 1.00000")


def test_what_takes_a_few_noise_floors_to_a_few_less_explains_nothing():
    assert not explains(Distance(over_limit=0.9, over_floor=3.9), before=8.0)
    assert not explains(Distance(over_limit=1.1, over_floor=4.5), before=1e6)
    assert explains(Distance(over_limit=0.2, over_floor=1.0), before=5.0)


@pytest.mark.parametrize(
    ("places", "told"),
    [
        ([], "none"),
        ([4], "4"),
        ([0, 1, 2, 5], "0-2, 5"),
        (range(0, 16, 2), "0, 2, 4, 6, 8, 10 and 2 more"),
    ],
)
def test_spans(places, told):
    assert spans(np.array(places, dtype=int)) == told
