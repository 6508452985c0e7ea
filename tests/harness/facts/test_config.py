"""Facts of the configuration: a setting in any guise passes, and a wrong one is named for how it was misread."""

from types import SimpleNamespace

import numpy as np
import pytest

from harness.facts.config import CONFIG
from harness.facts.family import Context
from harness.model import Fact, Verdict
from harness.replay.port import NotOffered

YARN = {
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 4096,
    "attention_factor": 1.1386,
}
RIGHT = {
    "vocab_size": 384,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 16,
    "rms_norm_eps": 1e-6,
    "rope_theta": 5e6,
    "rope_scaling": None,
    "windows": [None, 16, 16],
    "scaling": 0.25,
    "hidden_act": "silu",
    "qkv_bias": True,
    "qk_norm": True,
    "tie_word_embeddings": True,
    "eos_token_ids": [256, 258],
    "dtype": "bfloat16",
    "generation.do_sample": True,
    "generation.repetition_penalty": None,
    "generation.temperature": 0.7,
    "generation.top_k": 20,
    "generation.top_p": None,
}
RAW = {"use_sliding_window": False, "eos_token_id": 258}


class Port:
    def __init__(self, told):
        self.told = told

    def config(self):
        return self.told


def judge(name, told, expected=None, right=RIGHT):
    """A port that tells one setting otherwise, of a reference that has `expected` there."""
    reference = {**right, name: right[name] if expected is None else expected}
    facts = {n: Fact(f"config.{n}", "config", "checkpoint", {}, value) for n, value in reference.items()}
    contents = SimpleNamespace(facts=list(facts.values()), config=RAW)
    context = Context("float32", None, SimpleNamespace(file=SimpleNamespace(contents=contents)))
    told_all = {**reference, name: told}
    fact = facts[name]
    found = CONFIG.judge(fact, CONFIG.ask(Port(told_all), fact), context)
    if found.verdict is Verdict.FAIL:
        assert found.reason
        alone = CONFIG.judge(fact, told_all, Context("float32", None))
        assert alone.reason == found.reason  # a golden file explains; it does not decide
    return found


SAME = {
    "a number of numpy": ("head_dim", np.int64(16)),
    "a number of float32": ("rms_norm_eps", np.float32(1e-6)),
    "a whole number": ("rope_theta", 5_000_000),
    "rounded on the way": ("rms_norm_eps", 9.999999974752427e-07),
    "a tuple": ("windows", (None, np.int32(16), 16)),
    "a boolean of numpy": ("qk_norm", np.True_),
    "another name": ("hidden_act", "swish"),
    "another order": ("eos_token_ids", (258, 256)),
    "a dtype of torch": ("dtype", "torch.bfloat16"),
    "neutral for null": ("generation.repetition_penalty", 1.0),
    "neutral for all": ("generation.top_p", 1),
}


@pytest.mark.parametrize("guise", SAME)
def test_the_same_in_another_guise_passes(guise):
    assert judge(*SAME[guise]).verdict is Verdict.PASS


WRONG = {
    "theta not found": ("rope_theta", 10_000.0, "theta_10000"),
    "theta of another model": ("rope_theta", 1e6, "theta_1e+06"),
    "theta of nobody": ("rope_theta", 3e6),
    "eps": ("rms_norm_eps", 1e-5, "eps_1e-05"),
    "head size from hidden size": ("head_dim", 8, "head_dim_from_hidden"),
    "another head size": ("head_dim", 32),
    "not scaled": ("scaling", 1.0, "scale_missing"),
    "scaled by the head size": ("scaling", 1 / 16, "scale_by_head_dim"),
    "scaled by hidden size / heads": ("scaling", 8**-0.5, "scale_by_hidden_over_heads"),
    "scaling of positions": ("rope_scaling", {"rope_type": "linear", "factor": 4.0}, "linear_scaling_4"),
    "windows ignored": ("windows", [None, None, None], "window_ignored"),
    "window where it is off": ("windows", [16, 16, 16], "window_although_off"),
    "windows the other way round": ("windows", [16, None, None], "window_although_off", "window_ignored"),
    "window one too wide": ("windows", [None, 17, 17], "window_plus_one"),
    "another window": ("windows", [None, 8, 16]),
    "one window for all": ("windows", 16),
    "activation": ("hidden_act", "gelu_pytorch_tanh", "gelu_tanh"),
    "no biases": ("qkv_bias", False, "bias_missing"),
    "a number for a boolean": ("qk_norm", 1),
    "no head norms": ("qk_norm", False, "norm_skipped"),
    "not tied": ("tie_word_embeddings", False, "tie_ignored"),
    "as many key heads as query heads": ("num_key_value_heads", 8, "key_value_heads_as_query_heads"),
    "one id of two": ("eos_token_ids", [258], "eos_single"),
    "an id that is no list": ("eos_token_ids", 258, "eos_single"),
    "no id": ("eos_token_ids", [], "eos_missing"),
    "an id too many": ("eos_token_ids", [0, 256, 258]),
    "dtype not found": ("dtype", None, "dtype_not_found"),
    "another dtype": ("dtype", "float32"),
    "greedy": ("generation.do_sample", False, "settings_ignored"),
    "temperature ignored": ("generation.temperature", None, "settings_ignored"),
    "temperature of one": ("generation.temperature", 1.0, "settings_ignored"),
    "another temperature": ("generation.temperature", 0.8),
    "penalty from elsewhere": ("generation.repetition_penalty", 1.05, "settings_added"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_mistakes_are_named(mistake):
    name, told, *hypotheses = WRONG[mistake]
    found = judge(name, told)
    assert found.verdict is Verdict.FAIL
    assert found.hypotheses == tuple(hypotheses)
    assert bool(found.text) == bool(hypotheses)


def test_settings_of_a_draw_mean_nothing_where_none_is_made():
    greedy = {
        **RIGHT,
        "generation.do_sample": False,
        "generation.top_k": None,
        "generation.temperature": None,
    }
    assert judge("generation.top_k", 20, right=greedy).verdict is Verdict.PASS
    assert judge("generation.top_k", 20, right=RIGHT).verdict is Verdict.PASS
    assert judge("generation.do_sample", True, right=greedy).hypotheses == ("settings_added",)
    drawn = {**greedy, "generation.do_sample": True}
    assert judge("generation.top_k", 20, right=drawn).hypotheses == ("settings_added",)


def test_scaling_of_positions_is_compared_number_by_number():
    assert judge("rope_scaling", {**YARN, "mscale": None}, YARN).verdict is Verdict.PASS
    assert judge("rope_scaling", None, YARN).hypotheses == ("scaling_ignored",)
    assert judge("rope_scaling", {"rope_type": "linear", "factor": 4.0}, YARN).hypotheses == (
        "linear_instead",
    )
    other = judge("rope_scaling", {**YARN, "attention_factor": 1.0}, YARN)
    assert other.reason == "attention_factor is 1.0, where the reference has 1.1386"
    assert judge("rope_scaling", {"rope_type": "yarn"}, YARN).reason.startswith("factor is None")


def test_lists_say_which_entry():
    found = judge("windows", [None, 16, 15])
    assert found.reason == "entry 2 is 15, where the reference has 16"
    assert found.text == "sliding window one key too narrow in layer 2"
    assert judge("windows", [None, 15, 15]).reason.startswith("2 entries differ, the first: entry 1 is 15")
    assert judge("windows", [None, 16]).reason.startswith("has 2 entries, where the reference has 3")
    assert judge("eos_token_ids", [258, 7]).reason.startswith("lacks 256 and has 7 too much: is [258, 7]")


def test_a_window_that_is_read_though_off_is_told_with_its_key():
    off = {**RIGHT, "windows": [None, None, None]}
    assert "use_sliding_window, which is false, is not" in judge("windows", [16, 16, 16], right=off).text
    single = judge("eos_token_ids", [258])
    assert "those of config.json, which generation_config.json overrules" in single.text


def test_what_follows_from_another_setting_is_told_so():
    told = {**RIGHT, "head_dim": 8, "scaling": 8**-0.5}
    fact = Fact("config.scaling", "config", "checkpoint", {}, 0.25)
    contents = SimpleNamespace(
        facts=[Fact(f"config.{name}", "config", "checkpoint", {}, value) for name, value in RIGHT.items()],
        config=RAW,
    )
    session = SimpleNamespace(file=SimpleNamespace(contents=contents))
    found = CONFIG.judge(fact, told, Context("float32", None, session))
    assert found.hypotheses == ("head_dim_from_hidden",)
    assert found.text == "follows from head_dim, which the port tells as 8"


@pytest.mark.parametrize("told", [None, "16", True, [16], {"head_dim": 16}, float("nan"), object()])
@pytest.mark.parametrize(
    "name", ["head_dim", "windows", "qk_norm", "eos_token_ids", "rope_theta", "hidden_act"]
)
def test_answers_of_a_wrong_type_fail_clearly(name, told):
    if name == "qk_norm" and told is True:
        return
    found = judge(name, told)
    assert found.verdict is Verdict.FAIL
    assert "where the reference has" in found.reason


@pytest.mark.parametrize("answer", [None, 3, "head_dim", [("head_dim", 16)]])
def test_what_is_no_mapping_fails_clearly(answer):
    fact = Fact("config.head_dim", "config", "checkpoint", {}, 16)
    found = CONFIG.judge(fact, CONFIG.ask(Port(answer), fact), Context("float32", None))
    assert found.verdict is Verdict.FAIL
    assert "where a mapping of settings was expected" in found.reason


def test_what_a_port_does_not_tell_is_not_asked():
    fact = Fact("config.head_dim", "config", "checkpoint", {}, 16)
    with pytest.raises(NotOffered, match="does not offer `config`"):
        CONFIG.ask(object(), fact)
    with pytest.raises(NotOffered, match="does not tell head_dim"):
        CONFIG.ask(Port({"hidden_size": 64}), fact)
