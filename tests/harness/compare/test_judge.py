"""A verdict: by the rule, and nothing slips through for want of numbers."""

import ml_dtypes
import numpy as np
import pytest

from harness.compare.judge import judge
from harness.compare.metrics import Places
from harness.model import Component, Floor, Golden, Mode, Verdict, Views

SHAPE = (2, 4, 8)
PLACES = Places(np.ones((2, 4), bool), np.ones((2, 4), bool))
ZERO = Floor(Views(0, 0, 0), Views(0, 0, 0))
FLOOR = Floor(Views(1e-6, 2e-6, 3e-6), Views(2e-6, 1e-6, 1e-6))


def component(exact=False):
    return Component("layers.0.mlp.up_proj", "up_proj", "B T O", step="linear", exact=exact)


def verdict(port, recorded, floor=FLOOR, exact=False, mode=Mode.ISOLATED, places=PLACES):
    golden = Golden("layers.0.mlp.up_proj", "hello", recorded.dtype.name, 0, {}, floor, floor)
    return judge(component(exact), golden, mode, port, recorded, places)


@pytest.fixture
def recorded():
    return np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)


def test_the_same_passes(recorded):
    assert verdict(recorded, recorded).verdict is Verdict.PASS


def test_the_greater_floor_of_each_view_counts(recorded):
    result = verdict(recorded, recorded)
    assert result.floor == Views(2e-6, 2e-6, 3e-6)
    # four floors, and more where a norm is over few elements: 64 in all, 8 in a row, 8 in a channel
    few = 4 + 4 / 8**0.5
    assert result.limit == Views(2e-6 * 4.5, 2e-6 * few, 3e-6 * few)


def test_end_to_end_six_floors_pass_whatever_the_size(recorded):
    assert verdict(recorded, recorded, mode=Mode.END_TO_END).limit == Views(12e-6, 12e-6, 18e-6)


@pytest.mark.parametrize(("times", "expected"), [(4.4, Verdict.PASS), (4.6, Verdict.FAIL)])
def test_so_many_floors_pass_and_no_more(recorded, times, expected):
    noise = np.sign(np.random.default_rng(1).standard_normal(SHAPE)) * np.abs(recorded)
    floor = Floor(Views(1e-3, 1e-3, 1e-3), Views(0, 0, 0))
    assert (
        verdict(recorded + np.float32(times * 1e-3) * noise.astype(np.float32), recorded, floor).verdict
        is expected
    )


def test_a_quarter_of_a_unit_roundoff_is_always_allowed_for(recorded):
    assert verdict(recorded, recorded, ZERO).floor == Views(2**-26, 2**-26, 2**-26)


def test_exact_components_pass_bit_by_bit_only(recorded):
    port = recorded.copy()
    assert verdict(port, recorded, ZERO, exact=True).verdict is Verdict.PASS
    port[1, 2, 3] = np.nextafter(port[1, 2, 3], np.float32(9))
    result = verdict(port, recorded, ZERO, exact=True)
    assert result.verdict is Verdict.FAIL
    assert result.reason == "1 of 64 elements differ, and none may"
    assert result.worst.index == [1, 2, 3]


def test_exact_step_end_to_end_has_the_floor_of_what_it_takes_in(recorded):
    port = recorded * np.float32(1 + 1e-6)
    assert verdict(port, recorded, FLOOR, exact=True, mode=Mode.END_TO_END).verdict is Verdict.PASS


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_new_nan_or_infinity_fails_with_its_place(recorded, value):
    port = recorded.copy()
    port[0, 3, 5] = value
    result = verdict(port, recorded)
    assert result.verdict is Verdict.FAIL
    assert "[0, 3, 5]" in result.reason
    assert verdict(recorded, port).verdict is Verdict.FAIL


def test_overflow_in_both_at_the_same_places_passes(recorded):
    recorded[0, 0, 0], recorded[1, 1, 1] = np.inf, np.nan
    assert verdict(recorded.copy(), recorded).verdict is Verdict.PASS
    other = recorded.copy()
    other[0, 0, 0] = -np.inf
    assert verdict(other, recorded).verdict is Verdict.FAIL


@pytest.mark.parametrize("shape", [(2, 8, 4), (2, 4, 1), (1, 4, 8), (64,)])
def test_other_shapes_fail_even_if_they_broadcast(recorded, shape):
    port = np.resize(recorded, shape)
    result = verdict(port, recorded)
    assert result.verdict is Verdict.FAIL
    assert str(shape) in result.reason


def test_another_dtype_is_not_compared(recorded):
    result = verdict(recorded.astype(ml_dtypes.bfloat16), recorded)
    assert result.verdict is Verdict.FAIL
    assert result.error is None
    assert "bfloat16" in result.reason


def test_nothing_finite_is_not_a_pass(recorded):
    recorded[:] = np.nan
    result = verdict(recorded.copy(), recorded)
    assert result.verdict is Verdict.UNMEASURED
    assert "no finite number" in result.reason


def test_padding_cannot_fail_and_cannot_hide(recorded):
    real = np.array([[0, 0, 1, 1], [1, 1, 1, 1]], dtype=bool)
    places = Places(real, real)
    port = recorded.copy()
    port[0, :2] = np.nan
    assert verdict(port, recorded, places=places).verdict is Verdict.PASS
    port[0, 2, 0] += 1
    assert verdict(port, recorded, places=places).verdict is Verdict.FAIL
