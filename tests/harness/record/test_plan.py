"""How large a recording will be is what it is, to the byte; a sample keeps what a mistake could need."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from harness.inputs import CaseInputs  # noqa: E402
from harness.record import reference  # noqa: E402
from harness.record.decoder import find_decoder  # noqa: E402
from harness.record.discover import discover  # noqa: E402
from harness.record.generation import Writing  # noqa: E402
from harness.record.keep import parse  # noqa: E402
from harness.record.plan import Planned  # noqa: E402
from harness.record.sample import covering, sample  # noqa: E402
from harness.store.verify import verify  # noqa: E402
from tests.harness.record.test_recorder import inputs, make_checkpoint, make_golden  # noqa: E402

WIDE = {"hidden_size": 16, "intermediate_size": 48, "head_dim": 8}
"""`mlp` and logits are more than twice as wide as the residual stream."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("wide"), "qwen3", num_hidden_layers=1, **WIDE)


@pytest.fixture(scope="module")
def components(checkpoint):
    model = reference.load(checkpoint, "float32")
    return discover(find_decoder(model)), {n: tuple(p.shape) for n, p in model.named_parameters()}


CASES = (inputs(length=13), inputs("other", batch=1, length=30, pad=0))


def planned(components, keep, dtypes=("float32",), cases=CASES, generations=()):
    found, parameters = components
    once = [component for component in found if generations or not component.cached]
    return Planned(once, keep.chosen(once), parameters, cases, generations, dtypes, keep).plan()


@pytest.mark.parametrize(
    "keep",
    [
        pytest.param([], id="all"),
        pytest.param(["tokens=sample:5"], id="sample"),
        pytest.param(["tokens=2-4,-1", "layers=0", "components=*_proj,lm_head,norm"], id="chosen"),
    ],
)
def test_the_plan_is_what_is_written(checkpoint, components, tmp_path, keep):
    golden = make_golden(checkpoint, tmp_path / "a.h5", CASES, ("float32", "bfloat16"), keep)
    plan = planned(components, parse(keep), ("float32", "bfloat16"))
    assert plan.nbytes == sum(tensor.nbytes for tensor in golden.tensors)
    assert verify(tmp_path / "a.h5") == []


def test_a_text_is_planned_as_long_as_it_may_be(components):
    writing = Writing(inputs(pad=0), 6, (1, -1))
    without, whole = planned(components, parse([])), planned(components, parse([]), generations=[writing])
    logits = 2 * 6 * 64 * 4
    assert whole.nbytes > without.nbytes + logits


def test_a_sample_is_named_and_read_again():
    assert str(parse(["tokens=sample:8,0-3", "layers=0"])) == "layers=0 tokens=sample:8,0-3"
    assert parse(["tokens=sample:8"]) == parse([str(parse(["tokens=sample:8"]))])


def test_wide_components_keep_a_quarter_of_a_sample(checkpoint, components, tmp_path):
    golden = make_golden(checkpoint, tmp_path / "a.h5", CASES, keep=["tokens=sample:8"])
    rows = {(each.component, each.case): each.tokens for each in golden.contents.goldens}
    few = {component for component, _ in rows if rows[component, "other"] == "few"}
    assert few == {
        f"layers.0.mlp{part}" for part in ("", ".gate_proj", ".up_proj", ".act", ".gated", ".down_proj")
    } | {"lm_head"}
    assert len(golden.case_inputs("other")["few"]) == 2
    assert len(golden.case_inputs("other")["kept"]) == 8


def test_keys_that_heads_share_are_stored_once(checkpoint, tmp_path):
    whole = make_golden(checkpoint, tmp_path / "a.h5", CASES)
    part = make_golden(checkpoint, tmp_path / "b.h5", CASES, keep=["tokens=sample:5"])
    for golden in part.contents.goldens:
        if golden.component == "layers.0.self_attn.scores" and golden.case == "mixed":
            row = part.tensors[golden.inputs["k"]]
            assert (row.shape, row.repeats, row.nbytes) == ((2, 4, 13, 8), 2, 2 * 2 * 13 * 8 * 4)
            (other,) = whole.select(include=[golden.component], cases=["mixed"])
            keys = part.inputs(golden)["k"]
            assert np.array_equal(keys, whole.inputs(other)["k"])
            assert not keys.flags.writeable


@st.composite
def cases(draw):
    """A batch of texts, padded on either side or on both."""
    length = draw(st.integers(1, 24))
    ends = st.tuples(st.integers(0, length - 1), st.integers(1, length)).filter(lambda e: e[0] < e[1])
    mask = np.zeros((draw(st.integers(1, 4)), length), np.int32)
    for row in mask:
        start, stop = draw(ends)
        row[start:stop] = 1
    ids = np.arange(mask.size, dtype=np.int32).reshape(mask.shape)[:, ::-1] % draw(st.integers(1, 50))
    return CaseInputs(
        draw(st.sampled_from("abc")), "prompt", "", ids, mask, np.maximum(mask.cumsum(1) - 1, 0)
    )


@settings(max_examples=60)
@given(cases(), st.integers(1, 30))
def test_a_sample_has_every_end_and_is_no_larger_than_it_must_be(case, size):
    chosen, real = sample(case, size), case.attention_mask != 0
    ends = {end for row in real for end in np.flatnonzero(row)[[0, -1]]}
    assert ends <= set(chosen)
    assert chosen == sorted(set(chosen)) == sample(case, size)
    somewhere = int(real.any(axis=0).sum())
    assert len(chosen) >= min(size, somewhere)
    assert len(chosen) <= max(size, len(ends) + 1) or size >= somewhere
    few = covering(case, chosen, -(-size // 4))
    assert set(few) <= set(chosen)
    assert real[:, few].any(axis=1).all()
    assert len(few) <= max(-(-size // 4), len(real))
