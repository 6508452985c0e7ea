import json
import math

import pytest

from qwen_flax import config
from qwen_flax.config import ConfigError, RopeScaling, parse
from tests.qwen_flax.tiny import QWEN2, QWEN3


def without(raw, *keys):
    return {key: value for key, value in raw.items() if key not in keys}


def test_the_format_of_transformers_4_and_of_5_mean_the_same():
    of_4 = {**QWEN2, "torch_dtype": "bfloat16", "rope_scaling": None}
    of_5 = {
        **without(QWEN2, "rope_theta"),
        "dtype": "bfloat16",
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
        "layer_types": ["full_attention", "sliding_attention", "sliding_attention"],
    }
    assert parse(of_4) == parse(of_5)
    assert parse(of_4).rope_theta == 1e6
    assert parse(of_4).dtype == "bfloat16"


def test_the_window_applies_from_max_window_layers_on():
    assert parse(QWEN2).windows == (None, 5, 5)


@pytest.mark.parametrize("window", [5, 4096, None])
def test_no_window_is_used_unless_asked_for(window):
    assert parse({**QWEN2, "use_sliding_window": False, "sliding_window": window}).windows == (None,) * 3
    assert parse(without({**QWEN2, "sliding_window": window}, "use_sliding_window")).windows == (None,) * 3


def test_a_null_window_is_none():
    assert parse({**QWEN2, "sliding_window": None}).windows == (None,) * 3


def test_layer_types_decide_where_they_are_given():
    types = ["sliding_attention", "full_attention", "sliding_attention"]
    assert parse({**QWEN2, "layer_types": types}).windows == (5, None, 5)


def test_biases_and_head_norms_follow_the_model_type():
    two, three = parse(QWEN2), parse(QWEN3)
    assert (two.qkv_bias, two.o_bias, two.qk_norm) == (True, False, False)
    assert (three.qkv_bias, three.o_bias, three.qk_norm) == (True, True, True)
    plain = parse({**QWEN3, "attention_bias": False})
    assert (plain.qkv_bias, plain.o_bias) == (False, False)
    assert parse({**QWEN2, "attention_bias": False}).qkv_bias, "the reference does not look at it in Qwen2"


def test_head_dim_is_what_it_is_in_the_reference():
    assert parse(QWEN2).head_dim == 8
    assert parse(QWEN3).head_dim == 10
    assert parse(without(QWEN3, "head_dim")).head_dim == 128


def test_an_absent_rope_theta_is_the_default_that_the_reference_documents():
    transformers = pytest.importorskip("transformers")
    bare = without(QWEN2, "rope_theta")
    assert parse(bare).rope_theta == 10_000.0
    assert parse({**bare, "rope_parameters": {"rope_type": "default"}}).rope_theta == 10_000.0
    assert transformers.Qwen2Config(**bare).rope_parameters["rope_theta"] == 10_000.0


@pytest.mark.parametrize("raw", [QWEN2, QWEN3])
def test_what_the_reference_saves_of_a_config_is_read(raw, tmp_path):
    transformers = pytest.importorskip("transformers")
    kind = {"qwen2": transformers.Qwen2Config, "qwen3": transformers.Qwen3Config}[raw["model_type"]]
    kind(**raw).save_pretrained(tmp_path)
    assert config.read(tmp_path) == parse(raw)


@pytest.mark.parametrize(("value", "ids"), [(7, (7,)), ([7, 8], (7, 8)), (None, ())])
def test_the_ids_that_end_a_text(value, ids):
    assert parse({**QWEN2, "eos_token_id": value}).eos_token_ids == ids


def test_the_ids_that_end_a_text_come_from_generation_config_where_it_has_any(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(QWEN2))
    assert config.read(tmp_path).eos_token_ids == (7,)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [3, 4]}')
    assert config.read(tmp_path).eos_token_ids == (3, 4)
    (tmp_path / "generation_config.json").write_text('{"top_k": 20}')
    assert config.read(tmp_path).eos_token_ids == (7,)


REFUSED = [
    ("model_type", "llama"),
    ("hidden_act", "gelu"),
    ("use_mrope", True),
    ("partial_rotary_factor", 0.5),
    ("quantization_config", {"quant_method": "awq"}),
    ("is_encoder_decoder", True),
    ("add_cross_attention", True),
    ("mlp_bias", True),
    ("auto_map", {"AutoModel": "mine.Model"}),
    ("rope_scaling", {"type": "longrope", "factor": 2.0}),
    ("rope_scaling", {"type": "mrope", "mrope_section": [2, 2]}),
    ("rope_scaling", {"rope_type": 4}),
    ("rope_scaling", {"rope_type": "linear", "type": "dynamic", "factor": 2.0}),
    ("rope_scaling", {"type": "linear"}),
    ("rope_scaling", {"type": "linear", "factor": 0}),
    ("rope_scaling", {"type": "linear", "factor": "2"}),
    ("rope_scaling", {"type": "linear", "factor": 2.0, "beta_fast": 32}),
    ("rope_scaling", {"type": "linear", "factor": 2.0, "partial_rotary_factor": 0.5}),
    ("rope_scaling", {"type": "yarn", "factor": 4.0, "finetuned": True}),
    ("rope_scaling", {"factor": 4.0}),
    ("rope_scaling", 2.0),
    ("rope_parameters", {"rope_type": "dynamic"}),
    ("rope_parameters", {"rope_type": "default", "rope_theta": 1e4}),
    ("rope_parameters", {"rope_type": "default", "partial_rotary_factor": 0.25}),
    ("rope_parameters", {"full_attention": {"rope_type": "default"}}),
    ("rope_theta", None),
    ("rope_theta", 0),
    ("rope_theta", "1e6"),
    ("rms_norm_eps", None),
    ("rms_norm_eps", -1e-6),
    ("num_key_value_heads", 4),
    ("num_key_value_heads", 0),
    ("num_hidden_layers", "3"),
    ("hidden_size", 48.0),
    ("vocab_size", True),
    ("head_dim", 7),
    ("tie_word_embeddings", None),
    ("use_sliding_window", 1),
    ("sliding_window", 0),
    ("max_window_layers", None),
    ("layer_types", ["full_attention"]),
    ("layer_types", ["full_attention", "chunked_attention", "full_attention"]),
    ("eos_token_id", "<|im_end|>"),
    ("num_experts", 8),
]


@pytest.mark.parametrize(("key", "value"), REFUSED)
def test_a_setting_that_is_not_implemented_is_refused_by_name(key, value):
    with pytest.raises(ConfigError, match=key) as caught:
        parse({**QWEN2, key: value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "key",
    [
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "rms_norm_eps",
    ],
)
def test_a_size_that_is_missing_is_named(key):
    with pytest.raises(ConfigError, match=key):
        parse(without(QWEN2, key))


def test_sliding_layers_without_a_window_contradict_themselves():
    types = ["full_attention", "sliding_attention", "full_attention"]
    with pytest.raises(ConfigError, match=r"layer_types\[1\].*no window"):
        parse({**QWEN2, "layer_types": types, "use_sliding_window": False})
    with pytest.raises(ConfigError, match="sliding_window"):
        parse(without(QWEN2, "sliding_window"))


@pytest.mark.parametrize("content", [None, "{", "[]", b"\xff"])
def test_a_config_that_cannot_be_read_is_one_sentence(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=r"config\.json"):
        config.read(tmp_path)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match="no checkpoint folder"):
        config.read(tmp_path / "nowhere")


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "original_max_position_embeddings": 32,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
}


def scaled(rope, **more):
    return {**QWEN2, "max_position_embeddings": 64, "rope_scaling": rope, **more}


@pytest.mark.parametrize(
    ("rope", "expected"),
    [
        ({"rope_type": "linear", "factor": 2}, RopeScaling("linear", 2.0, 64)),
        ({"rope_type": "dynamic", "factor": 4.0}, RopeScaling("dynamic", 4.0, 64)),
        (YARN, RopeScaling("yarn", 4.0, 32, attention_factor=0.1 * math.log(4) + 1)),
        (LLAMA3, RopeScaling("llama3", 8.0, 32)),
    ],
    ids=["linear", "dynamic", "yarn", "llama3"],
)
def test_both_formats_tell_how_rope_is_scaled(rope, expected):
    assert parse(scaled(rope)).rope_scaling == expected
    of_4 = {"type" if name == "rope_type" else name: value for name, value in rope.items()}
    assert parse(scaled(of_4)) == parse(scaled(rope))
    assert parse(scaled({**of_4, **rope})) == parse(scaled(rope))
    of_5 = without(scaled(None), "rope_theta", "rope_scaling")
    assert parse({**of_5, "rope_parameters": {**rope, "rope_theta": 1e6}}) == parse(scaled(rope))


def test_without_a_scaling_there_is_none():
    assert parse(QWEN2).rope_scaling is None
    assert parse({**QWEN2, "rope_scaling": {"type": "default"}}).rope_scaling is None
    assert parse({**QWEN2, "rope_scaling": {}}).rope_scaling is None


def test_an_absent_original_length_is_the_longest_position():
    bare = without(YARN, "original_max_position_embeddings")
    assert parse(scaled(bare)).rope_scaling.original_max_position_embeddings == 64
    assert parse(without(scaled(bare), "max_position_embeddings")).rope_scaling == RopeScaling(
        "yarn", 4.0, 32_768, attention_factor=0.1 * math.log(4) + 1
    )
    beside = scaled(bare, original_max_position_embeddings=16)
    assert parse(beside).rope_scaling.original_max_position_embeddings == 16


def test_yarn_as_it_may_be_told():
    told = {**YARN, "attention_factor": 1.25, "beta_fast": 16, "beta_slow": 2, "truncate": False}
    assert parse(scaled(told)).rope_scaling == RopeScaling("yarn", 4.0, 32, 1.25, 16.0, 2.0, False)
    nothing = dict.fromkeys(("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim"))
    assert parse(scaled({**YARN, **nothing})) == parse(scaled(YARN))
    of_two = parse(scaled({**YARN, "mscale": 1.0, "mscale_all_dim": 0.5})).rope_scaling
    assert of_two.attention_factor == (0.1 * math.log(4) + 1) / (0.05 * math.log(4) + 1)
    assert parse(scaled({**YARN, "mscale": 0.5})) == parse(scaled(YARN)), "one of them alone has no effect"
    assert parse(scaled({**YARN, "factor": None})).rope_scaling.factor == 2.0


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        (scaled(without(YARN, "factor")), "factor of rope_parameters or rope_scaling is None"),
        (scaled({**YARN, "beta_fast": -1}), "beta_fast is -1"),
        (scaled({**YARN, "truncate": 1}), "truncate is 1"),
        (scaled(YARN, original_max_position_embeddings=16), "is 16 in one place and 32 in another"),
        (
            scaled({**YARN, "original_max_position_embeddings": None}),
            "original_max_position_embeddings is None",
        ),
        (scaled({**LLAMA3, "high_freq_factor": 1.0}), "high_freq_factor is 1.0, but more than"),
        (scaled(without(LLAMA3, "low_freq_factor")), "low_freq_factor is None"),
        (
            scaled({"type": "dynamic", "factor": 2.0, "original_max_position_embeddings": 32}),
            "'dynamic' scales from max_position_embeddings, 64",
        ),
        (scaled(YARN, rope_parameters={"rope_type": "default"}), "rope_type = 'default' and rope_scaling"),
        (scaled(YARN, rope_parameters={"rope_type": "yarn", "factor": 2.0}), "factor = 2.0 and rope_scaling"),
        (scaled(YARN, max_position_embeddings=None), "max_position_embeddings is None"),
    ],
)
def test_a_scaling_that_contradicts_itself_or_lacks_something_is_refused(raw, named):
    with pytest.raises(ConfigError, match=named) as caught:
        parse(raw)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "rope", [YARN, LLAMA3, {"rope_type": "dynamic", "factor": 2.0}], ids=["yarn", "llama3", "dynamic"]
)
def test_what_the_reference_saves_of_a_scaling_is_read(rope, tmp_path):
    transformers = pytest.importorskip("transformers")
    transformers.Qwen2Config(**scaled(dict(rope))).save_pretrained(tmp_path)
    assert config.read(tmp_path) == parse(scaled(rope))
