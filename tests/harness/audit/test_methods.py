"""A fault in a method of a port: what the port still offers, and the facts that it is asked for."""

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from harness.audit.catalogue.table import FAULTS
from harness.audit.fault import Answer, Area, EditedConfig, Fault, Lacking, Method, Overrides, Patch, Rewired
from harness.audit.methods import asked_of, by_family, facts_in, fronted, same
from harness.audit.outcome import Naming, Verdict
from harness.audit.run import Auditor
from harness.errors import GoldensError
from harness.model import Fact, FactIn
from harness.replay import port as contract
from harness.store.reader import GoldenFile
from tests import fakes

GOLDENS = Path(__file__).parents[3] / "goldens"
KNOWN = {fault.name: fault for fault in FAULTS}


def fact(component, family, case="checkpoint"):
    return FactIn(Fact(component, family, case, None, None), "float32")


FACTS = [
    fact("config.head_dim", "config"),
    fact("config.eps", "config"),
    fact("tokenizer", "tokenizer", "spam"),
    fact("tokenizer", "tokenizer", "egg"),
]


def method(*at, name="tokenize", change=lambda method: method):
    return Method(at, name, change)


class Tokenizing(fakes.NumpyPort):
    def tokenize(self, text):
        return [len(text)]


PROTOCOLS = [
    contract.Port,
    contract.Isolated,
    contract.Cached,
    contract.Weighted,
    contract.Configured,
    contract.Tokenizing,
    contract.Templated,
    contract.Processing,
    contract.Drawing,
    contract.Generating,
]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_port_with_a_fault_in_front_offers_what_it_offers(protocol):
    port = Tokenizing()
    stand_in = fronted(port, method("tokenizer", change=lambda tokenize: lambda text: [*tokenize(text), 7]))
    assert isinstance(stand_in, protocol) is isinstance(port, protocol)


def test_only_the_method_is_another_one():
    port = Tokenizing()
    stand_in = fronted(port, method("tokenizer", change=lambda tokenize: lambda text: [*tokenize(text), 7]))
    assert stand_in.tokenize("spam") == [4, 7]
    assert port.tokenize("spam") == [4]
    assert stand_in.apply == port.apply


def test_a_method_that_a_port_lacks_is_lacking():
    with pytest.raises(Lacking, match="the port does not offer `generate`: the fault cannot be planted"):
        fronted(Tokenizing(), method("generation", name="generate"))


def test_a_fault_in_a_method_asks_for_whole_families():
    assert facts_in(method("config.head*"), FACTS) == ("config.head_dim",)
    assert asked_of(method("config.head*"), FACTS) == FACTS[:2]
    assert asked_of(method("tokenizer"), FACTS) == FACTS[2:]
    assert asked_of(method("spam"), FACTS) == []


def test_only_where_a_port_is_asked_as_a_whole_facts_can_show_a_fault():
    edited, patch = EditedConfig(("*",), lambda config: None), Patch(("*",), ())
    overrides = Overrides(lambda parameters, components: {})
    assert [asked_of(each, FACTS) for each in (edited, patch, overrides)] == [FACTS] * 3
    assert asked_of(Answer(("*",), lambda call: call.output), FACTS) == []
    assert asked_of(Rewired(lambda components: {}), FACTS) == []


def test_facts_come_family_by_family():
    assert by_family(FACTS) == {"config": FACTS[:2], "tokenizer": FACTS[2:]}


@pytest.mark.parametrize(
    ("a", "b", "alike"),
    [
        ([1, 2], (1, 2), True),
        ([1, 2], [1, 3], False),
        ([1], [1, 2], False),
        ({"a": [1.0]}, {"a": [1.0]}, True),
        ({"a": 1}, {"b": 1}, False),
        ("spam", "spam", True),
        ("spam", ["spam"], False),
        (None, None, True),
        (None, 0, False),
        (np.array([np.nan]), np.array([np.nan]), True),
        (np.array([1.0]), np.array([1.0], np.float32), False),
        (np.array([[1]]), np.array([1]), False),
    ],
)
def test_answers_are_compared_bit_by_bit(a, b, alike):
    assert same(a, b) is alike


@pytest.fixture(scope="module")
def built_in():
    """Of one case of a built-in golden file, and all of its facts."""
    file = GoldenFile.open(GOLDENS / "qwen3-tiny.h5")
    goldens = file.select(include=["norm", "*.probs"], cases=["tiny-norm"], dtypes=["float32"])
    folder, facts = GOLDENS / "checkpoints" / "qwen3-tiny", file.select_facts(dtypes=["float32"])
    return Auditor(file, goldens, "float32", "qwen_flax.port:make", folder, facts)


def tokenizing(change, *named_by):
    return Fault(
        "mine", Area.TOKENIZER, "it is wrong", method("tokenizer", change=change), frozenset(named_by)
    )


@pytest.mark.parametrize(("named_by", "naming"), [("bos_prepended", Naming.NAMED), ("another", Naming.WRONG)])
def test_a_fault_in_a_method_is_caught_and_named_by_facts(built_in, named_by, naming):
    told = built_in.audit(tokenizing(lambda tokenize: lambda text: [5, *tokenize(text)], named_by))
    assert (told.verdict, told.mode, told.planting) == (Verdict.CAUGHT, "tokenizer", "method")
    assert (told.first, told.planted, told.naming) == ("tokenizer", True, naming)
    assert bool(told.misnamed) is (naming is Naming.WRONG)
    assert len(told.cases) > 10


def test_what_a_method_raises_catches_the_fault_too(built_in):
    def broken(tokenize):
        def raising(text):
            raise ValueError("spam")

        return raising

    told = built_in.audit(tokenizing(broken))
    assert (told.verdict, told.naming) == (Verdict.CAUGHT, Naming.NOT_NAMED)


def test_a_family_of_two_words_is_told_in_words(built_in):
    told = built_in.audit(KNOWN["tools-ignored"])
    assert (told.mode, told.first) == ("chat template", "chat_template")


def test_a_fault_that_changes_no_answer_is_missed(built_in):
    told = built_in.audit(tokenizing(lambda tokenize: tokenize))
    assert (told.verdict, told.effect.exact, told.effect.modes) == (Verdict.MISSED, True, ["tokenizer"])
    assert told.reason == "makes no difference here: every answer is bit by bit the same"


def test_a_fault_that_changes_answers_which_pass_is_missed_for_that(built_in):
    told = built_in.audit(tokenizing(lambda tokenize: lambda text: np.array(tokenize(text), np.int16)))
    assert (told.verdict, told.effect.exact) == (Verdict.MISSED, False)
    assert told.reason == "cannot be seen here: answers differ, and all of them pass"


def test_a_golden_file_without_the_facts_has_no_place_for_the_fault(built_in):
    told = replace(built_in, facts=[]).audit(tokenizing(lambda tokenize: tokenize))
    assert told.verdict is Verdict.NOT_PLANTED
    assert told.reason == "the golden file has no component or fact that the fault is in"


def test_a_port_without_the_method_misses_the_fault(tmp_path):
    folder = fakes.write_checkpoint(tmp_path / "checkpoint")
    fakes.write_golden(tmp_path / "tiny.h5", checkpoint=folder)
    file = GoldenFile.open(tmp_path / "tiny.h5")
    auditor = Auditor(file, file.select(), "float32", "tests.fakes:make", folder, FACTS)
    told = auditor.audit(tokenizing(lambda tokenize: tokenize))
    assert (told.verdict, told.effect) == (Verdict.MISSED, None)
    assert told.reason.startswith("the port does not offer `tokenize`")


def test_components_come_before_facts(built_in):
    """No text of this case is longer than the window; another one is."""
    wider = KNOWN["config-window-one-wider"]
    told = built_in.audit(wider)
    assert (told.verdict, told.mode, told.first) == (Verdict.CAUGHT, "config", "config.windows")
    assert (told.planted, told.naming) == (True, Naming.NAMED)
    goldens = built_in.file.select(include=["*.probs"], cases=["random-1"], dtypes=["float32"])
    told = replace(built_in, goldens=goldens).audit(wider)
    assert (told.mode, told.first) == ("isolated", "layers.1.self_attn.probs")


def test_parameters_that_no_component_shows_are_shown_by_facts(built_in):
    """Only what comes before it is replayed."""
    name = "model.layers.2.mlp.down_proj.weight"
    other = Overrides(lambda parameters, components: {name: parameters[name] * 2})
    goldens = [golden for golden in built_in.goldens if golden.component.endswith("probs")]
    told = replace(built_in, goldens=goldens).audit(Fault("mine", Area.WEIGHTS, "it is wrong", other))
    assert (told.mode, told.first, told.planted) == ("parameters", f"parameters.{name}", True)


def test_a_port_whose_facts_fail_is_no_subject_for_faults_that_facts_show(built_in):
    wrong = [
        msgspec.structs.replace(
            each, fact=msgspec.structs.replace(each.fact, expected=each.fact.expected | {"ids": [1, 2, 3]})
        )
        for each in built_in.facts
        if each.component == "tokenizer"
    ]
    auditor = replace(built_in, facts=wrong)
    auditor.refuse_wrong([KNOWN["scale-missing"]])
    with pytest.raises(GoldensError, match=r"fails without any fault, first at tokenizer \(isolated\)"):
        auditor.refuse_wrong([tokenizing(lambda tokenize: tokenize)])
