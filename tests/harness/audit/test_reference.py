"""The reference in float64 is what was recorded, but for the recording's rounding."""

from pathlib import Path

import numpy as np
import pytest

from harness.audit.reference import Reference
from harness.model import BY_DEFAULT, Verdict
from harness.replay.port import Isolated, NotOffered, Port, Weighted
from harness.replay.session import Session
from harness.store.layout import numpy_dtype
from harness.store.reader import GoldenFile
from harness.weights import Weights

GOLDENS = Path(__file__).parents[3] / "goldens"


def opened(name):
    file = GoldenFile.open(GOLDENS / f"{name}.h5")
    return file, Reference(file.contents.components, Weights(GOLDENS / "checkpoints" / name))


class Rounded:
    """The reference as a port of another dtype."""

    def __init__(self, reference, dtype):
        self._reference, self._dtype = reference, numpy_dtype(dtype)

    def trace(self, inputs, names):
        return self._rounded(self._reference.trace(inputs, names))

    def apply(self, name, inputs):
        return self._rounded(self._reference.apply(name, inputs))

    def _rounded(self, answers):
        return {name: value.astype(self._dtype) for name, value in answers.items()}


@pytest.mark.parametrize(
    ("name", "case", "dtype"),
    [
        ("qwen2-tiny", "random-1", "float32"),
        ("qwen2-tiny", "far", "bfloat16"),
        ("qwen3-tiny", "random-1", "float32"),
        ("qwen2-deep", "right-padded", "float32"),
    ],
)
def test_every_component_passes_by_itself_and_end_to_end(name, case, dtype):
    file, reference = opened(name)
    goldens = file.select(cases=[case], dtypes=[dtype])
    session = Session(file, lambda dtype: Rounded(reference, dtype))
    results = list(session.replay(goldens, BY_DEFAULT))
    assert len(results) == len(goldens) + sum(golden.isolated is not None for golden in goldens)
    assert [result for result in results if result.verdict is not Verdict.PASS] == []


def test_it_answers_in_float64_and_no_narrower_number_is_between():
    file, reference = opened("qwen2-tiny")
    given = file.case_inputs("far")
    names = [component.name for component in file.contents.components]
    traced = reference.trace({name: given[name] for name in given if name != "kept"}, names)
    assert traced.keys() == set(names)
    assert {value.dtype for value in traced.values()} == {np.dtype(np.float64)}
    logits = traced["lm_head"]
    assert not np.array_equal(logits, logits.astype(np.float32))


def test_it_is_a_port_whose_parameters_can_be_replaced():
    file, reference = opened("qwen3-tiny")
    assert isinstance(reference, Port)
    assert isinstance(reference, Isolated)
    assert isinstance(reference, Weighted)
    [golden] = file.select(include=["norm"], cases=["far"], dtypes=["float32"])
    weight = reference.parameters()["model.norm.weight"]
    doubled = reference.with_parameters({"model.norm.weight": 2 * weight})
    inputs = file.inputs(golden)
    right = reference.apply("norm", inputs)["norm"]
    np.testing.assert_array_equal(doubled.apply("norm", inputs)["norm"], 2 * right)
    np.testing.assert_array_equal(reference.apply("norm", inputs)["norm"], right)


def test_a_composite_is_not_run_by_itself():
    _, reference = opened("qwen2-tiny")
    with pytest.raises(NotOffered):
        reference.apply("layers.0.mlp", {})


def test_it_cannot_be_traced_without_what_a_component_takes_in():
    file, reference = opened("qwen2-tiny")
    assert reference.whole
    for lacking in ("layers.1.self_attn.o_proj", "layers.2.mlp_residual"):
        rest = [component for component in file.contents.components if component.name != lacking]
        assert not Reference(rest, {}).whole
    last = [component for component in file.contents.components if component.name != "lm_head"]
    assert Reference(last, {}).whole
    composite = [component for component in file.contents.components if component.name == "layers.2"]
    assert not Reference(composite, {}).whole
