"""Goldens are run component by component, and told case by case."""

from harness.model import Fact, FactIn, Golden, Mode, Verdict
from harness.replay.order import as_run, as_told
from harness.report.result import Place, Result
from tests.fakes import floor

ORDER = ["config.a", "b", "a", "generation.c"]


def golden(component, case, dtype="float32"):
    return Golden(component, case, dtype, 0, {}, floor(1e-6), floor(1e-6))


def runs(asked):
    return [(each.component, each.case, each.dtype, mode) for each, mode in as_run(asked, ORDER)]


def test_a_component_runs_in_all_cases_before_the_next_then_whole_runs_case_by_case():
    asked = [
        (golden(component, case), mode)
        for case in ("one", "two")
        for component in ("b", "a")
        for mode in (Mode.ISOLATED, Mode.END_TO_END)
    ]
    isolated = [(component, case, "float32", Mode.ISOLATED) for component in "ba" for case in ("one", "two")]
    whole = [(component, case, "float32", Mode.END_TO_END) for case in ("one", "two") for component in "ba"]
    assert runs(asked) == isolated + whole


def test_one_dtype_after_another_as_they_come():
    asked = [(golden("a", "one", dtype), Mode.ISOLATED) for dtype in ("float32", "bfloat16")]
    assert [dtype for _, _, dtype, _ in runs(asked)] == ["float32", "bfloat16"]


def test_facts_stay_before_and_after_the_goldens():
    before = FactIn(Fact("config.a", "config", "checkpoint", {}, 0), "float32")
    after = FactIn(Fact("generation.c", "generation", "text", {}, 0), "float32")
    asked = [(before, Mode.ISOLATED), (golden("a", "one"), Mode.ISOLATED), (after, Mode.END_TO_END)]
    assert [each for each, _ in as_run(reversed(asked), ORDER)] == [each for each, _ in asked]


def test_results_are_told_as_the_places_have_them():
    places = [
        Place(component, case, "float32", mode)
        for case in ("one", "two")
        for component in ("b", "a")
        for mode in (Mode.ISOLATED, Mode.END_TO_END)
    ]
    results = [Result(p.component, "kind", p.case, p.dtype, p.mode, Verdict.PASS) for p in reversed(places)]
    told = [(r.case, r.mode, r.component) for r in as_told(results, places)]
    modes = (Mode.ISOLATED, Mode.END_TO_END)
    assert told == [
        (case, mode, component) for case in ("one", "two") for mode in modes for component in "ba"
    ]


def test_nothing_is_no_order():
    assert as_run([], ORDER) == []
