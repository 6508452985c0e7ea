"""Floors do not depend on how rows are cut, and tiles add up to what a whole tensor comes to."""

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch

from harness.compare.metrics import Places, views
from harness.kinds.numpy_arrays import NumpyArrays
from harness.model import Component
from harness.record import chains, noise, tally, tiles, torch_arrays
from harness.record.loops import loops
from harness.record.noise import SPREAD, Noise
from harness.record.spread import Spread
from harness.record.steps import Factor, Product, Weights
from harness.record.tally import Tally
from tests.harness.record.test_recorder import make_checkpoint
from tests.harness.record.test_streamed import recorded

AXES = {"B T C": (2, 7, 5), "B H T S": (2, 3, 7, 7), "B H T D": (2, 3, 7, 4), "B T H D": (2, 7, 3, 4)}
ALONE = {axes: (1, *shape[1:]) for axes, shape in AXES.items()}
LEFT_PADDED = np.arange(7) >= np.array([[3], [0]])


@pytest.mark.parametrize(("axes", "shape"), [*AXES.items(), *ALONE.items()])
@pytest.mark.parametrize("strange", [False, True])
@pytest.mark.parametrize("few", [0, 1000], ids=["compiled", "plain"])
def test_tiles_add_up_to_the_whole(axes, shape, strange, few, monkeypatch):
    monkeypatch.setattr(tally, "FEW", few)
    draw = np.random.default_rng(0)
    right, seen, *moved = draw.normal(size=(4, *shape))
    variance, moved = draw.uniform(size=shape), np.array(moved, np.float32)
    seen = seen.astype(np.float32)
    if strange:
        seen[(0, 0, 1, 1)[: seen.ndim]] = np.inf
        moved[1][(0, 2, 2, 0)[: seen.ndim]] = -np.inf
        right[(-1, 1, 1, 0)[: seen.ndim]] = np.nan
    places = Places(queries=LEFT_PADDED[: shape[0]], keys=LEFT_PADDED[: shape[0]])
    tallied = Tally(right.shape, axes, places, range(7))
    for rows in (slice(0, 2), slice(2, 7)):
        numbers = [tiles.rows_of(value, axes, rows) for value in (right, seen)]
        distances = np.stack([tiles.rows_of(value, axes, rows) for value in moved])
        spread = tiles.rows_of(variance, axes, rows)
        tallied.add("all", rows, slice(None), *numbers, distances, spread)
    for found, error in zip(tallied.views("all"), (seen - right, *moved, np.sqrt(variance)), strict=True):
        whole = views(error, right, axes, places)
        assert (found.whole, found.row, found.channel) == pytest.approx(
            (whole.whole, whole.row, whole.channel)
        )
    nothing_is_compiled_later()


def nothing_is_compiled_later():
    """For arrays that lie otherwise, numba would compile again, and write where another process may read."""
    assert [len(loop.signatures) for loop in loops()] == [1, 1, 1]


def test_only_recorded_rows_of_a_tile_count():
    tallied = Tally((1, 3, 4), "B T C", Places(np.ones((1, 3)) > 0, np.ones((1, 9)) > 0), [1, 4, 5])
    assert tallied.among(slice(0, 4)) == slice(0, 1)
    assert tallied.picked(slice(0, 4), slice(0, 1)) == [1]
    assert tallied.picked(slice(4, 6), tallied.among(slice(4, 6))) is None


def test_floors_do_not_depend_on_how_rows_are_cut(tmp_path, monkeypatch):
    folder = make_checkpoint(tmp_path / "model")
    whole = recorded(folder, tmp_path / "whole.h5", None)
    for module in (chains, tiles):
        monkeypatch.setattr(module, "TILE", 64)
    # so that what is small is compiled, and what is large is not
    for module in (tally, noise, torch_arrays):
        monkeypatch.setattr(module, "FEW", 32)
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
    nothing_is_compiled_later()


def test_noise_is_the_same_each_time_and_of_the_size_it_says():
    drawn = [Noise("case", "float32").draw((3, 30_001)) / SPREAD for _ in range(2)]
    assert (drawn[0] == drawn[1]).all()
    assert float(drawn[0].mean()) == pytest.approx(0, abs=0.01)
    assert float(drawn[0].std()) == pytest.approx(1, abs=0.01)
    other = Noise("another", "float32").draw((3, 30_001)) / SPREAD
    assert abs(float((drawn[0] * other).mean())) < 0.02


@pytest.mark.parametrize("draws", [1, 3])
def test_noise_is_the_same_compiled_as_plain(draws, monkeypatch):
    draw = np.random.default_rng(0)
    variance = torch.from_numpy(draw.uniform(size=(2, 41, 61)) * 10.0 ** draw.uniform(-40, 3, (2, 41, 61)))
    variance[0, 0] = 0
    before = torch.from_numpy(draw.normal(size=(draws, 2, 41, 61)).astype(np.float32))
    monkeypatch.setattr(noise, "FEW", 10**6)
    plain = Noise("case").disturbing(before.clone(), variance)
    monkeypatch.setattr(noise, "FEW", 0)
    compiled = Noise("case").disturbing(before.clone(), variance)
    changed = compiled != before
    assert bool(changed[:, :, 1:].any())
    assert not bool(changed[:, 0, 0].any())
    assert ((compiled - plain).abs() <= 1e-6 * (before.abs() + 5 * variance.sqrt())).all()


@pytest.mark.parametrize("few", [0, 10**6], ids=["compiled", "plain"])
@pytest.mark.parametrize("tile", [32, 10**6])
def test_what_a_product_hands_on_is_what_was_disturbed(few, tile, monkeypatch):
    monkeypatch.setattr(noise, "FEW", few)
    monkeypatch.setattr(tiles, "TILE", tile)
    draw = np.random.default_rng(0)
    x, distances, weight = (
        torch.from_numpy(draw.normal(size=shape)) for shape in ((2, 9, 5), (3, 2, 9, 5), (4, 5))
    )
    factor = Factor(Spread(x, distances.float()), None, list(range(9)))
    component = Component("made", "made", "B T O", "linear")
    product = Product(component, factor, Weights(slice(None), {"weight": weight.float()}), draws=3)
    parts = []
    for rows in product.tiles:
        output = product.exact(rows)[1]
        before = product.moved(rows, output, 0, 3).clone()
        after = Noise("case").disturbing(product.moved(rows, output, 0, 3), torch.ones_like(output))
        assert (after != before).any()
        parts.append(Spread(output, after.clone()))
    assert (len(parts) > 1) is (tile == 32)
    handed_on = product.together(parts)
    assert (handed_on.exact == torch.cat([part.exact for part in parts], 1)).all()
    assert (handed_on.moved == torch.cat([part.moved for part in parts], 2)).all()


@pytest.mark.parametrize("values", [1, 2, 3])
def test_the_variance_of_rounding_finite_numbers_is_the_same_in_torch_compiled_and_in_numpy(
    values, monkeypatch
):
    draw = np.random.default_rng(0)
    numbers = draw.normal(size=(values, 3, 5, 7)) * 10.0 ** draw.integers(-300, 150, (values, 3, 5, 7))
    numbers[:, 0, 0, :3] = 0, 2, -8
    right = NumpyArrays("float64").rounding(2.0**-24, *numbers)
    assert right[0, 0, :3].tolist() == [values * size**2 * 2.0**-48 / 3 for size in (0, 2, 8)]
    for few in (0, 10**6):
        monkeypatch.setattr(torch_arrays, "FEW", few)
        found = torch_arrays.TorchArrays(torch.float64).rounding(2.0**-24, *map(torch.from_numpy, numbers))
        np.testing.assert_allclose(found, right, rtol=1e-12)
