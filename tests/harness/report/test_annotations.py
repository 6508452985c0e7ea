"""A run as workflow commands of GitHub Actions."""

import re

from msgspec.structs import replace

from harness.model import Mode, Verdict
from harness.report.annotations import SHOWN, annotations
from harness.report.result import Explanation, Run
from tests.harness.report.test_result import ORDER, result

COMMAND = re.compile(r"::(?P<kind>error|notice) title=(?P<title>[^:,]*)::(?P<message>.*)")


def told(*given: Run) -> list[dict[str, str]]:
    """Each line as the runner takes it apart."""
    matched = [COMMAND.fullmatch(line) for line in annotations(given)]
    assert all(matched)
    return [{name: read(value) for name, value in match.groupdict().items()} for match in matched]


def read(escaped: str) -> str:
    for code, character in (("%0A", "\n"), ("%0D", "\r"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
        escaped = escaped.replace(code, character)
    return escaped


def concluded(*results, **changes) -> Run:
    return replace(Run.from_results("tiny.h5", "port:make", results, ORDER), **changes)


def test_what_holds_says_nothing() -> None:
    listed = result("lm_head", Verdict.UNMEASURED, reason="no such step", listed="fused")
    expected = result("lm_head", Verdict.FAIL, expected="known")
    assert told(concluded(result("embed_tokens"), listed, expected)) == []
    (only,) = told(concluded(result("embed_tokens", Verdict.FAIL), listed, expected))
    assert only["title"] == "tiny.h5: embed_tokens fails"


def test_the_first_wrong_component_comes_first_with_what_explains_it() -> None:
    run = concluded(
        result("lm_head", Verdict.FAIL),
        result("layers.0.q_proj", Verdict.FAIL),
        result("lm_head", Verdict.FAIL, mode=Mode.END_TO_END),
        explanations=[Explanation("layers.0.q_proj", ["x"], "the bias is left out", 0.9)],
    )
    first, second = told(run)
    assert first["kind"] == "error"
    assert first["title"] == "tiny.h5: layers.0.q_proj fails"
    assert first["message"].splitlines() == [
        "layers.0.q_proj   hello float32 isolated   FAIL   error 1e+07 x noise floor",
        "first wrong component in forward order (0 of 2 before it pass)",
        "explained by: the bias is left out: error falls to 0.9 x noise floor",
    ]
    assert second["title"] == "tiny.h5: lm_head fails"


def test_so_many_as_are_shown_the_first_of_each_run_before_all_others() -> None:
    many = concluded(*(result("lm_head", Verdict.FAIL, case=f"c{i}") for i in range(40)))
    commands = told(many, replace(many, golden="other.h5"))
    assert [command["kind"] for command in commands] == ["error"] * SHOWN + ["notice"]
    assert commands[1]["title"] == "other.h5: lm_head fails"
    assert commands[-1]["message"] == "70 more that do not pass are not annotated: see the report"


def test_a_run_that_does_not_hold_for_another_reason() -> None:
    unmeasured = concluded(result("lm_head", Verdict.UNMEASURED, reason="not offered"))
    incomplete = concluded(result(), verdict=Verdict.FAIL, notes=["incomplete: a worker crashed"])
    titles = [command["title"] for command in told(unmeasured, incomplete, concluded())]
    assert titles == ["tiny.h5: lm_head is unmeasured", "tiny.h5 does not hold", "tiny.h5 does not hold"]


def test_nothing_in_it_ends_the_command_or_begins_another() -> None:
    nasty = "100%0A,\r\n::set-output name=a::b"
    run = concluded(result("lm_head", Verdict.FAIL, reason=nasty), golden=nasty)
    (line,) = annotations([run])
    assert len(line.splitlines()) == 1
    (command,) = told(run)
    assert command["title"] == f"{nasty}: lm_head fails"
    assert nasty in command["message"]
