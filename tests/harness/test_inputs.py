"""Batches and drawn inputs: whatever is drawn, mask, positions and tokens belong together."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import GoldensError
from harness.inputs import Rows, assemble, draw_rows

VOCAB = 97


@st.composite
def cases(draw):
    """Whatever can be drawn from a seed: batches, padding on either side or none, positions from anywhere."""
    padding = draw(st.sampled_from(["none", "left", "right"]))
    batch = draw(st.integers(1 if padding == "none" else 2, 4))
    shortest = draw(st.integers(2, 8))
    ids = draw_rows(draw(st.integers(0, 2**64)), VOCAB, batch, shortest, shortest + 16, padding)
    return assemble("drawn", "randomized", "", Rows(ids, padding, draw(st.integers(0, 30_000))), VOCAB)


@given(case=cases())
@settings(max_examples=60)
def test_mask_positions_and_tokens_belong_together(case):
    assert case.token_ids.shape == case.attention_mask.shape == case.positions.shape
    for ids, mask, positions in zip(case.token_ids, case.attention_mask, case.positions, strict=True):
        real = mask == 1
        assert real.sum() >= 2
        assert (np.diff(np.flatnonzero(real)) == 1).all(), "real tokens are one run"
        assert (np.diff(positions[real]) == 1).all()
        assert (positions[~real] == 0).all()
        assert len(set(ids[real].tolist())) == real.sum(), "tokens differ"
        assert ((ids >= 0) & (ids < VOCAB)).all()
    assert case.attention_mask.any(axis=0).all(), "no column is padding alone"


@given(
    seed=st.integers(0, 2**64),
    batch=st.integers(2, 5),
    lengths=st.tuples(st.integers(1, 10), st.integers(11, 30)),
    padding=st.sampled_from(["none", "left", "right"]),
)
def test_rows_drawn_from_a_seed_keep_what_was_asked(seed, batch, lengths, padding):
    rows = draw_rows(seed, VOCAB, batch, *lengths, padding)
    sizes = [len(row) for row in rows]
    assert len(rows) == batch
    assert all(lengths[0] <= size <= lengths[1] for size in sizes)
    assert len(set(sizes)) == 1 if padding == "none" else sizes[:2] == [lengths[1], lengths[0]]
    assert all(len(set(row)) == len(row) for row in rows)
    assert rows == draw_rows(seed, VOCAB, batch, *lengths, padding)


def test_a_vocabulary_smaller_than_the_row_still_gives_rows():
    [row] = draw_rows(1, 3, 1, 8, 8, "none")
    assert len(row) == 8
    assert set(row) <= {0, 1, 2}


def test_one_in_eight_tokens_lies_at_the_end_of_the_vocabulary():
    [row] = draw_rows(5, 150_000, 1, 800, 800, "none")
    assert 60 < sum(token >= 150_000 - 512 for token in row) < 150


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (Rows([[1, 2], [3]]), 'rows of 1 to 2 tokens: say padding = "left" or "right"'),
        (Rows([[1], []], "left"), "no tokens in one of its rows"),
        (Rows([]), "no tokens"),
        (Rows([[1, VOCAB]]), "token id 97, outside the checkpoint's vocabulary of 97"),
    ],
)
def test_rows_that_make_no_batch_are_refused(rows, told):
    with pytest.raises(GoldensError, match=r"^case it") as error:
        assemble("it", "prompt", "", rows, VOCAB)
    assert told in str(error.value)
