"""The mistake of the story: square projections left untransposed. Every shape is right."""

import importlib.util
import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.commandline import tell
from tests.documents import alike, words

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def replayed():
    asked = ("--port", "tests.ports:seed_rule", "--case", "left-padded", "--json")
    told = tell(ROOT, "replay", "goldens/qwen2-tiny.h5", *asked)
    assert told.status == 1, told.err
    return json.loads(told.out)


def failed(run, mode, dtype):
    return {
        result["component"]
        for result in run["results"]
        if (result["verdict"], result["mode"], result["dtype"]) == ("fail", mode, dtype)
    }


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_isolated_it_is_the_square_projections_and_nothing_else(replayed, dtype):
    square = {f"layers.{n}.self_attn.{part}" for n in range(3) for part in ("q_proj", "o_proj")}
    assert failed(replayed, "isolated", dtype) == square


def test_the_first_wrong_component_is_named(replayed):
    assert replayed["first_wrong"]["component"] == "layers.0.self_attn.q_proj"
    assert replayed["first_wrong"]["mode"] == "isolated"


def test_end_to_end_the_same_one_fails_first(replayed):
    order = [result["component"] for result in replayed["results"]]
    assert min(failed(replayed, "end-to-end", "float32"), key=order.index) == "layers.0.self_attn.q_proj"


def test_the_error_is_a_mistake_and_no_rounding(replayed):
    errors = [
        result["error"]["whole"] / result["limit"]["whole"]
        for result in replayed["results"]
        if result["kind"] == "q_proj" and (result["mode"], result["dtype"]) == ("isolated", "float32")
    ]
    assert min(errors) > 1e4


PAGE = ROOT / "docs" / "phase-3a1.md"


@pytest.fixture(scope="module")
def told():
    """The page as `make story` writes it; the commands are run in this process, which takes half as long."""
    spec = importlib.util.spec_from_file_location("make_phase_3a1", ROOT / "docs" / "make_phase_3a1.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    class Here(module.Shell):
        def run(self, *arguments, status=0):
            told = tell(self._folder, *arguments, columns=module.WIDTH)
            assert told.status == status, told.err
            return subprocess.CompletedProcess(arguments, status, told.out, told.err)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "Shell", Here)
        return module.page()


@pytest.mark.slow
def test_the_page_is_what_is_found(told):
    made, kept = words(told), words(PAGE.read_text(encoding="utf-8"))
    assert [(a, b) for a, b in zip(made, kept, strict=False) if not alike(a, b)] == []
    assert len(made) == len(kept)


def section(page, heading):
    return page[page.index(f"## {heading}") :].split("\n## ")[0]


def rows(page, heading):
    """The first cell of each row of a section's table -> its other cells."""
    lines = [line for line in section(page, heading).splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    return {row[0]: row[1:] for row in cells}


@pytest.mark.slow
def test_the_embedding_is_equal_and_the_square_projections_are_wrong(told):
    found = {name.strip("`"): cells for name, cells in rows(told, "Replay").items()}
    assert found["embed_tokens"][0] == "0"
    assert [name for name, cells in found.items() if cells[-1] == "fail"] == [
        "layers.0.self_attn.q_proj",
        "layers.0.self_attn.o_proj",
    ]


@pytest.mark.slow
def test_what_the_notes_suspected_passes_where_it_can_be_seen(told):
    suspects = rows(told, "RoPE, GQA and softmax were right")
    assert len(suspects) == 6
    assert {cells[2] for cells in suspects.values()} == {"0"}
    assert all(int(cells[1]) > 0 for cells in suspects.values())


@pytest.mark.slow
def test_the_cause_is_named_and_one_token_is_told_of(told):
    replay = section(told, "Replay")
    assert "explained by: weight used without transposing" in replay
    assert "this case has one token: this failure says nothing of RoPE, mask, scores and softmax" in replay
    assert rows(told, "Before and after")["cause"] == ["`weight_not_transposed`", "nothing to explain"]


def test_what_the_page_on_diagnosis_shows_is_what_is_told():
    page = (ROOT / "docs" / "diagnosis.md").read_text(encoding="utf-8")
    shown = re.findall(r"^    \$ goldens (\w+ goldens/.*)\n((?:    .*\n|\n)+)", page, re.MULTILINE)
    (command, output), *_ = shown
    made, kept = words(tell(ROOT, *command.split(), columns=114).out), words(output)
    assert [(a, b) for a, b in zip(made, kept, strict=False) if not alike(a, b)] == []
    assert len(made) == len(kept)
