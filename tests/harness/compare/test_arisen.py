"""The first NaN or infinity that a port makes: what counts as one, and which is the first."""

import numpy as np
import pytest

from harness.compare.arisen import arisen
from harness.compare.metrics import Places
from harness.report.result import Arisen

EVERYWHERE = Places(np.ones((2, 4), bool), np.ones((2, 4), bool))
ONES = np.ones((2, 3, 4, 5), np.float32)


def spoilt(*places, value=np.nan):
    port = ONES.copy()
    for place in places:
        port[place] = value
    return port


def test_the_earliest_token_comes_first_then_the_first_text():
    """Not as they lie in memory, where text 0 comes first."""
    found = arisen(spoilt((0, 0, 3, 1), (1, 2, 2, 4), (1, 1, 2, 3)), ONES, "B H T D", EVERYWHERE)
    assert found == Arisen(3, {"B": 1, "H": 1, "T": 2, "D": 3}, found.port)
    assert np.isnan(found.port)


def test_tokens_are_those_of_the_case():
    found = arisen(spoilt((0, 0, 1, 0), value=-np.inf), ONES, "B H T D", EVERYWHERE, tokens=[2, 9, 10, 11])
    assert (found.at["T"], found.port) == (9, -np.inf)


def test_padding_is_none():
    padded = Places(np.array([[0, 0, 1, 1], [1, 1, 1, 1]], bool), EVERYWHERE.keys)
    assert arisen(spoilt((0, 0, 1, 0)), ONES, "B H T D", padded) is None
    assert arisen(spoilt((0, 0, 1, 0), (0, 0, 2, 0)), ONES, "B H T D", padded).count == 1


def test_what_the_golden_has_is_not_made():
    """Another infinity, and a number where the golden has none, fail; but nothing arose."""
    recorded = spoilt((0, 0, 0, 0), value=np.inf)
    for value in (np.inf, -np.inf, np.nan, 1.0):
        assert arisen(spoilt((0, 0, 0, 0), value=value), recorded, "B H T D", EVERYWHERE) is None


@pytest.mark.parametrize("port", [ONES.astype(np.float64) * np.nan, ONES[:, :, :, :4] * np.nan])
def test_what_cannot_be_compared_says_nothing(port):
    assert arisen(port, ONES, "B H T D", EVERYWHERE) is None
