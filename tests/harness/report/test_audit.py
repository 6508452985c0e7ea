"""What a person reads of an audit."""

import io

from rich.console import Console

from harness.audit.outcome import Audit, FaultResult, Naming, Verdict
from harness.report.audit import show_audit, show_score


def result(fault, verdict=Verdict.CAUGHT, area="scores", **more):
    if verdict is Verdict.CAUGHT:
        more = {"mode": "isolated", "first": "lm_head", "planted": True, "naming": Naming.NAMED} | more
    return FaultResult(fault, area, f"{fault} is wrong", "answer", verdict, **more)


def audit(*results, golden="one.h5"):
    return Audit.from_results(golden, "port:make", "float32", results)


def shown(*audits, every=False, required=None):
    console = Console(file=io.StringIO(), width=120, color_system=None)
    for one in audits:
        show_audit(one, audits, console, every)
    show_score(audits, console, required)
    return console.file.getvalue()


def row(text, area):
    [line] = [line for line in text.splitlines() if line.startswith(area)]
    return line.removeprefix(area).split()


FOUND = audit(
    result("a", hypotheses=["scale_missing"], text="not scaled"),
    result("b", naming=Naming.ONE_OF, hypotheses=["x", "y"], text="one of: x; y"),
    result("c", naming=Naming.NOT_NAMED, mode="end-to-end", planted=False),
    result("d", Verdict.MISSED, reason="makes no difference"),
    result("e", Verdict.EQUIVALENT, reason="It is the same thing."),
    result("f", Verdict.NOT_PLANTED, reason="the port does not offer `apply`"),
    result(
        "g", area="weights", naming=Naming.WRONG, misnamed="layers.1.q_proj: not scaled", text="unexplained"
    ),
    result("h", area="weights", mode="loading", first="", naming=Naming.NONE, text="it refused"),
)


def test_a_row_for_each_area() -> None:
    text = shown(FOUND)
    assert text.splitlines()[0] == "one.h5   float32   port:make"
    assert row(text, "scores ") == ["3", "1", "1", "1", "1", "1", "0", "isolated", "2,", "end-to-end", "1"]
    assert row(text, "weights ") == ["2", "0", "0", "0", "0", "0", "1", "isolated", "1,", "loading", "1"]


def test_the_last_line_has_the_counts() -> None:
    assert (
        "one.h5: 5 caught, 1 missed, 1 equivalent, 1 not planted; first wrong component right for 3 of 4; score 83.3%"
        in shown(FOUND).splitlines()
    )


def test_what_is_missed_says_why_and_what_is_caught_only_if_asked() -> None:
    lines = shown(FOUND).splitlines()
    assert lines[lines.index("missed  d: d is wrong") + 1] == "  makes no difference"
    assert lines[lines.index("equivalent  e: e is wrong") + 1] == "  It is the same thing."
    assert not [line for line in lines if line.startswith(("caught  ", "not planted  "))]
    every = shown(FOUND, every=True).splitlines()
    assert "caught  a: isolated at lm_head; scale_missing: not scaled" in every
    assert "caught  b: isolated at lm_head; x, y: one of: x; y" in every
    assert "caught  h: loading; no name: it refused" in every
    assert every[every.index("not planted  f: f is wrong") + 1] == "  the port does not offer `apply`"


def test_a_wrong_name_is_shown_with_the_component_that_has_it() -> None:
    assert "named wrongly  g: g is wrong; said of layers.1.q_proj: not scaled" in shown(FOUND).splitlines()


def test_another_file_that_catches_it_is_named() -> None:
    other = audit(result("d", cases=["far"]), result("e", cases=["far"]), golden="two.h5")
    text = shown(FOUND, other)
    assert "  makes no difference; caught with two.h5 (far)" in text.splitlines()
    assert "  It is the same thing.\n" in text
    assert text.rstrip().endswith("score 100.0%")


def test_the_score_stands_beside_the_one_that_is_required() -> None:
    assert shown(FOUND).splitlines()[-1] == "8 faults, 1 not planted: score 83.3%"
    assert shown(FOUND, required=99.5).splitlines()[-1].endswith(": score 83.3%, 99.5 % required")


def test_of_several_files_a_fault_that_one_of_them_plants_is_planted() -> None:
    other = audit(result("f"), result("g", Verdict.NOT_PLANTED), golden="two.h5")
    assert shown(FOUND, other).splitlines()[-1].startswith("8 faults, 0 not planted: ")
