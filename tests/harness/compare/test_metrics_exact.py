"""One pass over parts comes to what plain float64 does: every figure of a comparison, however the tensors are cut."""

import math
import os
import subprocess
import sys
import threading
import tracemalloc
import warnings
from collections import defaultdict
from unittest.mock import patch

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.compare import sums
from harness.compare.layout import Layout
from harness.compare.metrics import Places, apart, counts, views

DTYPES = [np.dtype(each) for each in (np.float32, np.float16, np.float64, ml_dtypes.bfloat16)]
AXES = ["B T C", "B H T D", "B H T S", "B T H D", "B K S D", "B S K D", "B H T", "B T", "B S C T"]
STRANGE = [np.nan, np.inf, -np.inf]


@st.composite
def comparisons(draw):
    """Two tensors that are alike but for a relative error, some padding, and here and there what is no number."""
    axes = draw(st.sampled_from(AXES))
    sizes = {letter: draw(st.integers(1, 7)) for letter in dict.fromkeys("BTS" + axes.replace(" ", ""))}
    shape = tuple(sizes[letter] for letter in axes.split())
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    dtype = draw(st.sampled_from(DTYPES))
    least, most = sorted(draw(st.tuples(*[st.integers(-30, 30)] * 2)))
    recorded = random.standard_normal(shape) * 10.0 ** random.uniform(least, most, shape)
    port = recorded * (1 + draw(st.sampled_from([0, 1e-7, 1e-2, 10])) * random.standard_normal(shape))
    with np.errstate(over="ignore"):
        port, recorded = port.astype(dtype), recorded.astype(dtype)
    for tensors in draw(st.lists(st.sampled_from([(port,), (recorded,), (port, recorded)]), max_size=3)):
        place, value = tuple(int(random.integers(size)) for size in shape), draw(st.sampled_from(STRANGE))
        for tensor in tensors:
            tensor[place] = value
    queries, keys = (
        random.random((sizes["B"], sizes[letter])) < draw(st.sampled_from([0.7, 2])) for letter in "TS"
    )
    return port, recorded, axes, Places(queries, keys), draw(st.sampled_from([0.0, 1e-6, 1.0]))


def plain(port, recorded, axes, places, atol):
    """The same figures, number by number."""
    letters = axes.split()
    rows, channels = (defaultdict(lambda: ([0.0], [0.0])) for _ in "rc")
    largest, at, strange, finite = 0.0, None, [], 0
    for place in np.ndindex(recorded.shape):
        index = dict(zip(letters, place, strict=True))
        real = all(
            mask[index["B"], index[letter]]
            for letter, mask in (("T", places.queries), ("S", places.keys))
            if letter in index
        )
        ours, theirs = float(port[place]), float(recorded[place])
        row = rows[tuple(index[letter] for letter in letters if letter in "BT")]
        channel = channels[tuple(index[letter] for letter in letters if letter not in "BTS")]
        if not real:
            continue
        finite += math.isfinite(theirs)
        if not (math.isfinite(ours) and math.isfinite(theirs)):
            if ours != theirs and not (math.isnan(ours) and math.isnan(theirs)):
                strange.append(place)
            continue
        error = abs(ours - theirs)
        if error > largest:
            largest, at = error, place
        for part in (row, channel):
            part[0].append(error**2 if error > atol else 0.0)
            part[1].append(theirs**2)
    exact = [
        np.array([[math.fsum(both[i]) for _, both in sorted(part.items())] for i in (0, 1)])
        for part in (rows, channels)
    ]
    return exact, largest, at, strange, finite


def sizes(few, part, widest):
    """Up to how many elements numpy does it, and the parts of others."""
    return patch.multiple(sums, FEW=few, _ALONE=part, _PART=part, _WIDEST=widest)


@settings(max_examples=150)
@given(comparisons(), st.sampled_from([(10_000, 1, 1), (0, 10_000, 10_000), (0, 40, 4), (0, 7, 4)]))
def test_every_figure_is_that_of_plain_float64(comparison, how):
    (rows, channels), largest, at, strange, finite = plain(*comparison)
    with sizes(*how):
        found = apart(*comparison)
    np.testing.assert_allclose(found.rows.reshape(2, -1), rows, rtol=1e-14, atol=0)
    np.testing.assert_allclose(found.channels.reshape(2, -1), channels, rtol=1e-14, atol=0)
    assert (found.largest, found.strange, found.finite) == (largest, len(strange), finite)
    assert at is None or found.at == at
    assert not strange or found.first == strange[0]


@pytest.mark.parametrize("few", [0, 10])
def test_an_error_of_atol_counts_as_none_and_a_padded_one_is_not_found(few, monkeypatch):
    monkeypatch.setattr(sums, "FEW", few)
    recorded = np.zeros((1, 2, 3), np.float32)
    port = np.array([[[0.5, 0, 0.25], [0, 0.75, 0.5]]], np.float32)
    places = Places(np.ones((1, 2), bool), np.array([[False, True, True]]))
    found = apart(port, recorded, "B T S", places, atol=0.5)
    assert found.rows[0].tolist() == [[0, 0.75**2]]
    assert (found.largest, found.at) == (0.75, (0, 1, 1))
    port[0, 0, 0] = 0.75
    assert apart(port, recorded, "B T S", places, atol=0.5).at == (0, 1, 1)


@settings(max_examples=50)
@given(comparisons())
def test_views_of_an_error_are_those_of_two_tensors(comparison):
    port, recorded, axes, places, _ = comparison
    with np.errstate(invalid="ignore"):
        error = port.astype(np.float64) - recorded.astype(np.float64)
    found, expected = views(error, recorded, axes, places), apart(port, recorded, axes, places).views()
    for view in ("whole", "row", "channel"):
        np.testing.assert_allclose(getattr(found, view), getattr(expected, view), rtol=1e-14)


@settings(max_examples=50)
@given(comparisons())
def test_counts_are_those_of_the_valid_elements(comparison):
    _, recorded, axes, places, _ = comparison
    valid, letters = np.broadcast_to(places.valid(axes), recorded.shape), axes.split()
    rows = valid.sum(axis=tuple(i for i, letter in enumerate(letters) if letter not in "BT"))
    channels = valid.sum(axis=tuple(i for i, letter in enumerate(letters) if letter in "BTS"))
    if valid.any():
        found = counts(recorded.shape, axes, places)
        assert (found.whole, found.row, found.channel) == (valid.sum(), rows[rows > 0].min(), channels.min())


@pytest.mark.parametrize(("axes", "shape"), [("B T C", (2, 700, 896)), ("B T V", (1, 9, 151_936))])
def test_sums_of_many_are_exact_but_for_a_few_roundings(axes, shape):
    """Of 1.3 million squares, in parts, wide rows cut: against sums that round once."""
    random = np.random.default_rng(0)
    recorded = random.standard_normal(shape, dtype=np.float32)
    port = recorded * (1 + np.float32(1e-6) * random.standard_normal(shape, dtype=np.float32))
    real = np.ones(shape[:2], bool)
    found = apart(port, recorded, axes, Places(real, real))
    error, reference = port.astype(np.float64) - recorded, recorded.astype(np.float64)
    for kind, tensor in enumerate((error, reference)):
        exact = math.fsum((tensor**2).ravel())
        assert abs(found.rows[kind].sum() - exact) <= 1e-15 * exact * 4
        np.testing.assert_allclose(found.channels[kind].sum(), exact, rtol=4e-15)


@pytest.mark.parametrize(
    ("axes", "shape"), [("B T C", (2, 700, 896)), ("B T V", (1, 9, 151_936)), ("B H T S", (1, 5, 512, 512))]
)
def test_sums_do_not_depend_on_how_many_threads_there_are(axes, shape):
    random = np.random.default_rng(1)
    layout = Layout.of(axes, shape)
    first, reference = random.standard_normal((2, *layout.shape), dtype=np.float32)
    pair = sums.Pair(first, reference, np.ones(layout.shape[:2], bool), None, True)
    alone, *others = (sums.measure(pair, helpers) for helpers in (0, 1, 3, None))
    for other in others:
        np.testing.assert_array_equal(other.over_inner, alone.over_inner)
        np.testing.assert_array_equal(other.over_middle, alone.over_middle)
        assert (other.largest, other.at) == (alone.largest, alone.at)


def test_a_mistake_in_a_thread_is_not_lost():
    shape = (1, 1400, 896)
    tensor = np.zeros(shape, np.float32)
    real = np.ones((1, 1400), bool)
    begun = threading.Event()

    def add(*arguments):
        if threading.current_thread().name.startswith("compare"):
            begun.set()
            raise IndexError("here")
        assert begun.wait(60)
        return 0.0, (0, 0, 0), 0, (0, 0, 0), 0

    pair = sums.Pair(tensor, tensor, real, None, True)
    with patch.object(sums, "compiled", lambda *dtypes: add), pytest.raises(IndexError, match="here"):
        sums.measure(pair, helpers=1)


LARGE = (1, 16, 151_936)


@pytest.mark.parametrize("how", ["float32", "float16", "bfloat16", "mixed", "turned"])
def test_no_large_tensor_is_copied_as_a_whole(how):
    dtype = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16}.get(how, np.float32)
    tensor = np.ones(LARGE, dtype)
    other = {
        "mixed": tensor.astype(np.float64),
        "turned": tensor.transpose(0, 2, 1).copy().transpose(0, 2, 1),
    }
    pair = sums.Pair(other.get(how, tensor), tensor, np.ones(LARGE[:2], bool), None, True)
    assert sums.measure(pair).over_middle[1].sum() == tensor.size
    tracemalloc.start()
    sums.measure(pair)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < (2.5 * 151_936 * 16) + 5 * 1024**2 * (1 + (os.cpu_count() or 1))


@pytest.mark.parametrize("few", [0, 100_000])
def test_what_is_too_large_to_be_squared_is_no_less_wrong(few, monkeypatch):
    """float64: the difference of the last ones overflows, too, and is the largest; nothing of it is a warning."""
    monkeypatch.setattr(sums, "FEW", few)
    first = np.array([[[1.0, np.inf, 1e200, 3.0, 1e308]]])
    reference = np.array([[[1.0, 1.0, -1e200, 2.0, -1e308]]])
    pair = sums.Pair(first, reference, np.ones((1, 1), bool), None, True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = sums.measure(pair)
    assert (found.largest, found.at, found.strange, found.lost) == (np.inf, 4, 1, 0)
    assert found.over_inner[0, 0, 0] == np.inf


@pytest.mark.parametrize("few", [0, 100_000])
def test_a_signalling_nan_is_a_nan(few, monkeypatch):
    monkeypatch.setattr(sums, "FEW", few)
    tensor = np.array([[[0x7FA00000, 0x3F800000]]], np.uint32).view(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = sums.measure(sums.Pair(tensor, tensor, np.ones((1, 1), bool), None, True))
    assert (found.largest, found.strange, found.lost) == (0, 0, 1)
    assert found.over_inner[:, 0, 0].tolist() == [0, 1]


def test_tensors_of_a_tiny_model_need_nothing_compiled():
    asked = """
import sys
import numpy as np
from harness.compare.metrics import Places, apart
for shape in ((1, 30, 1000), (0, 30, 1000), (1, 40, 1000)):
    tensor, real = np.ones(shape, np.float32), np.ones(shape[:2], bool)
    print(apart(tensor, tensor, "B T C", Places(real, real)).largest, "numba" in sys.modules)
"""
    told = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True).stdout
    assert told.splitlines() == ["0.0 False", "0.0 False", "0.0 True"]
