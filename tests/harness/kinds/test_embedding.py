"""Mistakes in looking up rows."""

import numpy as np
import pytest

from harness.kinds.embedding import EMBEDDING, evaluate
from harness.kinds.numpy_arrays import NumpyArrays
from harness.kinds.step import Evaluation

NARROW = {h.says: h.change for h in EMBEDDING.hypotheses if h.name == "ids_low_bits"}


def looked_up(vocabulary, *ids):
    table = np.arange(vocabulary, dtype=np.float32)[:, None]
    return Evaluation(NumpyArrays(np.float32), {"token_ids": np.array([ids])}, {"weight": table}, {})


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_ids_of_a_large_vocabulary_lose_what_does_not_fit(dtype):
    ids = [0, 255, 256, 65535, 65536, 70000]
    change = NARROW[f"token ids kept in {np.iinfo(dtype).bits} bits"]
    assert evaluate(change(looked_up(70001, *ids))).ravel().tolist() == np.array(ids).astype(dtype).tolist()


def test_where_all_ids_fit_there_is_no_such_mistake():
    assert [change(looked_up(256, 3)) for change in NARROW.values()] == [None, None]
    assert [change(looked_up(65536, 3)) is None for change in NARROW.values()] == [False, True]
