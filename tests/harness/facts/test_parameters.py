"""Facts of parameters: what is right passes in whatever guise, and what is wrong is named for what it is."""

from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from harness.facts.family import Context
from harness.facts.fingerprint import fingerprint
from harness.facts.parameters import PARAMETERS
from harness.model import Fact, Verdict
from harness.record.facts.parameters import parameter_facts
from harness.replay.port import NotOffered
from harness.store.layout import numpy_dtype
from harness.weights import Weights

HEAD_DIM = 4
DTYPES = ("float32", "bfloat16", "float16")
LAYER = {
    "self_attn.q_proj.weight": (16, 16),
    "self_attn.q_proj.bias": (16,),
    "self_attn.k_proj.weight": (8, 16),
    "self_attn.k_proj.bias": (8,),
    "self_attn.v_proj.weight": (8, 16),
    "mlp.gate_proj.weight": (24, 16),
    "mlp.up_proj.weight": (24, 16),
    "mlp.down_proj.weight": (16, 24),
    "input_layernorm.weight": (16,),
}
Q, BIAS, UP, NORM = (
    f"model.layers.1.{part}"
    for part in (
        "self_attn.q_proj.weight",
        "self_attn.q_proj.bias",
        "mlp.up_proj.weight",
        "input_layernorm.weight",
    )
)
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


class Port:
    def __init__(self, parameters):
        self.held = parameters

    def trace(self, inputs, names):
        return {}

    def parameters(self):
        return self.held

    def with_parameters(self, overrides):
        return Port({**self.held, **overrides})


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Two layers in float32, an embedding and a head of its own; nothing in it is a number of bfloat16 by chance."""
    draw, folder = np.random.default_rng(3), tmp_path_factory.mktemp("checkpoint")
    shapes = {f"model.layers.{n}.{part}": shape for n in (0, 1) for part, shape in LAYER.items()}
    shapes |= {EMBEDDING: (32, 16), HEAD: (32, 16), "model.norm.weight": (16,)}
    save_file(
        {
            name: (draw.normal(size=shape) * 0.5 + ("norm" in name)).astype(np.float32)
            for name, shape in shapes.items()
        },
        folder / "model.safetensors",
    )
    return folder


@pytest.fixture(scope="module")
def weights(checkpoint):
    return Weights(checkpoint)


@pytest.fixture(scope="module")
def facts(checkpoint, weights):
    return parameter_facts(checkpoint, DTYPES, {name: name for name in weights})


@pytest.fixture
def context(facts, weights):
    head_dim = Fact("config.head_dim", "config", "checkpoint", {}, HEAD_DIM)
    session = SimpleNamespace(file=SimpleNamespace(contents=SimpleNamespace(facts=[*facts, head_dim])))
    return lambda dtype="float32", weights=weights: Context(dtype, weights, session)


def held(weights, dtype="float32"):
    return {name: np.asarray(value).astype(numpy_dtype(dtype)) for name, value in weights.items()}


def failures(facts, port, context):
    """Component -> what was found, of all that do not pass; what is not offered is left out."""
    found = {}
    for fact in facts:
        try:
            found[fact.component] = PARAMETERS.judge(fact, PARAMETERS.ask(port, fact), context)
        except NotOffered:
            continue
    return {name: result for name, result in found.items() if result.verdict is not Verdict.PASS}


def found_in(name, changed, facts, weights, context, dtype="float32"):
    """What is said of a port in which one parameter is `changed`, and that nothing is said of the others."""
    port = Port({**held(weights, dtype), name: changed})
    (component, found), *others = failures(facts, port, context(dtype)).items()
    assert component == f"parameters.{name}"
    assert not others
    assert found.verdict is Verdict.FAIL
    assert found.reason
    return found


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kept", ["as the port runs", "float32"])
def test_right_parameters_pass(dtype, kept, facts, weights, context):
    stored = held(weights, "float32" if kept == "float32" else dtype)
    assert failures(facts, Port(stored), context(dtype)) == {}


def test_layout_in_memory_is_nobodys_business(facts, weights, context):
    assert failures(facts, Port({n: np.asfortranarray(x) for n, x in held(weights).items()}), context()) == {}


def test_a_fingerprint_is_that_of_the_bytes_rounded_to_nearest():
    x = np.array([[1 + 2**-9, 1 + 3 * 2**-9]], np.float32)
    half = np.array([[1.0, 1 + 2**-7]], ml_dtypes.bfloat16)
    assert (
        fingerprint(x, "bfloat16")
        == fingerprint(half, "bfloat16")
        == fingerprint(half.T.copy().T, "bfloat16")
    )
    assert fingerprint(x, "bfloat16") != fingerprint(half, "float32")


def cut_to_bfloat16(x):
    return (x.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def by_head(x, axes):
    """Rows as (heads, 2, half a head), put in another order of these axes."""
    rows = np.arange(len(x)).reshape(-1, 2, HEAD_DIM // 2).transpose(axes).reshape(-1)
    return x[rows]


def with_part(x, rows, value):
    changed = x.copy()
    changed[rows] = value
    return changed


MISTAKES = {
    "transposed": (Q, lambda x, w: x.T, "weight_not_transposed"),
    "put into shape without transposing": (UP, lambda x, w: x.T.reshape(x.shape), "reshaped_not_transposed"),
    "rows of heads interleaved": (Q, lambda x, w: by_head(x, (0, 2, 1)), "rows_interleaved"),
    "bias interleaved": (BIAS, lambda x, w: by_head(x, (0, 2, 1)), "rows_interleaved"),
    "heads by size first": (
        Q,
        lambda x, w: x.reshape(-1, HEAD_DIM, 16).swapaxes(0, 1).reshape(x.shape),
        "heads_dim_major",
    ),
    "heads from last to first": (
        Q,
        lambda x, w: x.reshape(-1, HEAD_DIM, 16)[::-1].reshape(x.shape),
        "heads_reversed",
    ),
    "heads in another order": (
        Q,
        lambda x, w: x.reshape(-1, HEAD_DIM, 16)[[0, 2, 1, 3]].reshape(x.shape),
        "heads_permuted",
    ),
    "rows reversed": (UP, lambda x, w: x[::-1], "rows_reversed"),
    "columns reversed": (UP, lambda x, w: x[:, ::-1], "columns_reversed"),
    "split one row late": (UP, lambda x, w: np.roll(x, 1, axis=0), "rows_shifted"),
    "ids one row late": (EMBEDDING, lambda x, w: np.roll(x, 1, axis=0), "ids_shifted_down"),
    "ids one row early, and a row of zeros": (
        EMBEDDING,
        lambda x, w: np.concatenate([x[1:], 0 * x[:1]]),
        "ids_shifted_up",
    ),
    "bias sorted": (BIAS, lambda x, w: np.sort(x), "values_sorted"),
    "weight sorted": (UP, lambda x, w: np.sort(x.reshape(-1)).reshape(x.shape), "values_sorted"),
    "of another layer": (UP, lambda x, w: w[UP.replace("1", "0")], "parameters_of_another_layer"),
    "gate for up": (UP, lambda x, w: w[UP.replace("up", "gate")], "parameters_of_another_component"),
    "tied": (HEAD, lambda x, w: w[EMBEDDING], "parameters_of_another_component"),
    "zero": (UP, lambda x, w: 0 * x, "weight_zero"),
    "norm at one": (NORM, lambda x, w: np.ones_like(x), "weight_missing"),
    "norm at zero": (NORM, lambda x, w: 0 * x, "parameters_zero"),
    "bias at zero": (BIAS, lambda x, w: 0 * x, "bias_missing"),
    "bias twice": (BIAS, lambda x, w: 2 * x, "bias_twice"),
    "bias negated": (BIAS, lambda x, w: -x, "bias_negated"),
    "norm plus one": (NORM, lambda x, w: 1 + x, "weight_plus_one"),
    "norm less one": (NORM, lambda x, w: x - 1, "weight_minus_one"),
    "norm folded in": (UP, lambda x, w: x * w[NORM], "norm_folded"),
    "scale folded in": (Q, lambda x, w: x * np.float32(HEAD_DIM**-0.5), "scale_folded"),
    "scaled": (UP, lambda x, w: x * np.float32(0.99), "scaled"),
    "embedding times root of hidden size": (EMBEDDING, lambda x, w: x * 4, "scaled_root_hidden"),
    "rounded to bfloat16": (UP, lambda x, w: x.astype(ml_dtypes.bfloat16), "weight_rounded_bfloat16"),
    "rounded to float16": (UP, lambda x, w: x.astype(np.float16), "weight_rounded_float16"),
    "cut to bfloat16": (UP, lambda x, w: cut_to_bfloat16(x), "weight_truncated_bfloat16"),
    "float8": (UP, lambda x, w: x.astype(ml_dtypes.float8_e4m3fn), "quantised_fp8"),
    "int8": (
        UP,
        lambda x, w: np.rint(x / (s := np.abs(x).max(1, keepdims=True) / 127)) * s,
        "quantised_int8",
    ),
    "half of it zero": (UP, lambda x, w: with_part(x, slice(12, None), 0), "partly_loaded"),
    "half of it of another layer": (
        UP,
        lambda x, w: with_part(x, slice(12, None), w[UP.replace("1", "0")][12:]),
        "stale_shard",
    ),
    "one number": (UP, lambda x, w: with_part(x, (3, 5), 9.0), "one_element"),
    "NaN": (UP, lambda x, w: with_part(x, (3, 5), np.nan), "one_element"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_named(mistake, facts, weights, context):
    name, change, hypothesis = MISTAKES[mistake]
    right = held(weights)
    changed = np.asarray(change(right[name].copy(), right)).astype(np.float32)
    found = found_in(name, changed, facts, weights, context)
    assert found.hypotheses == (hypothesis,)
    assert found.text


def test_cutting_where_rounding_was_due_is_named_in_the_lower_precision(facts, weights, context):
    cut = cut_to_bfloat16(held(weights)[UP]).astype(ml_dtypes.bfloat16)
    found = found_in(UP, cut, facts, weights, context, "bfloat16")
    assert found.hypotheses == ("weight_truncated_bfloat16",)


def test_wrong_rows_are_told_by_number(facts, weights, context):
    right = held(weights)[UP]
    found = found_in(UP, with_part(right, [3, 4, 9], -right[[9, 3, 4]]), facts, weights, context)
    assert not found.hypotheses
    assert found.text == "only rows 3-4, 9 of 24 are wrong"
    assert found.reason.startswith("48 of 384 numbers differ, most at [")


def test_what_is_no_known_mistake_is_not_named(facts, weights, context):
    noise = np.random.default_rng(0).normal(size=(24, 16)).astype(np.float32)
    found = found_in(UP, noise, facts, weights, context)
    assert found.hypotheses == ()
    assert found.text == ""


@settings(max_examples=40)
@given(order=st.permutations(range(24)), axis=st.sampled_from(["row", "column"]))
def test_any_order_is_found(order, axis, weights, facts):
    """Of rows or columns, whatever it is, and as nothing else."""
    from harness.facts.compared import Compared
    from harness.facts.likeness import compare

    name = UP if axis == "row" else UP.replace("up", "down")
    right = np.asarray(weights[name])
    changed = np.take(right, order, axis=0 if axis == "row" else 1)
    found = compare(Compared.of(name, changed, weights, "float32", {}, None))
    if list(order) == list(range(24)):
        assert found.verdict is Verdict.PASS
    else:
        (hypothesis,) = found.hypotheses
        assert hypothesis.startswith((f"{axis}s_", "heads_", "rows_"))
        assert (
            "order" in found.text
            or "permuted" in found.text
            or "shifted" in found.text
            or "head" in found.text
        )


def test_a_checkpoint_of_a_lower_precision_does_not_hide_that_one_number_is_wrong():
    """Rounded to bfloat16 it is the same, all but one of a thousand numbers."""
    from harness.facts.compared import Compared
    from harness.facts.likeness import compare

    stored = np.random.default_rng(0).normal(size=(64, 32)).astype(ml_dtypes.bfloat16)
    changed = with_part(stored.astype(np.float32), (3, 5), 9.0)
    found = compare(Compared.of("w", changed, {"w": stored}, "float32", {}, None))
    assert found.hypotheses == ("one_element",)


def test_numbers_that_are_too_small_to_be_normal_may_be_zero(weights):
    from harness.facts.compared import Compared
    from harness.facts.likeness import compare

    stored = np.array([[1.0, 1e-40], [2e-39, 3.0]], np.float32)
    flushed = np.where(np.abs(stored) < 1e-38, 0, stored)
    found = compare(Compared.of("w", flushed, {"w": stored}, "float32", {}, None))
    assert found.verdict is Verdict.PASS
    assert found.reason == "2 numbers below the smallest normal number of float32 are zero"
    lost = np.where(stored == 3, 0, stored)
    assert compare(Compared.of("w", lost, {"w": stored}, "float32", {}, None)).verdict is Verdict.FAIL


def test_without_the_checkpoint_another_parameter_is_still_known(facts, weights, context):
    right = held(weights)
    swapped = Port({**right, UP: right[UP.replace("1", "0")], Q: -right[Q]})
    found = failures(facts, swapped, context(weights=None))
    assert found[f"parameters.{UP}"].hypotheses == ("parameters_of_another_layer",)
    assert found[f"parameters.{Q}"].hypotheses == ()
    assert "the checkpoint is not here" in found[f"parameters.{Q}"].reason


def test_names_are_compared(facts, weights, context):
    right = held(weights)
    without = {name: x for name, x in right.items() if not name.endswith(".bias")}
    found = failures(facts, Port({**without, "model.extra": right[Q]}), context())
    assert list(found) == ["parameters"]
    assert "lacks 4 of the reference's 21: " in found["parameters"].reason
    assert "has 1 that the reference has not: model.extra" in found["parameters"].reason
    assert found["parameters"].hypotheses == ("bias_missing",)
    tied = Port({name: x for name, x in right.items() if name != HEAD})
    assert failures(facts, tied, context())["parameters"].hypotheses == ("parameters_of_another_component",)


def test_a_tied_head_may_be_handed_out_or_not(checkpoint, weights, context):
    names = {name: EMBEDDING if name == HEAD else name for name in weights}
    facts, right = parameter_facts(checkpoint, DTYPES, names), held(weights)
    assert f"parameters.{HEAD}" not in [fact.component for fact in facts]
    without = {name: x for name, x in right.items() if name != HEAD}
    assert failures(facts, Port(without), context()) == {}
    assert failures(facts, Port({**without, HEAD: right[EMBEDDING].copy()}), context()) == {}
    other = failures(facts, Port(right), context())
    assert other["parameters"].hypotheses == ("tie_ignored",)
    empty = failures(facts, Port({**without, HEAD: 0 * right[HEAD]}), context())
    assert empty["parameters"].hypotheses == ("weight_zero",)


class Raising:
    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("out of memory")


STRANGE = {
    "None": (None, "no array of numbers"),
    "text": ("weights", "array of str"),
    "another shape": (np.zeros((24, 17), np.float32), "has shape [24, 17], where the reference has [24, 16]"),
    "one number": (np.float32(1), "has shape []"),
    "whole numbers": (np.zeros((24, 16), np.int8), "is an array of int8, where the port was made in float32"),
    "a lower precision": (np.zeros((24, 16), np.float16), "is an array of float16"),
    "an array that cannot be read": (Raising(), "RuntimeError: out of memory"),
}


@pytest.mark.parametrize("answer", STRANGE)
def test_what_is_no_parameter_fails_clearly(answer, facts, weights, context):
    value, reason = STRANGE[answer]
    assert reason in found_in(UP, value, facts, weights, context).reason


def test_shapes_tell_mistakes_too(facts, weights, context):
    right = held(weights)[UP]
    for changed, name in (
        (right.T, "weight_not_transposed"),
        (right.reshape(6, 4, 16), "reshaped"),
        (right[:20], "rows_missing"),
        (np.concatenate([right, right[:8]]), "rows_added"),
    ):
        assert found_in(UP, changed, facts, weights, context).hypotheses == (name,)


@pytest.mark.parametrize("answer", [None, [1, 2], 3])
def test_what_is_no_mapping_fails_clearly(answer, facts, context):
    found = failures(facts, Port(answer), context())
    assert len(found) == len(facts)
    assert all("where a mapping of names to arrays was expected" in f.reason for f in found.values())


def test_a_port_without_parameters_is_not_asked(facts):
    with pytest.raises(NotOffered, match="does not offer `parameters`"):
        PARAMETERS.ask(SimpleNamespace(trace=None), facts[1])
    with pytest.raises(NotOffered, match=r"does not give lm_head\.weight"):
        PARAMETERS.ask(Port({}), facts[1])
