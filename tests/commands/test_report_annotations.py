"""`goldens report --annotations`, and reports in Markdown and JUnit XML from a kept run."""

from xml.etree import ElementTree as ET

import pytest

from harness.report.files import write_report
from tests.browser.runs import run


@pytest.fixture
def kept(tmp_path) -> str:
    write_report([run()], tmp_path / "run.json")
    return "run.json"


def test_annotations_go_to_stdout_and_need_no_other_report(goldens, kept, tmp_path) -> None:
    told = goldens("report", kept, "--annotations")
    assert (told.status, told.err) == (0, "")
    first = told.out.splitlines()[0]
    assert first.startswith("::error title=goldens/model.h5%3A layers.1.self_attn.q_proj fails::")
    assert "explained by: weight used without transposing" in first
    assert not list(tmp_path.glob("run.[!j]*"))


def test_one_command_writes_every_report(goldens, kept, tmp_path) -> None:
    told = goldens("report", kept, "-o", "run.md", "-o", "run.xml", "-o", "run.html", "--annotations")
    assert told.status == 0, told.err
    assert told.out.startswith("::error ")
    assert (
        (tmp_path / "run.md").read_text().startswith("## goldens: 1 golden file, 1 of them does not hold\n")
    )
    assert ET.parse(tmp_path / "run.xml").getroot().tag == "testsuites"


def test_nothing_asked_for_is_no_question(goldens, kept) -> None:
    told = goldens("report", kept)
    assert (told.status, told.out) == (2, "")
    assert told.err == "goldens: nothing to write: name a report with -o PATH, or ask for --annotations\n"
