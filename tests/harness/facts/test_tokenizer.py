"""Token ids: every difference fails and says where; mistakes have their names."""

import re

import numpy as np
import pytest

from harness.facts.family import Context
from harness.facts.tokenizer import TOKENIZER
from harness.model import Fact, Verdict
from harness.replay.port import NotOffered

CONTEXT = Context("float32", None)
IDS = [5, 6, 7, 8]
BOS, EOS, PAD, UNK = 1, 2, 3, 4


def fact(ids=IDS, mistaken=(), **tokens):
    tokens = {"bos": BOS, "eos": EOS, "pad": PAD, "unk": UNK} | tokens
    expected = {"ids": list(ids), **tokens, "mistaken": list(mistaken)}
    return Fact("tokenizer", "tokenizer", "it", {"text": "abc"}, expected)


def judged(answer, *args, **tokens):
    return TOKENIZER.judge(fact(*args, **tokens), answer, CONTEXT)


def test_a_port_is_asked_for_the_text():
    class Port:
        def tokenize(self, text):
            return [text]

    assert TOKENIZER.ask(Port(), fact()) == ["abc"]
    with pytest.raises(NotOffered, match="does not offer `tokenize`"):
        TOKENIZER.ask(object(), fact())


@pytest.mark.parametrize("answer", [IDS, tuple(IDS), np.array(IDS), np.array(IDS, np.uint8), iter(IDS)])
def test_the_same_ids_pass_however_they_are_given(answer):
    assert judged(answer).verdict is Verdict.PASS


def test_no_ids_of_a_text_of_none_pass():
    assert judged([], []).verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (None, "gave a NoneType, where a list of token ids was expected"),
        ("5678", "gave a str, where"),
        (b"5678", "gave a bytes, where"),
        ({"input_ids": IDS}, "gave a dict, where"),
        (7, "gave a int, where"),
        (np.array(5), "gave a ndarray that cannot be read as a list of token ids"),
        ([IDS], r"gave a list whose entry \[0\] is a list, where a token id, a whole number, was expected"),
        (np.array([IDS]), r"gave a ndarray whose entry \[0\] is a ndarray"),
        ([5, 6.0, 7, 8], r"entry \[1\] is a float"),
        (np.array([5.0, 6, 7, 8]), r"entry \[0\] is a float64"),
        ([5, True, 7, 8], r"entry \[1\] is a bool"),
        ([5, None], r"entry \[1\] is a NoneType"),
    ],
)
def test_what_is_no_list_of_ids_is_a_clear_failure(answer, reason):
    found = judged(answer)
    assert found.verdict is Verdict.FAIL
    assert re.search(reason, found.reason)
    assert not found.hypotheses


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ([5, 6, 9, 8], "id [2] is 9, where the reference has 7, of 4"),
        ([5, 9, 9], "id [1] is 9, where the reference has 6; 3 ids, where the reference has 4"),
        ([5, 6], "2 ids, where the reference has 4: it ends before id [2], 7"),
        ([5, 6, 7, 8, 9], "5 ids, where the reference has 4: it goes on with id [4], 9"),
        ([], "0 ids, where the reference has 4: it ends before id [0], 5"),
    ],
)
def test_it_says_where_ids_part_and_how_many_there_are(answer, reason):
    found = judged(answer)
    assert (found.verdict, found.reason) == (Verdict.FAIL, reason)


@pytest.mark.parametrize(
    ("answer", "names"),
    [
        ([BOS, *IDS], ["bos_prepended"]),
        ([99, *IDS], ["bos_prepended"]),
        ([*IDS, EOS], ["eos_appended"]),
        ([*IDS, 99], ["eos_appended"]),
        ([BOS, *IDS, EOS], ["bos_and_eos_added"]),
        ([*IDS, PAD], ["padded"]),
        ([PAD, PAD, *IDS], ["padded"]),
        ([0, 0, *IDS], ["padded"]),
        ([*IDS, 0, 0, 0], ["padded"]),
        ([*IDS, 0, 1, 0], []),
        (IDS[:3], ["truncated"]),
        (IDS[1:], ["truncated_in_front"]),
        ([], ["nothing_given"]),
        ([6, 7, 8, 9], ["ids_shifted"]),
        ([5, UNK, 7, 8], ["unknown_tokens"]),
        ([5, UNK, UNK, UNK, 7, 8], ["unknown_tokens"]),
        ([5, 9, 7, 8], []),
        ([8, 7, 6, 5], []),
    ],
)
def test_mistakes_are_named(answer, names):
    found = judged(answer)
    assert found.verdict is Verdict.FAIL
    assert list(found.hypotheses) == names
    assert bool(found.text) == bool(names)


@pytest.mark.parametrize(
    ("token", "names"),
    [
        (BOS, ["bos_prepended"]),
        (EOS, ["eos_appended"]),
        (PAD, ["padded"]),
        (9, ["bos_prepended", "eos_appended"]),
    ],
)
def test_around_an_empty_text_only_the_token_tells(token, names):
    assert list(judged([token], []).hypotheses) == names


def test_one_token_more_that_pads_and_ends_is_the_one_that_ends():
    assert judged([*IDS, 2], eos=2, pad=2).hypotheses == ("eos_appended",)


def test_an_unknown_token_that_is_in_the_text_explains_nothing():
    assert not judged([UNK, UNK, 7, 9], [UNK, 6, 7, 8]).hypotheses
    assert not judged([5, 0, 7, 8], unk=None).hypotheses


MISTAKEN = (
    {"names": ["lower_cased"], "ids": [5, 6, 7, 9]},
    {"names": ["normalised_nfkc", "normalised_nfkd"], "ids": [15, 16]},
    {"names": ["end_stripped"], "ids": [5, 6]},
)


def test_recorded_mistakes_are_named_with_all_that_give_the_same():
    found = judged([5, 6, 7, 9], IDS, MISTAKEN)
    assert found.hypotheses == ("lower_cased",)
    assert found.text == "the text is put into lower case"
    found = judged([15, 16], IDS, MISTAKEN)
    assert found.hypotheses == ("normalised_nfkc", "normalised_nfkd")
    assert found.text == "the text is normalised to NFKC, or the text is normalised to NFKD"


def test_what_looks_cut_may_be_cut():
    found = judged([5, 6], IDS, MISTAKEN)
    assert found.hypotheses == ("end_stripped", "truncated")
