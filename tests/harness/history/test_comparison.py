import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from harness.history.comparison import compare, got_worse, since
from harness.history.entry import Entry, failed
from harness.model import Mode, Verdict, Views
from harness.report.result import Environment, Result, Run

LIMIT = 1e-6
MARGINS = st.one_of(st.floats(0, 10, allow_nan=False), st.sampled_from(["pass", "fail", "unmeasured"]))


def result(component="norm", margin=0.5, case="hello", limit=LIMIT, verdict=None):
    error, allowed = (None, None) if verdict else (Views(*[margin * limit] * 3), Views(*[limit] * 3))
    judged = verdict or (Verdict.FAIL if margin > 1 else Verdict.PASS)
    return Result(component, "kind", case, "float32", Mode.ISOLATED, judged, error, allowed, allowed)


def entry(*results, time="2026-01-01T00:00:00+00:00"):
    run = Run.from_results("tiny.h5", "port:make", results, ["norm", "lm_head", "act"])
    return Entry.of(replace(run, environment=Environment(time, {}, "cpu", "default", "abc")))


def test_what_both_compared_alike_is_compared():
    difference = compare(entry(result(margin=0.2)), entry(result(margin=0.7)))
    (change,) = difference.changes
    assert (change.before, change.after) == (0.2, 0.7)
    assert difference.worse == [change]
    assert not difference.better


def test_what_one_alone_compared_is_listed_and_not_counted():
    """The notes of the story held three of eight components against one of eight others, and called it progress."""
    before = entry(result("norm"), result("lm_head"), result("act", case="chat"))
    after = entry(result("norm"), result("norm", case="other"))
    difference = compare(before, after)
    assert [change.component for change in difference.changes] == ["norm"]
    assert difference.only_before == [
        "1 of 2 components in hello, float32 isolated: lm_head",
        "all 1 components in chat, float32 isolated",
    ]
    assert difference.only_after == ["all 1 components in other, float32 isolated"]


def test_another_limit_is_not_compared():
    difference = compare(entry(result(margin=0.9)), entry(result(margin=0.1, limit=LIMIT * 100)))
    assert not difference.changes
    assert difference.other_limits == ["all 1 components in hello, float32 isolated"]


@pytest.mark.parametrize(
    ("before", "after", "worse"),
    [
        (0.2, 1.5, True),
        (1.5, 20.0, False),
        (0.2, 0.6, True),
        (0.0, 0.59, False),
        (0.4, 0.7, False),
        ("pass", "fail", True),
        (0.3, "fail", True),
        ("fail", 3.0, False),
        (0.3, "unmeasured", True),
        ("unmeasured", 0.3, False),
        ("unmeasured", "unmeasured", False),
    ],
)
def test_what_is_worse(before, after, worse):
    assert got_worse(before, after) is worse


@given(MARGINS, MARGINS)
def test_nothing_gets_worse_both_ways(a, b):
    assert not (got_worse(a, b) and got_worse(b, a))
    assert not got_worse(a, a)


def test_since_when_it_has_been_so():
    margins = [0.1, 2.0, 0.2, 3.0, 2.5]
    entries = [
        entry(result(margin=margin), time=f"2026-01-0{day}T00:00:00+00:00")
        for day, margin in enumerate(margins, 1)
    ]
    (change,) = since(entries, compare(entries[2], entries[4])).worse
    assert change.since.startswith("2026-01-04")


def test_what_has_no_numbers():
    kept = entry(
        result("norm", verdict=Verdict.FAIL), result("act", verdict=Verdict.UNMEASURED), result("lm_head")
    )
    table = kept.comparisons()["float32", Mode.ISOLATED, "hello"]
    assert {name: margin for name, (margin, _) in table.items()} == {
        "norm": "fail",
        "act": "unmeasured",
        "lm_head": 0.5,
    }
    assert failed("fail")
