"""Pictures of errors: what is drawn where, and how many are kept."""

import numpy as np
import pytest

from harness.compare.metrics import Places
from harness.compare.pictures import FAILURES, NEAREST, PIXELS, Pictures, picture
from harness.model import Component, Mode, Verdict, Views
from harness.report.result import Result, Run

SKIPPED, EQUAL, MOST, STRANGE = 0, 1, 254, 255


def places(batch: int = 1, tokens: int = 5, padded: int = 0) -> Places:
    real = np.ones((batch, tokens), bool)
    real[0, :padded] = False
    return Places(real, real)


def component(name: str = "x", axes: str = "B T C") -> Component:
    return Component(name, "kind", axes)


def result(name: str = "x", over: float = 10.0, case: str = "hello") -> Result:
    verdict = Verdict.FAIL if over > 1 else Verdict.PASS
    error, limit = Views(over, over, over), Views(1, 1, 1)
    return Result(name, "kind", case, "float32", Mode.ISOLATED, verdict, error, Views(0.5, 0.5, 0.5), limit)


def drawn(port, golden, axes="B T C", where=None):
    where = where or places(golden.shape[0], 5)
    return picture(component(axes=axes), result(), port.astype(np.float32), golden.astype(np.float32), where)


def pixels(map_) -> np.ndarray:
    return np.frombuffer(map_.pixels, np.uint8).reshape(map_.size)


def test_the_one_wrong_element_is_the_one_bright_pixel() -> None:
    golden = np.ones((1, 5, 8))
    port = golden.copy()
    port[0, 3, 2] += 1
    shown = drawn(port, golden)
    (only,) = shown.maps
    assert (only.rows, only.columns, only.shape) == ("T tokens", "C channels", (5, 8))
    assert np.argwhere(pixels(only) == MOST).tolist() == [[3, 2]]
    assert np.count_nonzero(pixels(only) == EQUAL) == 39
    assert [(w.index, w.port, w.golden) for w in shown.worst] == [([0, 3, 2], 2.0, 1.0)]
    assert shown.same == 39


@pytest.mark.parametrize(
    ("axes", "shape", "named"),
    [
        ("B T C", (2, 5, 4), [("B x T tokens", "C channels", (10, 4))]),
        (
            "B H T D",
            (1, 3, 5, 4),
            [("H heads", "T tokens", (3, 5)), ("T tokens", "D channels of a head", (5, 4))],
        ),
        (
            "B H T S",
            (2, 3, 5, 5),
            [("H heads", "B x T tokens", (3, 10)), ("B x T tokens", "S keys", (10, 5))],
        ),
    ],
)
def test_tokens_are_drawn_against_every_other_axis(axes, shape, named) -> None:
    golden = np.random.default_rng(0).normal(size=shape)
    port = golden.copy()
    at = (shape[0] - 1, *(1 for _ in shape[1:]))
    port[at] += 5
    shown = drawn(port, golden, axes, places(shape[0]))
    assert [(m.rows, m.columns, m.shape) for m in shown.maps] == named
    for map_ in shown.maps:
        assert np.count_nonzero(pixels(map_) == MOST) == 1
    row, column = np.argwhere(pixels(shown.maps[0]) == MOST)[0]
    token = (shape[0] - 1) * 5 + 1
    assert (row, column) == ((token, 1) if axes == "B T C" else (1, token))


def test_what_many_share_a_pixel_the_largest_is_seen() -> None:
    golden = np.zeros((1, 5, 1000))
    port = golden.copy()
    port[0, 2, 777] = 1.0
    (only,) = drawn(port, golden).maps
    assert only.size == (5, PIXELS)
    assert np.argwhere(pixels(only) == MOST).tolist() == [[2, 777 * PIXELS // 1000]]


def test_padding_and_numbers_that_are_none_have_bytes_of_their_own() -> None:
    golden = np.ones((1, 5, 3))
    port = golden + 0.5
    port[0, 4, 1] = np.nan
    shown = drawn(port, golden, where=places(padded=2))
    table = pixels(shown.maps[0])
    assert (table[:2] == SKIPPED).all()
    assert np.argwhere(table == STRANGE).tolist() == [[4, 1]]
    assert shown.worst[0].index == [0, 4, 1]
    assert sum(shown.histogram) + shown.same == 9


def test_the_histogram_counts_in_noise_floors() -> None:
    golden = np.full((1, 5, 4), 2.0)
    port = golden.copy()
    port[0, 0] += 10 * 0.5 * 2.0 * 1.05  # ten times the floor of 0.5 on a golden of size 2, and a little
    shown = drawn(port, golden)
    assert shown.unit == pytest.approx(1.0)
    place = int(np.floor((np.log10(10.5) - shown.first) / shown.step))
    assert shown.histogram[place] == sum(shown.histogram) == 4
    assert shown.same == 16


def test_few_are_kept_the_first_failures_and_the_nearest_passes() -> None:
    order = [f"layers.{i}" for i in range(100)]
    kept = Pictures(order)
    golden = np.ones((1, 5, 2), np.float32)
    for case, factor in (("mild", 1), ("hard", 2), ("easy", 0.1)):
        for place, name in enumerate(reversed(order)):
            kept.offer(component(name), result(name, 10 * factor, case), golden + 1, golden, places())
            passing = f"pass.{place}"
            kept._position[passing] = 100 + place
            kept.offer(component(passing), result(passing, place / 200, case), golden + 1, golden, places())
    pictures = kept.all()
    assert [p.place.component for p in pictures[:FAILURES]] == order[:FAILURES]
    assert {p.place.case for p in pictures[:FAILURES]} == {"hard"}
    assert [p.place.component for p in pictures[FAILURES:]] == [
        f"pass.{100 - i}" for i in range(NEAREST, 0, -1)
    ]


def test_a_component_that_fails_has_no_picture_of_its_passing() -> None:
    kept = Pictures(["x"])
    golden = np.ones((1, 5, 2), np.float32)
    for case, over in (("good", 0.5), ("bad", 3.0)):
        kept.offer(component(), result(over=over, case=case), golden + 1, golden, places())
    assert [p.place.case for p in kept.all()] == ["bad"]


def test_pictures_survive_json() -> None:
    shown = drawn(np.full((1, 5, 3), np.inf), np.ones((1, 5, 3)))
    run = Run.from_results("g.h5", "p:make", [result()], ["x"])
    run = Run(**{name: getattr(run, name) for name in run.__struct_fields__} | {"pictures": [shown]})
    assert Run.from_json(run.to_json()) == run
