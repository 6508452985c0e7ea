"""What `--junitxml` tells of a comparison."""

import xml.etree.ElementTree as ET
from collections.abc import Callable

import pytest

pytest_plugins = ["pytester"]
Run = Callable[..., pytest.RunResult]
ONE = 'cases="hello", dtypes="float32", modes="isolated"'


def properties(project: pytest.Pytester) -> dict[str, dict[str, str]]:
    """By the name of the test, without what all of them share."""
    found = {}
    for case in ET.parse(project.path / "junit.xml").iter("testcase"):
        told = {each.attrib["name"]: each.attrib["value"] for each in case.iter("property")}
        found[case.attrib["name"].rpartition("/")[2].rstrip("]")] = told
    return found


@pytest.mark.parametrize("processes", [[], ["-p", "xdist.plugin", "-n1"]], ids=["serial", "xdist"])
def test_each_comparison_has_its_properties(
    project: pytest.Pytester, parity: Run, processes: list[str]
) -> None:
    parity("--junitxml=junit.xml", *processes, factory="make_faulty", keywords=ONE)
    told = properties(project)
    assert len(told) == 4
    wrong = told["layers.0.q_proj"]
    assert float(wrong.pop("goldens.error_over_limit")) > 1e5
    assert float(wrong.pop("goldens.error_over_floor")) > 1e5
    assert wrong == {
        "goldens.golden": "tiny.h5",
        "goldens.component": "layers.0.q_proj",
        "goldens.kind": "q_proj",
        "goldens.case": "hello",
        "goldens.dtype": "float32",
        "goldens.mode": "isolated",
        "goldens.verdict": "fail",
    }
    assert told["lm_head"]["goldens.verdict"] == "pass"
    assert float(told["lm_head"]["goldens.error_over_limit"]) == 0


def test_what_was_not_compared_number_by_number_has_no_error(project: pytest.Pytester, parity: Run) -> None:
    parity("--junitxml=junit.xml", factory="make_partial", keywords=ONE)
    told = properties(project)["layers.0.act"]
    assert told["goldens.verdict"] == "unmeasured"
    assert "goldens.error_over_limit" not in told


def test_other_tests_have_none(project: pytest.Pytester) -> None:
    project.makepyfile("def test_it(record_property):\n    record_property('own', 1)\n")
    project.runpytest("--junitxml=junit.xml")
    assert properties(project) == {"test_it": {"own": "1"}}
