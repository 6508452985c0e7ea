"""Texts: what parts them, near ties, and what ended them."""

from pathlib import Path

import numpy as np
import pytest

from harness.facts.family import Context
from harness.facts.generation import GENERATION
from harness.model import LOGITS, Mode, Verdict
from harness.replay.port import NotOffered
from harness.replay.session import Session
from harness.store.reader import GoldenFile

GOLDENS = Path(__file__).parents[3] / "goldens"


class Silent:
    """A port that offers nothing more than the least."""

    def trace(self, inputs, names):
        return {}


@pytest.fixture(scope="module")
def file():
    return GoldenFile.open(GOLDENS / "qwen3-tiny.h5")


@pytest.fixture
def fact(file):
    """The batch of which one text ends by itself."""
    return next(
        fact
        for fact in file.contents.facts
        if fact.family == "generation" and fact.dtype == "float32" and max(fact.expected["stop"]) >= 0
    )


def answer(fact, **changed):
    rows, stop = fact.expected["tokens"], fact.expected["stop"]
    longest = max(map(len, rows))
    tokens = np.array([[*row, *[row[-1]] * (longest - len(row))] for row in rows])
    whole = {"tokens": tokens, "lengths": np.array([len(row) for row in rows]), "stop": np.array(stop)}
    return whole | changed


def judge(file, fact, given):
    session = Session(file, lambda dtype: Silent())
    return GENERATION.judge(fact, given, Context("float32", None, session))


def test_the_same_text_passes(file, fact):
    found = judge(file, fact, answer(fact))
    assert (found.verdict, found.reason) == (Verdict.PASS, "")


def test_another_token_fails_and_says_where(file, fact):
    tokens = answer(fact)["tokens"]
    tokens[0, 2] = (tokens[0, 2] + 1) % 300
    found = judge(file, fact, answer(fact, tokens=tokens))
    assert found.verdict is Verdict.FAIL
    assert f"text 0 parts at step 2: token {tokens[0, 2]}, where" in found.reason
    assert "no near tie (gap " in found.reason


def test_a_token_that_rounding_could_have_chosen_is_a_near_tie(file, fact, monkeypatch):
    """The golden's logits with the port's token as near to the reference's as a rounding."""
    golden = next(
        golden
        for golden in file.contents.goldens
        if (golden.component, golden.case, golden.dtype) == (LOGITS, fact.case, "float32")
    )
    tokens = answer(fact)["tokens"]
    right, other = int(tokens[0, 1]), (int(tokens[0, 1]) + 5) % 300
    logits = file.output(golden).copy()
    logits[0, 1, other] = np.nextafter(logits[0, 1, right], -np.inf)
    monkeypatch.setattr(GoldenFile, "output", lambda self, asked: logits if asked is golden else None)
    monkeypatch.setattr("harness.facts.generation._drift", lambda place: "")
    tokens[0, 1] = other
    found = judge(file, fact, answer(fact, tokens=tokens))
    assert found.verdict is Verdict.PASS
    assert "text 0 parts at step 1" in found.reason
    assert ": a near tie (gap " in found.reason


def test_going_on_behind_the_end_is_named(file, fact):
    row = fact.expected["stop"].index(max(fact.expected["stop"]))
    given = answer(fact)
    given["lengths"][row] += 1
    found = judge(file, fact, {**given, "tokens": np.pad(given["tokens"], ((0, 0), (0, 1)))})
    assert found.hypotheses == ("eos_ignored",)


def test_ending_early_is_named(file, fact):
    given = answer(fact)
    given["lengths"][0] -= 1
    given["stop"][0] = 9
    assert judge(file, fact, given).hypotheses == ("stopped_early",)
    given["stop"][0] = -1
    assert judge(file, fact, given).hypotheses == ("limit_too_small",)


def test_another_reason_for_the_same_end_fails(file, fact):
    stop = answer(fact)["stop"]
    found = judge(file, fact, answer(fact, stop=np.where(stop >= 0, -1, stop)))
    assert found.hypotheses == ("stop_reason_wrong",)
    assert "was ended by the limit, the reference's by token" in found.reason


def test_a_prompt_in_front_is_named(file, fact):
    ids = [
        next(i for i, real in zip(*row, strict=True) if real)
        for row in zip(fact.given["token_ids"], fact.given["attention_mask"], strict=True)
    ]
    tokens = np.concatenate((np.array(ids)[:, None], answer(fact)["tokens"]), axis=1)
    assert judge(file, fact, answer(fact, tokens=tokens)).hypotheses == ("prompt_repeated",)


@pytest.mark.parametrize("given", [None, {}, [1, 2], {"tokens": 1, "lengths": 2, "stop": 3}])
def test_what_is_no_text_fails_with_a_sentence(file, fact, given):
    found = judge(file, fact, given)
    assert found.verdict is Verdict.FAIL
    assert "`generate` gave" in found.reason


def test_a_port_that_cannot_write_is_unmeasured(fact):
    with pytest.raises(NotOffered, match="does not offer `generate`"):
        GENERATION.ask(Silent(), fact)
    assert GENERATION.mode is Mode.DECODE
