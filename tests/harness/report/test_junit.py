"""A run as JUnit XML: as CI servers read it."""

from xml.etree import ElementTree as ET

import pytest
from msgspec.structs import replace

from harness.model import Verdict
from harness.report.junit import render
from harness.report.result import Run
from tests.browser import runs
from tests.harness.report.test_result import ORDER, result


def read(*given: Run) -> ET.Element:
    return ET.fromstring(render(given).encode())


def concluded(*results, **changes) -> Run:
    return replace(Run.from_results("goldens/tiny.h5", "port:make", results, ORDER), **changes)


def test_a_suite_for_each_golden_file_and_a_case_for_each_comparison() -> None:
    suites = read(runs.run(), concluded(result()))
    assert [suite.get("name") for suite in suites] == [
        "goldens/model.h5 on my_port:make",
        "goldens/tiny.h5 on port:make",
    ]
    first = suites[0]
    cases = first.findall("testcase")
    assert int(first.get("tests")) == len(cases) == len(runs.run().results)
    assert int(suites.get("tests")) == len(cases) + 1
    names = {(case.get("classname"), case.get("name")) for case in cases}
    assert len(names) == len(cases)
    assert ("model/hello/float32/isolated", "layers.1.self_attn.q_proj") in names
    assert first.get("timestamp") == "2026-11-26T18:02:11+00:00"
    told = {each.get("name"): each.get("value") for each in first.find("properties")}
    assert told["goldens.verdict"] == "fail"
    assert told["recorded: versions"] == "torch 2.13.0"


def test_outcomes() -> None:
    suite = read(
        concluded(
            result("embed_tokens"),
            result("layers.0.q_proj", Verdict.FAIL),
            result("layers.2.q_proj", Verdict.FAIL, expected="known"),
            result("layers.10.q_proj", Verdict.UNMEASURED, reason="no such step", listed="fused"),
            result("lm_head", Verdict.UNMEASURED, reason="not offered"),
        )
    )[0]
    outcomes = {
        case.get("name"): next((child.tag for child in case if child.tag != "properties"), "passed")
        for case in suite.findall("testcase")
    }
    assert outcomes == {
        "embed_tokens": "passed",
        "layers.0.q_proj": "failure",
        "layers.2.q_proj": "skipped",
        "layers.10.q_proj": "skipped",
        "lm_head": "failure",
    }
    assert [suite.get(name) for name in ("tests", "failures", "errors", "skipped")] == ["5", "2", "0", "2"]
    failed, expected, listed, unmeasured = (
        next(child for child in case if child.tag != "properties") for case in suite.findall("testcase")[1:]
    )
    assert failed.get("message").startswith("layers.0.q_proj   hello float32 isolated   FAIL   error 1e+07 x")
    assert "again: goldens replay goldens/tiny.h5 --port port:make --include layers.0.q_proj" in failed.text
    assert expected.get("message").startswith("expected to fail: known (error 1e+07")
    assert listed.get("message") == "unmeasured: no such step; listed: fused"
    assert unmeasured.get("type") == "unmeasured"


def test_an_explanation_and_numbers_stand_with_the_failure() -> None:
    case = next(case for case in read(runs.run())[0].iter("testcase") if case.find("failure") is not None)
    assert "explained by: weight used without transposing" in case.find("failure").text
    told = {each.get("name"): each.get("value") for each in case.find("properties")}
    assert told["goldens.kind"] == "q_proj"
    assert float(told["goldens.error_over_limit"]) > 1


@pytest.mark.parametrize(
    "run",
    [
        concluded(),
        concluded(result("lm_head", Verdict.UNMEASURED, listed="fused", reason="no such step")),
        concluded(result(), verdict=Verdict.FAIL, notes=["incomplete: a worker process crashed"]),
    ],
    ids=["nothing", "only listed", "incomplete"],
)
def test_what_does_not_hold_is_never_all_green(run: Run) -> None:
    suite = read(run)[0]
    assert suite.get("errors") == "1"
    assert (
        suite.find("testcase/error")
        .get("message")
        .endswith(run.notes[0] if run.notes else "nothing was compared that could pass")
    )


def test_what_xml_cannot_hold() -> None:
    nasty = "a\x00\x1b[31m<&>\"'\ud800 ]]> \n b"
    failed = result("lm_head", Verdict.FAIL, reason=nasty, case=nasty)
    case = read(concluded(failed, notes=[nasty]))[0].find("testcase")
    assert "a\\u0000\\u001b[31m<&>\"'\\ud800 ]]> \n b" in case.find("failure").get("message")
