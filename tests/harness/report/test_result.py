"""The conclusion that is drawn from results, and the JSON that other tools read."""

import json
import math
import subprocess
import sys

import pytest

from harness.errors import GoldensError
from harness.model import Mode, Verdict, Views
from harness.report.result import Place, Result, Run, Worst, parse_listed, with_listed

ORDER = ["embed_tokens", "layers.0.q_proj", "layers.2.q_proj", "layers.10.q_proj", "lm_head"]


def result(component: str = "lm_head", verdict: Verdict = Verdict.PASS, **changes) -> Result:
    error = {Verdict.PASS: 1e-7, Verdict.FAIL: 1.0, Verdict.UNMEASURED: None}[verdict]
    defaults = {"kind": component.split(".")[-1], "case": "hello", "dtype": "float32", "mode": Mode.ISOLATED}
    if error is not None:
        defaults |= {
            "error": Views(error, error, error),
            "floor": Views(1e-7, 1e-7, 1e-7),
            "limit": Views(4e-7, 4e-7, 4e-7),
            "worst": Worst([0, 3, 17], 1.25, 0.5),
        }
    return Result(component=component, verdict=verdict, **(defaults | changes))


def run(*results: Result) -> Run:
    return Run.from_results("tiny.h5", "port:make", results, ORDER)


def test_all_pass() -> None:
    concluded = run(result(), result("embed_tokens"))
    assert (concluded.verdict, concluded.holds, concluded.first_wrong) == (Verdict.PASS, True, None)
    assert concluded.counts == {"pass": 2, "fail": 0, "unmeasured": 0}


@pytest.mark.parametrize(
    ("results", "verdict"),
    [
        ([result(), result("layers.0.q_proj", Verdict.FAIL)], Verdict.FAIL),
        ([result(), result("layers.0.q_proj", Verdict.UNMEASURED)], Verdict.FAIL),
        ([result(), result("layers.0.q_proj", Verdict.UNMEASURED, listed="no such step")], Verdict.PASS),
        ([result("layers.0.q_proj", Verdict.UNMEASURED, listed="no such step")], Verdict.UNMEASURED),
        ([], Verdict.UNMEASURED),
    ],
    ids=["a failure", "unmeasured", "listed", "only listed", "nothing"],
)
def test_unmeasured_is_never_a_pass(results: list[Result], verdict: Verdict) -> None:
    assert run(*results).verdict is verdict


def test_first_wrong_is_first_in_forward_order_and_not_as_text_sorts() -> None:
    fails = [result(name, Verdict.FAIL) for name in ("lm_head", "layers.10.q_proj", "layers.2.q_proj")]
    assert run(*fails).first_wrong == Place("layers.2.q_proj", "hello", "float32", Mode.ISOLATED)


def test_an_isolated_failure_is_named_before_an_end_to_end_one() -> None:
    drift = result("layers.0.q_proj", Verdict.FAIL, mode=Mode.END_TO_END)
    wrong = result("lm_head", Verdict.FAIL)
    assert run(drift, wrong).first_wrong == Place("lm_head", "hello", "float32", Mode.ISOLATED)
    assert run(drift, result("lm_head")).first_wrong == Place(
        "layers.0.q_proj", "hello", "float32", Mode.END_TO_END
    )


def test_json_is_the_documented_contract() -> None:
    shown = json.loads(run(result("layers.0.q_proj", Verdict.FAIL)).to_json())
    assert shown.keys() == {
        "format", "golden", "port", "verdict", "counts", "first_wrong", "results", "explanations", "notes",
        "logits", "order", "digest", "recorded", "environment", "pictures",
    }  # fmt: skip
    assert shown["format"] == 1
    assert shown["counts"] == {"pass": 0, "fail": 1, "unmeasured": 0}
    assert shown["first_wrong"] == {
        "component": "layers.0.q_proj",
        "case": "hello",
        "dtype": "float32",
        "mode": "isolated",
    }
    assert shown["results"][0] == {
        "component": "layers.0.q_proj",
        "kind": "q_proj",
        "case": "hello",
        "dtype": "float32",
        "mode": "isolated",
        "verdict": "fail",
        "error": {"whole": 1.0, "row": 1.0, "channel": 1.0},
        "floor": {"whole": 1e-7, "row": 1e-7, "channel": 1e-7},
        "limit": {"whole": 4e-7, "row": 4e-7, "channel": 4e-7},
        "worst": {"index": [0, 3, 17], "port": 1.25, "golden": 0.5},
        "reason": "",
        "listed": "",
        "tolerance": "",
        "expected": "",
        "unexpected": "",
        "arisen": None,
    }


def test_numbers_that_json_does_not_know_come_back() -> None:
    written = run(
        result(verdict=Verdict.FAIL, error=Views(math.inf, 1.0, 2.0), worst=Worst([0], -math.inf, math.nan))
    )
    read = Run.from_json(written.to_json())
    assert read.results[0].error == Views(math.inf, 1.0, 2.0)
    assert read.results[0].worst is not None
    assert read.results[0].worst.port == -math.inf
    assert math.isnan(read.results[0].worst.golden)
    sound = run(result(), result("embed_tokens", Verdict.UNMEASURED))
    assert Run.from_json(sound.to_json()) == sound
    json.loads(written.to_json(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


@pytest.mark.parametrize(
    ("error", "limit", "expected"),
    [
        (Views(1, 2, 12), Views(1, 1, 4), 3.0),
        (Views(0, 0, 0), Views(0, 0, 0), 0.0),
        (Views(0, 1e-30, 0), Views(0, 0, 0), math.inf),
        (Views(math.nan, 0, 0), Views(1, 1, 1), math.inf),
    ],
    ids=["worst view", "exact and equal", "exact and not equal", "not a number"],
)
def test_error_over_limit(error: Views, limit: Views, expected: float) -> None:
    assert result(error=error, limit=limit).over_limit == expected


def test_listed_unmeasured() -> None:
    listed = parse_listed(["*.scores=fused attention has none", "lm_head = tied"])
    assert listed == {"*.scores": "fused attention has none", "lm_head": "tied"}
    assert with_listed(result(verdict=Verdict.UNMEASURED), listed).listed == "tied"
    assert with_listed(result("embed_tokens", Verdict.UNMEASURED), listed).listed == ""
    failed = result(verdict=Verdict.FAIL)
    assert with_listed(failed, listed) == failed


@pytest.mark.parametrize("spec", ["lm_head", "lm_head=", "=reason", ""])
def test_a_listing_needs_a_reason(spec: str) -> None:
    with pytest.raises(GoldensError, match="write it as GLOB=REASON"):
        parse_listed([spec])


def test_the_result_model_imports_nothing_heavy() -> None:
    code = (
        "import sys, harness.report.result, harness.report.wording;"
        "print([m for m in ('numpy', 'rich', 'h5py', 'jax', 'torch') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
