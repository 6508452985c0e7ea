"""Processed logits are those of transformers; settings mean what they mean there."""

import json
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from qwen_flax import sampling
from qwen_flax.config import ConfigError
from qwen_flax.sampling import Settings
from tests.qwen_flax import tiny
from tests.versions import of_5_23

V, T = 32, 7
EVERYTHING = {"repetition_penalty": 1.05, "temperature": 0.7, "top_k": 20, "top_p": 0.8, "min_p": 0.05}
U32 = 2.0**-24

SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "repetition_penalty": st.sampled_from([0.5, 1.0, 1.05, 1.3]),
        "temperature": st.sampled_from([0.3, 0.7, 1.0, 1.9]),
        "top_k": st.sampled_from([0, 1, 4, 9, 20, 31, 32, 50]),
        "top_p": st.sampled_from([0.0, 0.3, 0.8, 0.95, 1.0]),
        "min_p": st.sampled_from([0.0, 0.05, 0.4]),
    },
)


@st.composite
def questions(draw):
    """Logits in steps of an eighth, so that many are equal, and tokens that come more than once."""
    steps = draw(st.lists(st.integers(-40, 40), min_size=2 * V, max_size=2 * V))
    ids = draw(st.lists(st.integers(0, V // 3), min_size=2 * T, max_size=2 * T))
    return np.asarray(steps, np.float32).reshape(2, V) / 8, np.asarray(ids, np.int32).reshape(2, T)


def theirs(logits, ids, chosen, mask=None, dtype="float32", do_sample=True):
    """By the processors that transformers makes for these settings, none of its defaults among them."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    config = transformers.GenerationConfig(do_sample=do_sample, **{"top_k": 0, **chosen})
    kwargs = {} if mask is None else {"attention_mask": torch.tensor(mask)}
    processors = small()._get_logits_processor(config, input_ids_seq_length=T, model_kwargs=kwargs)
    scores = torch.tensor(logits).to(getattr(torch, dtype))
    return processors(torch.tensor(ids).long(), scores).numpy()


SMALL = {
    "vocab_size": 8,
    "hidden_size": 4,
    "intermediate_size": 4,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
}


@cache
def small():
    """A model of transformers, which alone makes its processors."""
    transformers = pytest.importorskip("transformers")
    return transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**SMALL))


def ours(logits, ids, chosen, mask=None):
    counted = None if mask is None else jnp.asarray(mask)
    return np.asarray(
        sampling.process(jnp.asarray(logits), jnp.asarray(ids), sampling.sampled(chosen), counted)
    )


def safe(logits, ids, chosen):
    """Nothing lies at the edge of what is kept: a little more or less is the same, and no equal one is left behind."""
    nudged = [
        {**chosen, name: chosen[name] * (1 + way * 1e-4)}
        for name in ("top_p", "min_p")
        for way in (-1, 1)
        if 0 < chosen.get(name, 0) < 1
    ]
    kept, *others = (np.isfinite(theirs(logits, ids, each, dtype="float64")) for each in (chosen, *nudged))
    scaled = {name: chosen[name] for name in ("repetition_penalty", "temperature") if name in chosen}
    values = theirs(logits, ids, scaled, dtype="float64")
    least, left = np.where(kept, values, np.inf).min(-1), np.where(kept, -np.inf, values).max(-1)
    return all((each == kept).all() for each in others) and (least > left).all()


def assert_same(one, other):
    np.testing.assert_array_equal(np.isfinite(one), np.isfinite(other))
    kept = np.isfinite(other)
    np.testing.assert_allclose(one[kept], other[kept], rtol=12 * U32, atol=0)


@settings(max_examples=40)
@given(questions(), SETTINGS)
def test_logits_are_processed_as_in_the_reference(question, chosen):
    logits, ids = question
    assume(safe(logits, ids, chosen))
    assert_same(ours(logits, ids, chosen), theirs(logits, ids, chosen))


@settings(max_examples=20)
@given(questions())
def test_as_many_of_equal_ones_are_kept_by_top_p_as_in_the_reference(question):
    """Which of them is nobody's to say: the reference's sort is not stable."""
    logits, ids = np.round(question[0] / 2) * 2, question[1]
    mine, reference = (each(logits, ids, {"top_p": 0.77}) for each in (ours, theirs))
    np.testing.assert_array_equal(np.sort(mine), np.sort(reference))


@of_5_23
def test_padding_on_the_left_is_no_part_of_the_text():
    logits = np.linspace(-3, 3, 2 * V, dtype=np.float32).reshape(2, V)
    ids = np.asarray([[5, 5, 5, 1, 2, 30, 1], [5, 1, 2, 3, 4, 6, 7]], np.int32)
    mask = np.asarray([[0, 0, 0, 1, 1, 1, 1], [1] * 7], np.int32)
    mine = ours(logits, ids, {"repetition_penalty": 1.3}, mask != 0)
    assert_same(mine, theirs(logits, ids, {"repetition_penalty": 1.3}, mask))
    assert mine[0, 5] == logits[0, 5] != mine[1, 5]


def test_without_sampling_only_the_penalty_is_applied():
    logits = np.linspace(-3, 3, 2 * V, dtype=np.float32).reshape(2, V)
    ids = np.asarray([[1, 2, 30, 30, 0, 4, 5]] * 2, np.int32)
    greedy = Settings(do_sample=False, **EVERYTHING)
    mine = np.asarray(sampling.process(jnp.asarray(logits), jnp.asarray(ids), greedy))
    assert_same(mine, theirs(logits, ids, EVERYTHING, do_sample=False))
    assert np.isfinite(mine).all()
    assert (mine != logits).any()


def test_ids_that_no_logit_stands_for_are_left_out():
    logits = np.ones((1, V), np.float32)
    ids = np.asarray([[V, V + 7, 3]], np.int32)
    changed = ours(logits, ids, {"repetition_penalty": 2.0})[0] != 1
    assert np.flatnonzero(changed).tolist() == [3]


def test_one_compilation_for_each_settings():
    logits, ids = jnp.ones((3, V)), jnp.ones((3, 5), jnp.int32)
    before = sampling.process._cache_size()
    for penalty in (1.1, 1.1, 1.2):
        sampling.process(logits, ids, Settings(repetition_penalty=penalty))
    assert sampling.process._cache_size() == before + 2


def test_draws_follow_the_probabilities_and_leave_out_what_may_not_be_chosen():
    logits = jnp.asarray([jnp.log(0.5), -jnp.inf, jnp.log(0.3), jnp.log(0.2)])
    drawn = np.asarray(sampling.draw(jax.random.key(0), jnp.broadcast_to(logits, (4000, 4))))
    assert drawn.dtype == np.int32
    shares = np.bincount(drawn, minlength=4) / 4000
    assert shares[1] == 0
    np.testing.assert_allclose(shares, [0.5, 0, 0.3, 0.2], atol=0.04)


# What a generation_config.json means


@pytest.fixture
def checkpoint(tmp_path):
    def written(generation, **config):
        folder = tiny.write(tmp_path / "checkpoint", {**tiny.QWEN2, "num_hidden_layers": 1, **config})
        (folder / "generation_config.json").unlink(missing_ok=True)
        if generation is not None:
            (folder / "generation_config.json").write_text(json.dumps(generation))
        return folder

    return written


SHIPPED = {
    "bos_token_id": 1,
    "do_sample": True,
    "eos_token_id": [7, 1],
    "pad_token_id": 1,
    "repetition_penalty": 1.05,
    "temperature": 0.7,
    "top_k": 20,
    "top_p": 0.8,
    "transformers_version": "4.37.0",
}


@pytest.mark.parametrize(
    ("generation", "config"),
    [
        (SHIPPED, {}),
        ({**SHIPPED, "do_sample": False}, {}),
        ({}, {}),
        ({"do_sample": True}, {}),
        ({"do_sample": True, "top_k": None, "temperature": None, "min_p": 0.1}, {}),
        ({"do_sample": True, "top_k": 0, "top_p": 0.6}, {}),
        ({"temperature": 0.5, "repetition_penalty": 1.2}, {}),
        ({"temperature": 0.0}, {}),
        (
            {"do_sample": True, "typical_p": 1.0, "num_beams": 1, "min_length": 0, "no_repeat_ngram_size": 0},
            {},
        ),
        (None, {}),
        (None, {"do_sample": True, "temperature": 0.5, "top_k": 5}),
        ({"do_sample": True}, {"temperature": 0.5, "top_k": 5}),
    ],
)
def test_a_checkpoint_asks_for_what_the_reference_takes_from_it(checkpoint, generation, config):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    folder = checkpoint(generation, **config)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    prepared, _ = model._prepare_generation_config(None)
    processors = model._get_logits_processor(prepared, input_ids_seq_length=T)
    logits = np.random.default_rng(0).standard_normal((2, 97)).astype(np.float32) * 3
    ids = np.asarray([[1, 2, 3, 4, 5, 6, 1]] * 2, np.int32)
    asked = sampling.read(folder)
    assert asked.do_sample is prepared.do_sample
    mine = np.asarray(sampling.process(jnp.asarray(logits), jnp.asarray(ids), asked))
    assert_same(mine, processors(torch.tensor(ids).long(), torch.tensor(logits)).numpy())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("no_repeat_ngram_size", 2),
        ("typical_p", 0.9),
        ("epsilon_cutoff", 1e-4),
        ("eta_cutoff", 1e-4),
        ("top_h", 0.4),
        ("bad_words_ids", [[3]]),
        ("suppress_tokens", [3]),
        ("min_length", 5),
        ("min_new_tokens", 5),
        ("num_beams", 4),
        ("renormalize_logits", True),
        ("stop_strings", ["."]),
        ("frequency_penalty", 0.5),
    ],
)
def test_settings_that_would_change_a_choice_and_are_not_implemented_are_refused_by_name(name, value):
    with pytest.raises(ConfigError, match=f"^{name} is "):
        sampling.parse({**SHIPPED, name: value})
    sampling.parse({**SHIPPED, name: None})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("do_sample", 1),
        ("repetition_penalty", 0),
        ("temperature", 0.0),
        ("temperature", "0.7"),
        ("temperature", float("nan")),
        ("top_k", -1),
        ("top_k", 2.5),
        ("top_k", True),
        ("top_p", 1.5),
        ("top_p", -0.1),
        ("min_p", 2),
    ],
)
def test_values_that_no_probability_comes_of_are_refused(name, value):
    with pytest.raises(ConfigError, match=f"^{name} is "):
        sampling.parse({**SHIPPED, name: value})


def test_what_is_set_for_a_draw_is_all_that_is_done():
    assert sampling.sampled({"top_p": 0.8}) == Settings(do_sample=True, top_p=0.8)
    with pytest.raises(ConfigError, match="top_kk is no setting of sampling"):
        sampling.sampled({"top_kk": 3})


@pytest.mark.parametrize(("text", "message"), [("{", "cannot be read as JSON"), ("[]", "holds a list")])
def test_a_file_that_is_no_object_is_refused(checkpoint, text, message):
    folder = checkpoint({})
    (folder / "generation_config.json").write_text(text)
    with pytest.raises(ConfigError, match=message):
        sampling.read(folder)


def test_every_generation_setting_of_the_reference_is_accounted_for():
    transformers = pytest.importorskip("transformers")
    known = transformers.GenerationConfig().to_dict()
    sampling.parse(dict.fromkeys(known))
    unknown = [
        name
        for name in known
        if name not in (*sampling._OFF, *sampling._WITHOUT_EFFECT, *sampling.NAMES, "do_sample")
    ]
    assert unknown == []
