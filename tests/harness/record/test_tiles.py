"""Floors do not depend on how rows are cut, and tiles add up to what a whole tensor comes to."""

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from harness.compare.metrics import Places, views
from harness.record import chains, tiles
from harness.record.noise import SPREAD, Noise
from harness.record.tally import Tally
from tests.harness.record.test_recorder import make_checkpoint
from tests.harness.record.test_streamed import recorded

AXES = {"B T C": (2, 7, 5), "B H T S": (2, 3, 7, 7), "B H T D": (2, 3, 7, 4), "B T H D": (2, 7, 3, 4)}
LEFT_PADDED = np.arange(7) >= np.array([[3], [0]])


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("strange", [False, True])
def test_tiles_add_up_to_the_whole(axes, strange):
    draw = np.random.default_rng(0)
    right, error = draw.normal(size=(2, *AXES[axes]))
    if strange:
        error[(0, 0, 1, 1)[: error.ndim]] = np.inf
        right[(1, 1, 1, 0)[: error.ndim]] = np.nan
    places = Places(queries=LEFT_PADDED, keys=LEFT_PADDED)
    tally = Tally(right.shape, axes, places, range(7))
    for rows in (slice(0, 2), slice(2, 7)):
        errors = np.stack([tiles.rows_of(value, axes, rows) for value in (right, error)])
        tally.add("all", tally.found(errors, rows), rows, slice(None))
    [found], whole = tally.views("all"), views(error, right, axes, places)
    assert (found.whole, found.row, found.channel) == pytest.approx((whole.whole, whole.row, whole.channel))


def test_only_recorded_rows_of_a_tile_count():
    tally = Tally((1, 3, 4), "B T C", Places(np.ones((1, 3)) > 0, np.ones((1, 9)) > 0), [1, 4, 5])
    assert tally.among(slice(0, 4)) == slice(0, 1)
    assert tally.picked(slice(0, 4), slice(0, 1)) == [1]
    assert tally.picked(slice(4, 6), tally.among(slice(4, 6))) is None


def test_floors_do_not_depend_on_how_rows_are_cut(tmp_path, monkeypatch):
    folder = make_checkpoint(tmp_path / "model")
    whole = recorded(folder, tmp_path / "whole.h5", None)
    for module in (chains, tiles):
        monkeypatch.setattr(module, "TILE", 64)
    cut = recorded(folder, tmp_path / "cut.h5", None)
    for one, other in zip(whole.contents.goldens, cut.contents.goldens, strict=True):
        floors = [(one.end_to_end.measured, other.end_to_end.measured)]
        if one.isolated is not None:
            floors += [
                (one.isolated.measured, other.isolated.measured),
                (one.isolated.modelled, other.isolated.modelled),
            ]
        for a, b in floors:
            assert (a.whole, a.row, a.channel) == pytest.approx((b.whole, b.row, b.channel), rel=1e-6)


def test_noise_is_the_same_each_time_and_of_the_size_it_says():
    drawn = [Noise("case", "float32").draw((3, 30_001)) / SPREAD for _ in range(2)]
    assert (drawn[0] == drawn[1]).all()
    assert float(drawn[0].mean()) == pytest.approx(0, abs=0.01)
    assert float(drawn[0].std()) == pytest.approx(1, abs=0.01)
    other = Noise("another", "float32").draw((3, 30_001)) / SPREAD
    assert abs(float((drawn[0] * other).mean())) < 0.02
