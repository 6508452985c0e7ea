"""The hypothesis that docs/diagnosis.md adds is one, and names what it says."""

import re
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from harness.audit.catalogue.table import OF_PASSES as FAULTS
from harness.diagnose import problem
from harness.kinds.table import STEPS
from tests.harness.diagnose.places import place

PAGE = (Path(__file__).parents[3] / "docs" / "diagnosis.md").read_text(encoding="utf-8")


@pytest.fixture
def hard_swish():
    (example,) = re.findall(
        r"^    from harness\.kinds\.step.*?\n\n(?=Put it into)", PAGE, re.DOTALL | re.MULTILINE
    )
    made = {}
    exec(textwrap.dedent(example), made)
    return made["HARD_SWISH"]


def said():
    (fault,) = (fault for fault in FAULTS if fault.name == "hard-swish")
    return place("qwen2-tiny").diagnosed(fault.planting)


def test_the_example_names_what_had_no_name(hard_swish, monkeypatch):
    assert all(e.text.startswith("unexplained: ") for e in said().explanations)
    silu = STEPS["silu"]
    added = replace(silu, hypotheses=(*silu.hypotheses, hard_swish))
    monkeypatch.setattr(problem, "STEPS", {**STEPS, "silu": added})
    explanations = said().explanations
    assert len(explanations) == 3
    assert {(*e.hypotheses, e.text) for e in explanations} == {("hard_swish", "hard swish instead of SiLU")}


def test_the_example_names_nothing_else(hard_swish, monkeypatch):
    added = replace(STEPS["silu"], hypotheses=(hard_swish,))
    monkeypatch.setattr(problem, "STEPS", {**STEPS, "silu": added})
    for fault in FAULTS:
        if fault.name in ("gelu", "quick-gelu", "relu", "activation-clipped"):
            assert place("qwen2-tiny").diagnosed(fault.planting).names == set()
