"""What a person reads."""

import io

import msgspec
from rich.console import Console

from harness.model import Mode, Verdict, Views
from harness.report.result import Result, Run
from harness.report.terminal import show_run
from harness.report.wording import failure_line, finding, headline
from tests.harness.report.test_result import ORDER, result


def shown(*results: Result, by_kind: bool = False) -> str:
    console = Console(file=io.StringIO(), width=120, color_system=None)
    show_run(Run.from_results("tiny.h5", "port:make", results, ORDER), ORDER, console, by_kind)
    return console.file.getvalue()


def test_a_failure_stands_alone_in_its_first_line() -> None:
    failed = result("layers.0.q_proj", Verdict.FAIL, error=Views(0.31, 0.1, 0.1))
    assert failure_line(failed) == (
        "layers.0.q_proj   hello float32 isolated   FAIL   error 3.1e+06 x noise floor"
    )


def test_what_is_no_number_is_said_in_words() -> None:
    assert finding(result(verdict=Verdict.FAIL, error=None, reason="shape (2, 3), where (3, 2)")) == (
        "shape (2, 3), where (3, 2)"
    )
    assert "infinite" not in finding(result(verdict=Verdict.FAIL, error=Views(float("inf"), 0, 0)))


def test_where_the_first_failure_stands() -> None:
    failed = result("layers.2.q_proj", Verdict.FAIL)
    others = [result("embed_tokens"), result("layers.0.q_proj", Verdict.UNMEASURED), result("lm_head")]
    assert headline(failed, [failed, *others], ORDER) == (
        "first wrong component in forward order (1 of 4 before it pass, 1 unmeasured)"
    )


def test_an_end_to_end_failure_is_not_called_a_wrong_component() -> None:
    failed = result("lm_head", Verdict.FAIL, mode=Mode.END_TO_END)
    assert "replay isolated as well" in headline(failed, [failed], ORDER)
    agreed = headline(failed, [failed, result("lm_head")], ORDER)
    assert agreed.endswith("it passes by itself: drift, or wiring")
    composite = headline(failed, [failed, result("embed_tokens")], ORDER)
    assert composite.endswith("no component fails by itself: drift, or wiring")
    unknown = headline(failed, [failed, result("lm_head", Verdict.UNMEASURED)], ORDER)
    assert "it was not measured by itself" in unknown


def test_the_summary() -> None:
    text = shown(
        result("embed_tokens"),
        result("layers.0.q_proj", Verdict.FAIL),
        result("lm_head", Verdict.FAIL),
        result("layers.2.q_proj", Verdict.UNMEASURED, reason="the port does not offer this component"),
        result("layers.10.q_proj", Verdict.UNMEASURED, reason="no such step", listed="fused"),
    )
    assert "layers.0.q_proj   hello float32 isolated   FAIL" in text
    assert "first wrong component in forward order (1 of 5 before it pass)" in text
    assert "largest difference at [0, 3, 17]: port 1.25, golden 0.5" in text
    assert "unmeasured, float32 isolated: the port does not offer this component\n  layers.2.q_proj" in text
    assert "no such step; listed: fused\n  layers.10.q_proj" in text
    assert text.strip().endswith("tiny.h5: 1 pass, 2 fail, 2 unmeasured (1 listed)")


def test_one_row_a_dtype_and_mode_or_a_kind() -> None:
    results = [
        result("lm_head", error=Views(2e-7, 0, 0)),
        result("lm_head", mode=Mode.END_TO_END),
        result("lm_head", dtype="bfloat16"),
        result("embed_tokens", error=Views(1e-7, 0, 0)),
    ]
    rows = [line.split() for line in shown(*results).splitlines()]
    assert ["float32", "isolated", "2", "0", "0", "4e-07", "0.5", "lm_head", "(hello)"] in rows
    assert ["bfloat16", "isolated", "1", "0", "0", "4e-07", "0.25", "lm_head", "(hello)"] in rows
    by_kind = [line.split() for line in shown(*results, by_kind=True).splitlines()]
    assert [
        "float32",
        "isolated",
        "embed_tokens",
        "1",
        "0",
        "0",
        "4e-07",
        "0.25",
        "embed_tokens",
        "(hello)",
    ] in by_kind


def test_many_failures_are_counted_not_listed() -> None:
    fails = [result("lm_head", Verdict.FAIL, case=f"c{i}") for i in range(40)]
    assert "and 27 more that fail: --json lists all" in shown(*fails)


def test_where_rounding_explains_nearly_anything_a_pass_says_little() -> None:
    wide = Views(0.9, 0.9, 0.9)
    coarse = msgspec.structs.replace(result("lm_head", mode=Mode.END_TO_END, dtype="bfloat16"), limit=wide)
    assert "bfloat16 end-to-end: rounding explains errors of up to 90% of a tensor" in shown(coarse)
    assert "rounding explains" not in shown(result("lm_head"))


def test_what_follows_from_a_wrong_component_is_a_number() -> None:
    text = shown(
        result("layers.0.q_proj", Verdict.FAIL),
        *(result(name, Verdict.FAIL, mode=Mode.END_TO_END) for name in ("layers.0.q_proj", "lm_head")),
        result("embed_tokens", mode=Mode.END_TO_END),
    )
    assert "end to end 2 of 3 fail, the first at layers.0.q_proj" in text
    assert "lm_head   hello" not in text
