"""Frequencies are the reference's for any configuration, bit by bit, and their rounding model holds."""

import math

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.compare.metrics import Places, views
from harness.errors import GoldensError
from harness.kinds import frequencies
from harness.kinds.numpy_arrays import NumpyArrays
from harness.kinds.rotary import COS, SIN
from harness.kinds.step import Evaluation
from harness.model import UNIT_ROUNDOFF
from qwen_flax.config import parse
from qwen_flax.rope import RotaryEmbedding
from tests.qwen_flax.tiny import QWEN2

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding  # noqa: E402

from harness.record.torch_arrays import TorchArrays  # noqa: E402

FLOAT64 = NumpyArrays(np.float64)
PLACES = Places(queries=np.ones((2, 9), bool), keys=np.ones((2, 9), bool))
READ = ("max_position_embeddings", "rope_parameters")
factors = st.one_of(st.integers(1, 64), st.floats(1.0, 64.0))
lengths = st.integers(8, 40_000)


@st.composite
def parameters(draw, rope_type):
    """rope_parameters of a type, as a config.json may have them."""
    given = {"rope_type": rope_type, "rope_theta": draw(st.sampled_from([1e4, 5e5, 1e6, 5e6]))}
    if rope_type == "default":
        return given
    given["factor"] = draw(factors)
    if rope_type in ("yarn", "llama3"):
        given["original_max_position_embeddings"] = draw(lengths)
    if rope_type == "llama3":
        given["low_freq_factor"] = draw(st.sampled_from([1, 1.0, 2.5]))
        given["high_freq_factor"] = given["low_freq_factor"] + draw(st.sampled_from([1, 3.0, 7.5]))
    if rope_type == "yarn":
        optional = {
            "attention_factor": st.floats(0.5, 2.0),
            "beta_fast": st.sampled_from([16, 32, 40.5, None]),
            "beta_slow": st.sampled_from([1, 2, 4.5, None]),
            "mscale": st.sampled_from([0.707, 1.0, None]),
            "mscale_all_dim": st.sampled_from([0.5, 1.0, None]),
            "truncate": st.booleans(),
        }
        for name, values in optional.items():
            if draw(st.booleans()):
                given[name] = draw(values)
    return given


@st.composite
def cases(draw, rope_type):
    """(the reference's rotary embedding, positions (B T) as it is given them)."""
    config = transformers.Qwen2Config(
        hidden_size=2 * (size := draw(st.sampled_from([8, 16, 64, 128]))),
        num_attention_heads=2,
        max_position_embeddings=draw(lengths),
        rope_parameters=draw(parameters(rope_type)),
    )
    assert config.hidden_size // config.num_attention_heads == size
    start = draw(st.integers(0, 50_000))
    positions = torch.arange(start, start + 9)[None].repeat(2, 1)
    positions[0, :4] = 0
    return Qwen2RotaryEmbedding(config), positions


def settings_of(rotary):
    from harness.record.parts import rotary_settings

    return rotary_settings(rotary)


def evaluated(step, rotary, positions, dtype):
    e = Evaluation(TorchArrays(dtype), {"positions": positions}, {}, settings_of(rotary))
    return step.evaluate(e)


def over_model(step, rotary, positions, output, dtype):
    """The error of an output over what the rounding model says of it, of the whole or the worst token."""
    e = Evaluation(FLOAT64, {"positions": positions.numpy()}, {}, settings_of(rotary))
    exact = step.evaluate(e)
    sigma = np.sqrt(step.variance(e, exact, UNIT_ROUNDOFF[dtype]))
    error, modelled = (views(x, exact, "B T D", PLACES) for x in (output - exact, sigma))
    least = UNIT_ROUNDOFF[dtype] / 4
    return max(error.whole / max(modelled.whole, least), error.row / max(modelled.row, least))


TYPES = ["default", *frequencies.TYPES]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rope_type", TYPES)
@settings(max_examples=40)
@given(data=st.data())
def test_cos_and_sin_are_bit_by_bit_the_reference_s(rope_type, dtype, data):
    rotary, positions = data.draw(cases(rope_type))
    for step, expected in zip((COS, SIN), rotary(torch.zeros(1, dtype=dtype), positions), strict=True):
        assert torch.equal(evaluated(step, rotary, positions, dtype), expected)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("rope_type", TYPES)
@settings(max_examples=40)
@given(data=st.data())
def test_the_reference_passes_the_rounding_model(rope_type, dtype, data):
    """And numpy in float64 is what it rounds."""
    rotary, positions = data.draw(cases(rope_type))
    for step in (COS, SIN):
        rounded = evaluated(step, rotary, positions, getattr(torch, dtype)).double().numpy()
        assert over_model(step, rotary, positions, rounded, dtype) <= 4


@pytest.mark.parametrize("rope_type", TYPES)
@settings(max_examples=20)
@given(data=st.data())
def test_the_port_is_the_reference_but_for_rounding(rope_type, data):
    """Compiled, as it is in a pass; it shares no code with the step."""
    rotary, positions = data.draw(cases(rope_type))
    given = rotary.config
    config = parse(
        {
            **QWEN2,
            **{name: getattr(given, name) for name in READ},
            "rope_theta": given.rope_parameters["rope_theta"],
        }
    )
    port = RotaryEmbedding(config.rope_theta, 2 * rotary.inv_freq.numel(), "float32", config.rope_scaling)
    assert port.attention_factor == rotary.attention_scaling
    for step, own in ((COS, port.cos), (SIN, port.sin)):
        assert over_model(step, rotary, positions, jax.jit(own)(positions.numpy()), "float32") <= 4


@pytest.mark.parametrize("rope_type", TYPES)
@settings(max_examples=20)
@given(data=st.data())
def test_torch_evaluates_in_float64_as_numpy_does(rope_type, data):
    rotary, positions = data.draw(cases(rope_type))
    theirs = Evaluation(TorchArrays(torch.float64), {"positions": positions}, {}, settings_of(rotary))
    ours = Evaluation(FLOAT64, {"positions": positions.numpy()}, {}, settings_of(rotary))
    output = COS.evaluate(ours)
    np.testing.assert_allclose(output, COS.evaluate(theirs).numpy(), rtol=0, atol=1e-9)
    variances = [COS.variance(ours, output, 2.0**-8)]
    variances.append(COS.variance(theirs, torch.from_numpy(output), 2.0**-8).numpy())
    np.testing.assert_allclose(*variances, rtol=1e-6)


def by_logarithm(settings, length):
    """Frequencies (D/2) as an honest port may have them: exponentials of logarithms, all of it in float32."""
    single, size, scaling = np.float32, settings["head_dim"], settings.get("scaling") or {}
    kind, factor = scaling.get("rope_type"), np.float32(scaling.get("factor", 1))
    logarithm = np.log(single(settings["theta"]))
    if kind == "dynamic":
        longest = single(scaling["max_position_embeddings"])
        grown = factor * np.maximum(single(length), longest) / longest - (factor - single(1))
        logarithm += single(size / (size - 2)) * np.log(grown)
    own = np.exp(-np.arange(0, size, 2, dtype=single) / single(size) * logarithm)
    if kind == "linear":
        return own * (single(1) / factor)
    if kind == "yarn":
        low, high = map(single, frequencies._ends_of_ramp(settings))
        kept = np.clip((high - np.arange(size // 2, dtype=single)) / (high - low), 0, 1)
        return own * (kept + (single(1) - kept) / factor)
    if kind == "llama3":
        low, high = single(scaling["low_freq_factor"]), single(scaling["high_freq_factor"])
        turns = own * single(scaling["original_max_position_embeddings"] / (2 * math.pi))
        kept = np.clip((turns - low) / (high - low), 0, 1)
        return own * (kept + (single(1) - kept) / factor)
    return own


@pytest.mark.parametrize("rope_type", TYPES)
@settings(max_examples=60)
@given(data=st.data())
def test_another_order_of_evaluation_stays_within_four_sigma(rope_type, data):
    rotary, positions = data.draw(cases(rope_type))
    own = by_logarithm(settings_of(rotary), int(positions.max()) + 1)
    angles = np.tile(positions.numpy().astype(np.float32)[..., None] * own, 2)
    for step, wave in ((COS, np.cos), (SIN, np.sin)):
        output = wave(angles) * np.float32(rotary.attention_scaling)
        assert over_model(step, rotary, positions, output, "float32") <= 4


def test_a_reference_that_has_read_a_long_text_is_reset():
    from types import SimpleNamespace

    from harness.record.decoder import reset_frequencies

    config = transformers.Qwen2Config(
        hidden_size=32,
        num_attention_heads=2,
        max_position_embeddings=16,
        rope_parameters={"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4},
    )
    rotary, x = Qwen2RotaryEmbedding(config), torch.zeros(1)
    short, long = torch.arange(20)[None], torch.arange(90)[None]
    before = rotary(x, short)[0]
    rotary(x, long)
    assert not torch.equal(rotary(x, short)[0], before), "it keeps what it has grown to"
    reset_frequencies(SimpleNamespace(base=SimpleNamespace(rotary_emb=rotary)))
    assert torch.equal(rotary(x, short)[0], before)


def test_only_dynamic_frequencies_depend_on_how_much_is_read_at_once():
    scaling = {"rope_type": "dynamic", "factor": 4.0, "max_position_embeddings": 16}
    assert frequencies.depend_on_length({"scaling": scaling}, 17)
    assert not frequencies.depend_on_length({"scaling": scaling}, 16)
    assert not frequencies.depend_on_length({"scaling": {**scaling, "rope_type": "linear"}}, 17)
    assert not frequencies.depend_on_length({}, 17)
    assert not frequencies.depend_on_length({"scaling": 0.25}, 17), "that of scores"


def test_what_is_left_out_has_the_reference_s_value():
    found = frequencies.scaling_of(
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}, longest=64
    )
    assert found == {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 32,
        "max_position_embeddings": 64,
        "attention_factor": 0.1 * math.log(4) + 1,
        "beta_fast": 32,
        "beta_slow": 1,
        "mscale": None,
        "mscale_all_dim": None,
        "truncate": True,
    }
    without = {"rope_type": "yarn", "factor": None, "original_max_position_embeddings": 32}
    assert frequencies.scaling_of(without, longest=96)["factor"] == 3.0
    of_dynamic = frequencies.scaling_of({"rope_type": "dynamic", "factor": 2.0}, longest=64)
    assert of_dynamic["original_max_position_embeddings"] == of_dynamic["max_position_embeddings"] == 64
    assert frequencies.scaling_of({"rope_type": "default", "rope_theta": 1e4}, longest=64) is None


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"rope_type": "longrope", "factor": 2.0}, "rope_type 'longrope'"),
        ({"rope_type": "proportional"}, "rope_type 'proportional'"),
        ({"rope_type": "linear"}, "without factor"),
        ({"rope_type": "llama3", "factor": 8.0}, "original_max_position_embeddings, low_freq_factor, high"),
    ],
)
def test_what_is_not_known_is_refused_by_name(given, named):
    with pytest.raises(GoldensError, match=named):
        frequencies.scaling_of(given, longest=64)
