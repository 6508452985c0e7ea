"""The page without a browser: what its data says, how it is laid out, and that it needs nothing else."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from harness.model import Verdict
from harness.report.html.encode import State, code, encoded, number, state
from harness.report.html.layout import Column, layout
from harness.report.html.page import render
from harness.report.result import Result
from tests.browser.runs import WRONG, run

NOTHING = -1


def test_a_model_as_layers_by_components() -> None:
    names = ["embed", "blocks.0.attn.q", "blocks.0.mlp", "blocks.0", "blocks.1.attn.k", "blocks.1", "norm"]
    found = layout(names, dict.fromkeys(names, "layer"))
    assert found.columns == [
        Column("attn", "q"),
        Column("", "mlp"),
        Column("", "(layer)"),
        Column("attn", "k"),
    ]
    assert [layer.name for layer in found.layers] == ["blocks.0", "blocks.1"]
    assert [layer.cells for layer in found.layers] == [[1, 2, 3, NOTHING], [NOTHING, NOTHING, 5, 4]]
    assert (found.before, found.after) == ([0], [6])


def test_layers_of_two_stacks_are_told_apart() -> None:
    names = ["encoder.0.q", "decoder.0.q"]
    assert [layer.name for layer in layout(names, {}).layers] == ["encoder.0", "decoder.0"]


def test_a_model_without_layers() -> None:
    found = layout(["embed", "norm"], {})
    assert (found.layers, found.before + found.after) == ([], [0, 1])


@given(st.floats(1e-19, 1e19))
def test_two_bytes_tell_three_digits(value: float) -> None:
    assert 10 ** ((code(value) - 1) / 1600 - 20) == pytest.approx(value, rel=1e-3)


def test_what_is_no_positive_number_has_a_code_of_its_own() -> None:
    assert [code(value) for value in (0.0, float("inf"), float("nan"))] == [0, 65534, 65534]
    assert 0 < code(1e-300) < code(1e300) < 65534


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"verdict": Verdict.PASS}, State.PASS),
        ({"verdict": Verdict.FAIL}, State.FAIL),
        ({"verdict": Verdict.FAIL, "expected": "known"}, State.EXPECTED),
        ({"verdict": Verdict.UNMEASURED}, State.UNMEASURED),
        ({"verdict": Verdict.UNMEASURED, "listed": "fused"}, State.LISTED),
    ],
)
def test_states(changes, shown: State) -> None:
    assert state(replace(run().results[0], **changes)) is shown


def test_numbers_that_json_does_not_know() -> None:
    assert [number(value) for value in (float("nan"), float("-inf"), 1.23456789012)] == [
        "nan",
        "-inf",
        1.23456789,
    ]
    made = run()
    strange = replace(made.results[0], worst=replace(made.results[0].worst, port=float("nan")))
    text = render([replace(made, results=[strange, *made.results[1:]])])
    data = re.search(r'<script type="application/json" class="data">(.*?)</script>', text, re.S)
    assert data is not None
    json.loads(data[1], parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_every_text_is_there_once() -> None:
    made = run()
    long = "a long reason that many results share"
    results = [replace(r, reason=long) if r.verdict is Verdict.FAIL else r for r in made.results]
    assert json.dumps(encoded(replace(made, results=results))).count(long) == 1


def test_a_page_needs_nothing_but_itself() -> None:
    text = render([run()])
    assert not re.search(r"""(src|href)\s*=\s*["']?(?!#)""", text)
    assert "@import" not in text
    assert set(re.findall(r"https?://[^\s\"']+", text)) == {"http://www.w3.org/2000/svg"}


def test_what_comes_from_files_and_users_is_escaped() -> None:
    evil = "</script><b onmouseover=alert(1)>"
    made = run(golden=evil, port=evil, notes=[evil], recorded={evil: evil}, cases=(evil,))
    text = render(
        [replace(made, results=[*made.results, _named(made.results[0], evil)], order=[*made.order, evil])]
    )
    assert evil not in text
    assert "<b onmouseover" not in text


def _named(result: Result, evil: str) -> Result:
    return replace(result, component=evil, kind=evil, verdict=Verdict.FAIL, reason=evil)


def test_words_of_the_headline() -> None:
    text = render([run()])
    assert "first wrong component in forward order" in text
    assert WRONG.replace(".", ".<wbr>") in text
    passing = render([run(wrong="none")])
    assert "nearest to its limit, at 0." in passing
