"""Views: what they look at, what they leave out, and that nothing hides in them."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.compare.metrics import Places, views

B, T = 2, 5
ALL = Places(np.ones((B, T), bool), np.ones((B, T), bool))
seeds = st.integers(0, 2**32)


def pair(seed, shape=(B, T, 6)):
    random = np.random.default_rng(seed)
    return random.standard_normal(shape) * 1e-6, random.standard_normal(shape)


@given(seeds)
def test_no_view_is_below_the_whole(seed):
    found = views(*pair(seed), "B T O", ALL)
    assert 0 < found.whole <= min(found.row, found.channel) * (1 + 1e-12)


@given(seeds, st.integers(-40, 40))
def test_scale_of_both_does_not_matter(seed, power):
    error, reference = pair(seed)
    scale = 2.0**power
    assert views(error * scale, reference * scale, "B T O", ALL) == views(error, reference, "B T O", ALL)


@given(seeds, st.tuples(st.integers(0, B - 1), st.integers(0, T - 1), st.integers(0, 5)))
def test_one_wrong_element_shows_in_its_row_and_channel(seed, place):
    error, reference = np.zeros((B, T, 6)), pair(seed)[1]
    error[place] = 1.0
    found = views(error, reference, "B T O", ALL)
    b, t, o = place
    np.testing.assert_allclose(found.row, 1 / np.linalg.norm(reference[b, t]))
    np.testing.assert_allclose(found.channel, 1 / np.linalg.norm(reference[:, :, o]))


@given(seeds)
def test_padding_is_not_looked_at(seed):
    """Neither padded rows nor padded key columns, whatever they hold: NaN too."""
    error, reference = pair(seed, (B, 3, T, T))
    real = np.array([[0, 0, 1, 1, 1], [1, 1, 1, 1, 0]], dtype=bool)
    places = Places(real, real)
    expected = views(error, reference, "B H T S", places)
    for tensor in (error, reference):
        tensor.transpose(0, 2, 1, 3)[~real] = np.nan
        tensor.transpose(0, 3, 1, 2)[~real] = np.inf
    assert views(error, reference, "B H T S", places) == expected


def test_rows_and_channels_of_heads():
    """For (B H T D) a row is all heads of a token, and a channel one (h, d)."""
    error = np.zeros((B, 3, T, 4))
    error[0, 1, 2, 3] = 2.0
    found = views(error, np.ones_like(error), "B H T D", ALL)
    np.testing.assert_allclose(found.row, 2 / np.sqrt(3 * 4))
    np.testing.assert_allclose(found.channel, 2 / np.sqrt(B * T))


def test_an_error_where_the_reference_is_zero_is_infinite():
    reference = np.ones((B, T, 6))
    reference[1, 2] = 0
    error = np.zeros_like(reference)
    assert views(error, reference, "B T O", ALL).row == 0
    error[1, 2, 0] = 1e-30
    assert views(error, reference, "B T O", ALL).row == np.inf


@settings(max_examples=20)
@given(seeds)
def test_float32_input_is_squared_in_float64(seed):
    error, reference = pair(seed)
    small = views((error * 1e-30).astype(np.float32), reference.astype(np.float32), "B T O", ALL)
    assert small.whole > 0
