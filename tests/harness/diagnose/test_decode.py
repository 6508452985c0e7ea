"""Failures in decode: faults planted in a port's source are named, and nothing else is."""

from functools import cache, lru_cache
from pathlib import Path

import pytest

from harness.audit.fault import Area
from harness.audit.patched import patched_factory, read_faults
from harness.diagnose.decode import explain_decode
from harness.diagnose.diagnosis import diagnose, diagnose_one
from harness.diagnose.subject import Subject
from harness.model import Mode, Verdict
from harness.replay.session import Session
from harness.store.reader import GoldenFile
from harness.weights import Weights

ROOT = Path(__file__).parents[3]
FAULTS = {
    fault.name: fault
    for fault in read_faults(ROOT / "goldens" / "faults" / "qwen_flax.toml")
    if fault.area is Area.CACHE
}
FOLDER = ROOT / "goldens" / "checkpoints" / "qwen3-tiny"
CASES = ("written.float32", "written-batch.float32")
SAMPLE = (
    "written-one-slot-late",
    "scores-not-scaled-in-decode",
)
OF_FIRST_TEXT = {"padding-forgotten-in-decode", "positions-by-slot-in-decode"}
"""The first text of the batch is the longest: what holds for it would hold for all, too."""
ISOLATED = {"mask-from-the-first-slot", "window-counted-within-the-step"}
"""They show in isolated replay, of single tokens."""


@cache
def golden_file():
    return GoldenFile.open(ROOT / "goldens" / "qwen3-tiny.h5")


@lru_cache(maxsize=2)
def port(name):
    """Only a few are kept: each has compiled programs of its own."""
    return patched_factory("qwen_flax.port:make", FAULTS[name])(str(FOLDER), "float32")


def session(name):
    return Session(golden_file(), lambda dtype: port(name))


@cache
def replayed(name):
    goldens = golden_file().select(cases=CASES, dtypes=["float32"])
    return tuple(session(name).replay(goldens))


def explained(name, withheld=()):
    return explain_decode(
        Subject(golden_file(), lambda dtype: port(name), Weights(FOLDER), withheld), replayed(name)
    )


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in SAMPLE else [pytest.mark.slow])
        for name in FAULTS
        if name not in ISOLATED
    ],
)
def test_a_fault_in_decode_gets_its_name_and_no_other(name):
    fault, said = FAULTS[name], explained(name)
    of_first = {"first_row_for_all"} if name in OF_FIRST_TEXT else set()
    assert fault.named_by
    assert said
    for explanation in said:
        assert set(explanation.hypotheses) & fault.named_by, explanation
        assert set(explanation.hypotheses) - fault.named_by <= of_first, explanation
    without = explained(name, withheld=fault.named_by | of_first)
    assert {each for explanation in without for each in explanation.hypotheses} == set()
    assert len(without) == len(said)
    assert all(explanation.text for explanation in without)


@pytest.mark.slow
def test_tokens_that_follow_each_other_are_not_taken_for_a_whole_text():
    """As in a case that was read at once, and is decoded because somebody asks for it."""
    name = "positions-start-over-after-the-prompt"
    goldens = golden_file().select(include=["rotary_emb.*"], cases=["english"], dtypes=["float32"])
    results = list(session(name).replay(goldens, [Mode.ISOLATED, Mode.DECODE]))
    subject = Subject(golden_file(), lambda dtype: port(name), Weights(FOLDER))
    said = explain_decode(subject, results)
    assert [each.hypotheses for each in said] == [["positions_start_over"]] * 2


def test_what_only_takes_in_what_is_wrong_is_not_explained():
    (said,) = {e.component.rpartition(".")[2] for e in explained("scores-not-scaled-in-decode")}
    assert said == "scores"


def test_a_name_says_that_it_is_of_decode_and_of_the_cache():
    texts = {explanation.text for explanation in explained("scores-not-scaled-in-decode")}
    assert texts == {"in decode, not scaled"}
    texts = {explanation.text for explanation in explained("written-one-slot-late")}
    assert texts == {"tokens are written to the cache one slot too late"}


def test_what_the_cache_holds_and_what_was_to_be_written_are_explained_alike():
    said = {e.component: e.hypotheses for e in explained("written-one-slot-late")}
    layer = "layers.0.self_attn"
    for name in ("v_proj", "v_cache", "k_rope", "k_cache"):
        assert said[f"{layer}.{name}"] == ["cache_slot_off_by_one"]


def test_one_component_is_explained_alone():
    name = "layers.0.self_attn.scores"
    (golden,) = golden_file().select(include=[name], cases=CASES[:1], dtypes=["float32"])
    said, _ = diagnose_one(session("scores-not-scaled-in-decode"), FOLDER, golden, Mode.DECODE)
    assert [(each.component, each.hypotheses) for each in said] == [(name, ["scale_missing"])]


def test_a_whole_diagnosis_explains_decode():
    results = replayed("scores-not-scaled-in-decode")
    assert {result.mode for result in results if result.verdict is Verdict.FAIL} == {Mode.DECODE}
    said, notes = diagnose(session("scores-not-scaled-in-decode"), FOLDER, results)
    assert {tuple(each.hypotheses) for each in said} == {("scale_missing",)}
    assert notes == []
    said, _ = diagnose(session("scores-not-scaled-in-decode"), FOLDER, results, {"scale_missing"})
    assert {tuple(each.hypotheses) for each in said} == {()}


def test_a_right_port_has_nothing_to_explain():
    passed = [result for result in replayed("written-one-slot-late") if result.verdict is Verdict.PASS]
    subject = Subject(golden_file(), lambda dtype: port("written-one-slot-late"), Weights(FOLDER))
    assert explain_decode(subject, passed) == []
