"""`goldens replay` with a tolerance file: what it lets pass, what it expects to fail, and how it says so."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import fakes
from tests.commandline import Told, runner

REPLAY = ("replay", "tiny.h5", "--port", "tests.fakes:make_faulty", "--dtype", "float32", "--case", "hello")
ISOLATED = (*REPLAY, "--mode", "isolated")
LOOSE = '[[tolerance]]\ncomponent = "layers.0.q_proj"\nrtol = 0.2\nreason = "ten percent is nothing"\n'
EXPECTED = '[[expected_failure]]\ncomponent = "layers.0.q_proj"\nreason = "known"\n'


@pytest.fixture
def goldens(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., Told]:
    """Run `goldens` in a project with `tiny.h5`. `layers.0.q_proj` of its port is wrong by ten percent."""
    checkpoint = fakes.write_checkpoint(tmp_path / "checkpoint")
    fakes.write_golden(tmp_path / "tiny.h5", ("float32", "bfloat16"), ("hello", "padded"), checkpoint)
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / "goldens").mkdir()
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    monkeypatch.chdir(tmp_path)
    return runner(monkeypatch, capsys)


def usual(text: str) -> None:
    Path("goldens/tolerances.toml").write_text(text)


def refused(told: Told) -> str:
    assert (told.status, told.out) == (2, ""), told
    assert told.err.count("\n") == 1, told.err
    return told.err


def test_a_row_lets_pass_and_says_who(goldens: Callable[..., Told]) -> None:
    assert goldens(*ISOLATED).status == 1
    usual(LOOSE)
    told = goldens(*ISOLATED)
    assert told.status == 0, told.out
    row = "rtol = 0.2 by goldens/tolerances.toml, tolerance[0] (layers.0.q_proj): ten percent is nothing"
    assert f"allowed: {row}\n  layers.0.q_proj\n" in told.out
    results = json.loads(goldens(*ISOLATED, "--json").out)["results"]
    assert {r["component"]: r["tolerance"] for r in results if r["tolerance"]} == {"layers.0.q_proj": row}
    (loosened,) = (r for r in results if r["tolerance"])
    assert set(loosened["limit"].values()) == {0.2}
    assert loosened["verdict"] == "pass"


def test_what_is_printed_is_what_passes(goldens: Callable[..., Told]) -> None:
    told = goldens(*ISOLATED)
    (rtol,) = re.findall(r"  would pass with rtol = (\S+), 1e\+06 times its noise floor", told.out)
    usual(LOOSE.replace("0.2", rtol))
    assert goldens(*ISOLATED).status == 0


def test_each_failure_says_what_it_would_pass_with(goldens: Callable[..., Told]) -> None:
    told = goldens(*REPLAY, "--mode", "end-to-end")
    assert told.out.count("FAIL") == told.out.count("  would pass with rtol = ") == 4


def test_a_row_that_tightens_fails_what_passed(goldens: Callable[..., Told]) -> None:
    usual(LOOSE.replace("layers.0.q_proj", "layers.0").replace("0.2", "1e-9"))
    usual_mode = ("--include", "layers.0", "--mode", "end-to-end")
    assert goldens(*REPLAY, *usual_mode).status == 1
    usual(LOOSE.replace("layers.0.q_proj", "layers.0"))
    assert goldens(*REPLAY, *usual_mode).status == 0


@pytest.mark.parametrize("kind", ["option", "setting", "setting below"])
def test_where_the_file_is(goldens: Callable[..., Told], monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Each goes before the usual place, whose file would be refused."""
    usual("nonsense")
    Path("mine.toml").write_text(LOOSE)
    if kind == "option":
        assert goldens(*ISOLATED, "--tolerances", "mine.toml").status == 0
        assert goldens("explain", *REPLAY[1:], "--tolerances", "mine.toml").status == 1
        return
    Path("pyproject.toml").write_text('[tool.goldens]\ntolerances = "mine.toml"\n')
    if kind == "setting below":
        Path("below").mkdir()
        monkeypatch.chdir("below")
        Path("tiny.h5").symlink_to("../tiny.h5")
    assert goldens(*ISOLATED).status == 0


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (LOOSE + "expires = 2020-02-03", "tolerance[0] (layers.0.q_proj) expired on 2020-02-03: remove it"),
        (EXPECTED + "expires = 2020-02-03", "expected_failure[0] (layers.0.q_proj) expired on 2020-02-03"),
        (LOOSE.replace("layers.0.q_proj", "*"), "tolerance[0] (*) is about every component of tiny.h5"),
        (
            LOOSE + LOOSE.replace("0.2", "0.3"),
            "are equally specific, and both speak of layers.0.q_proj (hello",
        ),
        (EXPECTED + EXPECTED, "expected_failure[0] (layers.0.q_proj) and expected_failure[1]"),
        (
            LOOSE.replace('reason = "ten percent is nothing"', ""),
            "tolerance[0]: object missing required field `reason`",
        ),
    ],
    ids=["expired", "expectation expired", "everything", "ambiguous", "expectations ambiguous", "no reason"],
)
def test_what_is_refused(goldens: Callable[..., Told], text: str, sentence: str) -> None:
    usual(text)
    told = refused(goldens(*ISOLATED))
    assert told.startswith("goldens: ")
    assert "goldens/tolerances.toml" in told
    assert sentence in told


def test_rows_are_refused_before_anything_runs(
    goldens: Callable[..., Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fakes.NumpyPort, "apply", lambda *_: pytest.fail("it ran"))
    usual(
        "".join(LOOSE.replace("layers.0.q_proj", "lm_head").replace("0.2", rtol) for rtol in ("0.2", "0.3"))
    )
    assert "equally specific" in refused(goldens(*ISOLATED))


def test_a_file_that_is_not_there_is_refused(goldens: Callable[..., Told]) -> None:
    assert "cannot read no.toml" in refused(goldens(*ISOLATED, "--tolerances", "no.toml"))
    Path("pyproject.toml").write_text('[tool.goldens]\ntolerances = "no.toml"\n')
    assert "no.toml: No such file" in refused(goldens(*ISOLATED))
    Path("pyproject.toml").write_text("[tool.goldens]\ntolerances = 3\n")
    assert "tolerances under [tool.goldens] is 3, expected the path of a" in refused(goldens(*ISOLATED))


def test_a_row_about_nothing_is_told_aside(goldens: Callable[..., Told]) -> None:
    usual(LOOSE + EXPECTED.replace("q_proj", "q_prog"))
    told = goldens(*ISOLATED)
    assert told.status == 0
    assert told.err.splitlines() == [
        "goldens: goldens/tolerances.toml: expected_failure[0] (layers.0.q_prog) matches no component of tiny.h5;"
        " nearest: layers.0.q_proj, layers.0, layers.0.act"
    ]


def test_a_device_that_is_not_here_lets_nothing_pass(goldens: Callable[..., Told]) -> None:
    usual(LOOSE + 'device = "gpu"\n')
    assert goldens(*ISOLATED).status == 1


def test_an_expected_failure_does_not_fail_the_run(goldens: Callable[..., Told]) -> None:
    usual(EXPECTED)
    told = goldens(*ISOLATED)
    assert told.status == 0, told.out
    assert "expected to fail, float32 isolated: known\n  layers.0.q_proj\n" in told.out
    assert "tiny.h5: 3 pass, 1 fail (1 expected), 0 unmeasured" in told.out
    run = json.loads(goldens(*ISOLATED, "--json").out)
    assert (run["verdict"], run["first_wrong"]) == ("pass", None)
    assert {r["component"]: r["expected"] for r in run["results"] if r["expected"]} == {
        "layers.0.q_proj": "known"
    }
    assert [e["component"] for e in run["explanations"]] == ["layers.0.q_proj"]


def test_one_that_passes_fails_the_run(goldens: Callable[..., Told]) -> None:
    usual(EXPECTED + EXPECTED.replace("layers.0.q_proj", "lm_head").replace("known", "too wide"))
    told = goldens(*ISOLATED)
    assert told.status == 1
    reason = "expected to fail (too wide), and passes: remove the row from goldens/tolerances.toml"
    assert f"float32 isolated: {reason}, or narrow it\n  lm_head\n" in told.out
    assert "2 pass, 2 fail (1 expected), 0 unmeasured" in told.out
    assert "would pass" not in told.out
    run = json.loads(goldens(*ISOLATED, "--json").out)
    assert run["first_wrong"] is None  # nothing is wrong but the row
    assert {r["component"]: r["unexpected"] for r in run["results"] if r["unexpected"]} == {
        "lm_head": "too wide"
    }
    assert [e["component"] for e in run["explanations"]] == ["layers.0.q_proj"]


def test_a_run_that_only_fails_as_expected_does_not_hold(goldens: Callable[..., Told]) -> None:
    usual(EXPECTED)
    assert goldens(*ISOLATED, "--include", "layers.0.q_proj").status == 1


def test_expected_failures_are_explained_all_the_same(goldens: Callable[..., Told]) -> None:
    whole = 'component = "{}"\nreason = "what comes after it"\nmode = "end-to-end"\n'
    rows = [f"[[expected_failure]]\n{whole.format(glob)}" for glob in ("layers.0*", "lm_head")]
    usual(EXPECTED + "".join(rows))
    told = goldens("explain", *REPLAY[1:])
    assert told.status == 0, told.out
    assert "layers.0.q_proj\n  the right output times 1.1" in told.out
    assert (
        "expected to fail, float32 end-to-end: what comes after it\n  layers.0.act, layers.0, lm_head"
        in told.out
    )
