"""What markers, fixtures and pytest's settings say wrongly."""

from pathlib import Path

from tests.misuse.misuse import Misuse, Section

_TEST = """
import pytest
{above}
@pytest.mark.goldens({marker})
def test_component(goldens, port):
    {body}
"""
USAGE, COLLECTION, FAILED = 4, 2, 1


def _marked(marker: str, above: str = "", body: str = "goldens.check(port)") -> dict[str, str]:
    return {"test_parity.py": _TEST.format(marker=marker, above=above, body=body)}


def _wrong(what: str, marker: str, says: str) -> Misuse:
    return Misuse(what, "pytest", says, files=_marked(marker), status=COLLECTION)


def _set(what: str, setting: str, value: str, says: str) -> Misuse:
    files = _marked('"tiny.h5"') | {"pytest.ini": f"[pytest]\n{setting} = {value}\n"}
    return Misuse(what, "pytest", says, files=files, status=USAGE)


def _no_port(project: Path) -> None:
    (project / "pyproject.toml").write_text("")


MARKERS = Section(
    "Markers of pytest",
    "Told at collection: no test runs (pytest's status 2).",
    (
        _wrong(
            "no golden file",
            "",
            "the marker goldens names no golden file: write goldens(file, ..., include=, exclude=, cases=, dtypes=, modes=, unmeasured=, rtol=, atol=, reason=, checkpoint=)",
        ),
        _wrong(
            "a golden file that is no text",
            "3",
            "the marker goldens takes names of golden files, not 3: write goldens(file, ..., include=, exclude=, cases=, dtypes=, modes=, unmeasured=, rtol=, atol=, reason=, checkpoint=)",
        ),
        _wrong(
            "an argument that there is not",
            '"tiny.h5", layers="0"',
            "the marker goldens knows no 'layers'; nearest: dtypes: write goldens(file, ..., include=, exclude=, cases=, dtypes=, modes=, unmeasured=, rtol=, atol=, reason=, checkpoint=)",
        ),
        _wrong(
            "a component that is no text",
            '"tiny.h5", include=3',
            "the marker goldens takes text, or a list of texts, for include, not 3",
        ),
        _wrong(
            "a selection of nothing",
            '"tiny.h5", include=[]',
            "the marker goldens with include=[] selects nothing: name one, or leave include= out",
        ),
        _wrong(
            "a mode that there is not",
            '"tiny.h5", modes="backwards"',
            "the marker goldens knows no mode 'backwards': it has isolated, end-to-end, decode",
        ),
        _wrong(
            "a mode that nothing selected has",
            '"tiny.h5", include="layers.0", modes="isolated"',
            "nothing that the marker selects has a golden for isolated replay",
        ),
        _wrong(
            "what may stay unmeasured, without a reason",
            '"tiny.h5", unmeasured={"*.act": ""}',
            "the marker goldens takes unmeasured={'GLOB': 'REASON'}, a reason for each",
        ),
        _wrong(
            "a tolerance without a reason",
            '"tiny.h5", include="lm_head", rtol=0.1',
            "the marker goldens takes rtol=, with or without atol=, together with reason='WHY'",
        ),
        _wrong(
            "a tolerance that is no number",
            '"tiny.h5", include="lm_head", rtol="loose", reason="known"',
            "the marker goldens takes a number for rtol, not 'loose'",
        ),
        _wrong(
            "a tolerance that is none",
            '"tiny.h5", include="lm_head", rtol=3, reason="known"',
            "the marker goldens: rtol is 3, expected a number between 0 and 1: at 1, zeros pass",
        ),
        _wrong(
            "a tolerance for everything",
            '"tiny.h5", rtol=0.1, reason="known"',
            "the marker goldens with rtol= selects every component of tiny.h5, and no tolerance is one for all: name some with include=",
        ),
        _wrong(
            "a checkpoint that is no text",
            '"tiny.h5", checkpoint=3',
            "the marker goldens takes checkpoint='FOLDER', not 3",
        ),
        Misuse(
            "two markers",
            "pytest",
            "test_component has the marker goldens 2 times: name all files in one marker, or write a test for each",
            files=_marked('"tiny.h5"', '@pytest.mark.goldens("tiny.h5")'),
            status=COLLECTION,
        ),
    ),
)

SETTINGS = Section(
    "Settings of pytest",
    "Usage errors: pytest's status 4, before anything is collected.",
    (
        _set(
            "a word that is not known, for missing golden files",
            "goldens_missing",
            "ignore",
            "goldens_missing = ignore: expected one of fail, skip",
        ),
        _set(
            "margins that are no number",
            "goldens_margins",
            "few",
            "goldens_margins is 'few': expected a number of comparisons to show",
        ),
        Misuse(
            "a flag's word that is not known",
            "pytest --goldens-unused=maybe",
            "argument --goldens-unused: invalid choice: 'maybe' ...",
            files=_marked('"tiny.h5"'),
            status=USAGE,
        ),
    ),
)

TESTS = Section(
    "Tests that compare nothing",
    "They fail: a test that cannot fail is worse than none.",
    (
        Misuse(
            "a golden file that is not there",
            "pytest",
            "there is no golden file tinny.h5: record it with `goldens record SUITE.toml -o tinny.h5`, or say with goldens_dir where golden files lie",
            files=_marked('"tinny.h5"'),
            status=FAILED,
        ),
        Misuse(
            "a marked test that compares nothing",
            "pytest",
            "marked with goldens, and nothing was compared: call goldens.check(port)",
            files=_marked('"tiny.h5", include="lm_head"', body="pass"),
            status=FAILED,
        ),
        Misuse(
            "the fixture without a marker",
            "pytest",
            'test_parity.py::test_component uses the fixture `goldens` and has no marker: add @pytest.mark.goldens("FILE.h5")',
            files={"test_parity.py": "def test_component(goldens, port):\n    goldens.check(port)\n"},
            status=FAILED,
        ),
        Misuse(
            "no port in the settings",
            "pytest",
            "no port is named: set goldens_port in pytest's settings, or port under [tool.goldens] in pyproject.toml, or define a fixture `port`",
            files=_marked('"tiny.h5", include="lm_head"'),
            change=_no_port,
            status=FAILED,
        ),
        Misuse(
            "an object that is no port",
            "pytest",
            "goldens.check was given a dict, which has no method 'trace'",
            files=_marked('"tiny.h5", include="lm_head"', body="goldens.check({})"),
            status=FAILED,
        ),
        Misuse(
            "a checkpoint for a port that is made",
            "pytest",
            "the marker names checkpoint='checkpoint', and goldens.check was given a NumpyPort that is made already: leave checkpoint= out, or name the port in the settings",
            files=_marked(
                '"tiny.h5", include="lm_head", checkpoint="checkpoint"',
                "from tests.fakes import NumpyPort",
                "goldens.check(NumpyPort())",
            ),
            status=FAILED,
        ),
        Misuse(
            "a port that raises",
            "pytest",
            "the port raised RuntimeError: no such head   lm_head   hello float32 isolated   FAIL",
            files=_marked(
                '"tiny.h5", include="lm_head", modes="isolated"',
                "from tests.fakes import NumpyPort\nclass Odd(NumpyPort):\n    def apply(self, name, inputs):\n        raise RuntimeError('no such head')",
                "goldens.check(Odd())",
            ),
            status=FAILED,
        ),
    ),
)
