"""A first look is stricter than the rule, never more lenient: what it passes need not be looked at again."""

from pathlib import Path

import pytest

pytest.importorskip("torch")

from harness.checkpoints import read_config
from harness.fuzz.drawn import Drawn
from harness.fuzz.reference import Reference
from harness.record.floors import Depth

CHECKPOINT = Path(__file__).parents[3] / "goldens" / "checkpoints" / "qwen2-tiny"


def test_floors_of_a_first_look_are_never_larger():
    reference = Reference("tiny", CHECKPOINT, read_config(CHECKPOINT), "float32")
    inputs = {"it": Drawn(((1, 2, 3, 400), (4,)), "left", 7)}
    first, whole = reference.recorded(inputs, Depth(isolated=False, draws=0)), reference.recorded(inputs)
    pairs = list(zip(first.contents.goldens, whole.contents.goldens, strict=True))
    assert len(pairs) == 74
    for a, b in pairs:
        assert a.component == b.component
        assert (first.output(a) == whole.output(b)).all()
        for view in ("whole", "row", "channel"):
            measured = getattr(b.end_to_end.measured, view)
            assert getattr(a.end_to_end.measured, view) == pytest.approx(measured, rel=1e-6)
            assert getattr(a.end_to_end.modelled, view) == 0
        assert a.isolated is None
