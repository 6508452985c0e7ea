"""The tolerance file: what it may say, which row speaks, and what a row can and cannot change."""

import datetime as dt
import re
from pathlib import Path

import numpy as np
import pytest

from harness.compare.judge import judge
from harness.compare.metrics import Places
from harness.compare.tolerance import Allowed
from harness.errors import GoldensError
from harness.model import Component, Floor, Golden, Mode, Verdict, Views
from harness.replay import session as replay_session
from harness.replay.session import Session
from harness.report.result import Place, Run
from harness.report.wording import counted, would_pass
from harness.store.reader import GoldenFile
from harness.tolerances import NOTHING_SAID, Tolerances, read
from tests import fakes
from tests.harness.replay.test_decode import CachedPort
from tests.harness.report.test_result import ORDER, result

ROOT = Path(__file__).parents[2]
ROW = '[[tolerance]]\ncomponent = "layers.*.q_proj"\n'
EXPECTED = '[[expected_failure]]\ncomponent = "layers.*.q_proj"\n'


def written(folder: Path, text: str) -> Tolerances:
    path = folder / "tolerances.toml"
    path.write_text(text)
    return read(path)


def place(component: str = "layers.2.q_proj", dtype: str = "float32", mode: Mode = Mode.ISOLATED) -> Place:
    return Place(component, "hello", dtype, mode)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (ROW + "rtol = 1e-3", "`reason`"),
        (ROW + 'rtol = 1e-3\nreason = " "', "reason is empty: say why"),
        ('[[tolerance]]\ncomponent = ""\nrtol = 1e-3\nreason = "r"', "component is empty: say which"),
        (ROW + 'reason = "r"', "say what passes with rtol or with floors, one of the two"),
        (ROW + 'rtol = 1e-3\nfloors = 9\nreason = "r"', "one of the two"),
        (ROW + 'floors = 9\natol = 1e-3\nreason = "r"', "atol is there without rtol"),
        (ROW + 'rtol = 1\nreason = "r"', "rtol is 1, expected a number between 0 and 1: at 1, zeros pass"),
        (ROW + 'rtol = 0\nreason = "r"', "rtol is 0, expected"),
        (ROW + 'rtol = nan\nreason = "r"', "rtol is nan, expected"),
        (ROW + 'rtol = true\nreason = "r"', "rtol: expected `float | null`, got `bool`"),
        (ROW + 'rtol = 0.1\natol = inf\nreason = "r"', "atol is inf, expected a number above 0"),
        (ROW + 'floors = -1\nreason = "r"', "floors is -1, expected a number above 0"),
        (ROW + 'floors = inf\nreason = "r"', "floors is inf, expected a number above 0"),
        (
            ROW + 'floors = 9\nreason = "r"\ndtype = "fp32"',
            "dtype is 'fp32', expected one of float32, bfloat16",
        ),
        (
            ROW + 'floors = 9\nreason = "r"\nmode = "alone"',
            "mode is 'alone', expected one of isolated, end-to",
        ),
        (ROW + 'floors = 9\nreason = "r"\nrto = 3', "unknown field `rto`; nearest: rtol"),
        (ROW + 'floors = 9\nreason = "r"\ncase = "far"', "unknown field `case`"),
        (ROW + 'floors = 9\nreason = "r"\nexpires = "soon"', "tolerance[0].expires: "),
        (EXPECTED + 'rtol = 1e-3\nreason = "r"', "expected_failure[0]: object contains unknown field `rtol`"),
        ("[[tolerances]]", "unknown field `tolerances`; nearest: tolerance"),
        ("[[tolerance", "is not TOML"),
    ],
)
def test_what_a_row_may_not_say_is_told_in_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(GoldensError, match=re.escape(sentence)) as told:
        written(tmp_path, text)
    assert "tolerances.toml" in str(told.value)
    assert "\n" not in str(told.value)


def test_a_file_that_is_named_has_to_be_there(tmp_path: Path) -> None:
    assert read(None) == NOTHING_SAID
    with pytest.raises(GoldensError, match=r"cannot read .*no\.toml: No such file"):
        read(tmp_path / "no.toml")


@pytest.mark.parametrize("kind", ["tolerance", "expected_failure"])
def test_a_row_is_refused_after_its_last_day(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "tolerances.toml"
    what = "floors = 9\n" if kind == "tolerance" else ""
    path.write_text(f'[[{kind}]]\ncomponent = "a"\n{what}reason = "r"\nexpires = 2026-03-31\n')
    read(path, dt.date(2026, 3, 31))
    with pytest.raises(
        GoldensError, match=rf"tolerances.toml: {kind}\[0\] \(a\) expired on 2026-03-31: remove"
    ):
        read(path, dt.date(2026, 4, 1))


def row(component: str, floors: float, **conditions: str) -> str:
    told = "".join(f'{name} = "{value}"\n' for name, value in conditions.items())
    return f'[[tolerance]]\ncomponent = "{component}"\nfloors = {floors}\nreason = "r"\n{told}'


@pytest.mark.parametrize(
    ("rows", "floors"),
    [
        ([row("layers.*", 1), row("layers.2.q_proj", 2)], 2),
        ([row("layers.2.q_proj", 2), row("layers.*", 1, dtype="float32", mode="isolated")], 2),
        ([row("layers.*.q_proj", 3), row("layers.*", 1)], 3),
        ([row("layers.[0123456789].q*", 3), row("layers.?.q_p*", 1)], 1),
        ([row("layers.*", 1), row("layers.*", 4, dtype="float32")], 4),
        ([row("layers.*", 1, mode="isolated"), row("layers.*", 4, dtype="float32", device="c*")], 4),
        ([row("layers.*", 1), row("layers.2.q_proj", 2, dtype="bfloat16")], 1),
        ([row("layers.*", 1), row("layers.2.q_proj", 2, mode="decode")], 1),
        ([row("layers.*", 1), row("layers.2.q_proj", 2, device="gpu")], 1),
        ([row("layers.2.q_proj", 2, device="gpu"), row("layers.2.q_proj", 5, device="cpu")], 5),
        ([row("layers.3.*", 1)], None),
        ([], None),
    ],
    ids=[
        "a name before a glob",
        "even one with conditions",
        "a longer glob",
        "wildcards do not count",
        "a condition before none",
        "two conditions before one",
        "another dtype",
        "another mode",
        "another device",
        "each its device",
        "another component",
        "no row",
    ],
)
def test_the_most_specific_row_speaks(tmp_path: Path, rows: list[str], floors: float | None) -> None:
    for text in ("".join(rows), "".join(reversed(rows))):
        allowed = written(tmp_path, text).allowed(place(), "cpu")
        assert (allowed and allowed.floors) == floors


@pytest.mark.parametrize(
    "rows",
    [
        [row("layers.*", 1), row("layers.*", 2)],
        [row("layers.*.q_proj", 1), row("*layers..q_proj", 2), row("layers.?.q_proj", 2)],
        [row("layers.*", 1, mode="isolated"), row("layers.*", 2, dtype="float32")],
    ],
    ids=["the same", "globs of one length", "a condition each"],
)
def test_two_rows_that_speak_alike_are_refused_by_name(tmp_path: Path, rows: list[str]) -> None:
    said = written(tmp_path, "".join(rows))
    with pytest.raises(
        GoldensError, match=r"tolerance\[0\] \(layers.*\) and tolerance\[\d\] .*equally specific"
    ):
        said.allowed(place(), "cpu")
    assert said.allowed(place("lm_head"), "cpu") is None
    said.refuse_ambiguous([place("lm_head")], "cpu")
    with pytest.raises(GoldensError, match="let one of them say more"):
        said.refuse_ambiguous([place("lm_head"), place()], "cpu")


def test_two_expected_failures_that_speak_alike_are_refused_too(tmp_path: Path) -> None:
    said = written(tmp_path, EXPECTED + 'reason = "a"\n' + EXPECTED + 'reason = "b"\n')
    with pytest.raises(GoldensError, match=r"expected_failure\[0\] .* and expected_failure\[1\] .*"):
        said.refuse_ambiguous([place()], "cpu")


@pytest.fixture
def golden_file(tmp_path: Path) -> GoldenFile:
    fakes.write_golden(tmp_path / "tiny.h5")
    return GoldenFile.open(tmp_path / "tiny.h5")


@pytest.mark.parametrize("glob", ["*", "*l*", "[!x]*", "?*"])
@pytest.mark.parametrize("dtype", ["", 'dtype = "bfloat16"\n'])
def test_no_row_is_about_everything(tmp_path: Path, golden_file: GoldenFile, glob: str, dtype: str) -> None:
    said = written(tmp_path, f'[[tolerance]]\ncomponent = "{glob}"\nrtol = 0.1\nreason = "r"\n{dtype}')
    with pytest.raises(
        GoldensError, match=r"is about every component of .*tiny\.h5.*write a row for each kind"
    ):
        said.refuse_all(golden_file)
    written(tmp_path, row("layers.*", 2) + row("lm_head", 2)).refuse_all(golden_file)


def test_rows_about_nothing_are_told(tmp_path: Path, golden_file: GoldenFile) -> None:
    text = (
        row("layers.0.q_prog", 2) + row("lm_head", 2) + EXPECTED.replace("q_proj", "act") + 'reason = "r"\n'
    )
    (told,) = written(tmp_path, text).unmatched([golden_file])
    assert "tolerance[0] (layers.0.q_prog) matches no component of" in told
    assert "tiny.h5; nearest: layers.0.q_proj, " in told


def test_a_tolerance_for_facts_is_told(tmp_path: Path) -> None:
    file = GoldenFile.open(ROOT / "goldens" / "qwen2-tiny.h5")
    text = row("config.*", 2) + EXPECTED.replace("layers.*.q_proj", "config.*") + 'reason = "r"\n'
    (told,) = written(tmp_path, text).unmatched([file])
    assert "tolerance[0] (config.*) matches nothing but facts of" in told


# What a row changes of a verdict

SHAPE = (2, 4, 8)
EVERYWHERE = Places(np.ones((2, 4), bool), np.ones((2, 4), bool))
FLOOR = Floor(Views(1e-6, 1e-6, 1e-6), Views(0, 0, 0))
ZERO = Floor(Views(0, 0, 0), Views(0, 0, 0))
RECORDED = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)


def judged(port, recorded=RECORDED, floor=FLOOR, exact=False, **sizes):
    component = Component("layers.0.up_proj", "up_proj", "B T O", step="linear", exact=exact)
    golden = Golden("layers.0.up_proj", "hello", recorded.dtype.name, 0, {}, floor, floor)
    allowed = Allowed("somebody: why", **sizes) if sizes else None
    return judge(component, golden, Mode.ISOLATED, port, recorded, EVERYWHERE, allowed)


@pytest.mark.parametrize(
    ("sizes", "verdict"),
    [
        ({}, Verdict.FAIL),
        ({"rtol": 0.02}, Verdict.PASS),
        ({"rtol": 0.005}, Verdict.FAIL),
        ({"floors": 2e4}, Verdict.PASS),
        ({"floors": 5e3}, Verdict.FAIL),
        ({"rtol": 1e-7, "atol": 1.0}, Verdict.PASS),
        ({"rtol": 1e-7, "atol": 1e-4}, Verdict.FAIL),
    ],
)
def test_a_row_says_what_passes(sizes, verdict):
    found = judged(RECORDED * np.float32(1.01), **sizes)
    assert found.verdict is verdict
    assert found.tolerance.endswith(" by somebody: why") == bool(sizes)
    assert (found.over_limit > 1) == (verdict is Verdict.FAIL)


@pytest.mark.parametrize("sizes", [{"rtol": 1e-8}, {"floors": 0.1}])
def test_a_row_may_ask_for_more_than_the_noise_floor(sizes):
    port = RECORDED * np.float32(1 + 1e-6)
    assert judged(port).verdict is Verdict.PASS
    assert judged(port, **sizes).verdict is Verdict.FAIL


def test_elements_within_atol_count_as_equal_and_others_in_full():
    recorded = RECORDED.copy()
    recorded[1, 2] = 0.0
    port = recorded.copy()
    port[1, 2] = 1e-4
    assert judged(port, recorded).error.row > 100
    assert judged(port, recorded, rtol=1e-3).verdict is Verdict.FAIL
    assert judged(port, recorded, rtol=1e-3, atol=2e-4).error == Views(0.0, 0.0, 0.0)
    port[0, 0, 0] += 0.5
    assert judged(port, recorded, rtol=1e-3, atol=2e-4).worst.index == [0, 0, 0]
    assert judged(port, recorded, rtol=1e-3, atol=2e-4).verdict is Verdict.FAIL


LOOSE = ({"rtol": 0.99, "atol": 1e9}, {"floors": 1e30})


@pytest.mark.parametrize("sizes", LOOSE)
def test_nothing_exact_is_loosened(sizes):
    port = RECORDED.copy()
    port[1, 2, 3] = np.nextafter(port[1, 2, 3], np.float32(9))
    found = judged(port, floor=ZERO, exact=True, **sizes)
    assert found.verdict is Verdict.FAIL
    assert (found.reason, found.tolerance) == ("1 of 64 elements differ, and none may", "")
    assert would_pass(found) == []


@pytest.mark.parametrize("sizes", LOOSE)
@pytest.mark.parametrize("wrong", ["shape", "dtype", "nan", "infinity"])
def test_what_is_no_number_is_not_loosened(sizes, wrong):
    port = RECORDED.copy()
    port[0, 0, 0] = {"nan": np.nan, "infinity": np.inf}.get(wrong, 0)
    port = {"shape": port[:1], "dtype": port.astype(np.float16)}.get(wrong, port)
    assert judged(port, **sizes).verdict is Verdict.FAIL


@pytest.mark.parametrize("offers", [True, False])
def test_what_the_cache_holds_is_not_loosened(tmp_path, monkeypatch, golden_file, offers):
    """Steps that a row lets pass are followed by the look into the cache, as ever."""
    monkeypatch.setattr(replay_session, "along_tokens", lambda file: {"layers.0.q_proj": 1})

    class Port(CachedPort):
        def read_cache(self, cache):
            held = cache.copy()
            held[:, 0] *= 2 if spoiled else 1
            return {"layers.0.q_proj": held}

    golden = next(g for g in golden_file.contents.goldens if g.component == "layers.0.q_proj")
    said = written(tmp_path, row("layers.0.q_proj", 1e9))
    for spoiled, verdict in ((False, Verdict.PASS), (True, Verdict.FAIL)):
        port = Port(faulty={"layers.0.q_proj"} if offers else ())
        found = Session(golden_file, lambda dtype, port=port: port, tolerances=said).decode(golden)
        assert (found.verdict, bool(found.reason)) == (verdict, spoiled)


# Expected failures


def expecting(tmp_path: Path, more: str = "") -> Tolerances:
    return written(tmp_path, EXPECTED + f'reason = "known"\n{more}')


def test_a_failure_is_marked_and_excused_and_a_pass_is_a_failure(tmp_path: Path) -> None:
    said = expecting(tmp_path)
    fails = said.expected(result("layers.0.q_proj", Verdict.FAIL), "cpu")
    assert (fails.verdict, fails.expected) == (Verdict.FAIL, "known")
    passes = said.expected(result("layers.0.q_proj"), "cpu")
    assert (passes.verdict, passes.expected, passes.unexpected) == (Verdict.FAIL, "", "known")
    assert re.match(
        r"expected to fail \(known\), and passes: remove the row from .*tolerances\.toml", passes.reason
    )
    assert would_pass(passes) == []
    unmeasured = result("layers.0.q_proj", Verdict.UNMEASURED)
    assert said.expected(unmeasured, "cpu") == unmeasured
    other = result("lm_head", Verdict.FAIL)
    assert said.expected(other, "cpu") == other


@pytest.mark.parametrize(
    "more",
    ['case = "bye"', 'dtype = "bfloat16"', 'mode = "decode"', 'device = "gpu"'],
    ids=lambda more: more[:4],
)
def test_an_expected_failure_may_be_narrow(tmp_path: Path, more: str) -> None:
    failed = result("layers.0.q_proj", Verdict.FAIL)
    assert expecting(tmp_path, more).expected(failed, "cpu") == failed


def run(*results) -> Run:
    return Run.from_results("tiny.h5", "port:make", results, ORDER)


def test_a_run_holds_with_expected_failures_and_with_them_only() -> None:
    expected = result("layers.0.q_proj", Verdict.FAIL, expected="known")
    assert run(expected, result()).verdict is Verdict.PASS
    assert run(expected, result()).first_wrong is None
    assert run(expected).verdict is Verdict.UNMEASURED
    worse = run(expected, result(), result("layers.2.q_proj", Verdict.FAIL))
    assert worse.verdict is Verdict.FAIL
    assert worse.first_wrong is not None
    assert worse.first_wrong.component == "layers.2.q_proj"
    assert counted(worse) == "1 pass, 2 fail (1 expected), 0 unmeasured"
    assert run(expected, result("lm_head", Verdict.UNMEASURED)).verdict is Verdict.FAIL
    stale = run(result(), result("layers.0.q_proj", Verdict.FAIL, unexpected="known", reason="passes"))
    assert (stale.verdict, stale.first_wrong) == (Verdict.FAIL, None)


def test_an_expectation_of_one_case_speaks_before_one_of_all(tmp_path: Path) -> None:
    said = expecting(tmp_path, EXPECTED + 'reason = "only here"\ncase = "hello"\n')
    assert said.expected(result("layers.0.q_proj", Verdict.FAIL), "cpu").expected == "only here"
    assert said.expected(result("layers.0.q_proj", Verdict.FAIL, case="bye"), "cpu").expected == "known"


# What would have passed


@pytest.mark.parametrize("times", [3.14159e-5, 0.5, 0.0999999])
def test_what_would_have_passed_does(times):
    port = RECORDED * np.float32(1 + times)
    (line,) = would_pass(judged(port))
    rtol, floors = re.fullmatch(r"would pass with rtol = (\S+), (\S+) times its noise floor", line).groups()
    assert judged(port, rtol=float(rtol)).verdict is Verdict.PASS
    assert judged(port, rtol=float(rtol) * 0.9).verdict is Verdict.FAIL
    assert judged(port, floors=float(floors) * 1.1).verdict is Verdict.PASS


def test_nothing_is_said_of_what_no_tolerance_would_pass():
    assert would_pass(judged(np.zeros_like(RECORDED))) == []
    assert would_pass(judged(RECORDED)) == []
    assert would_pass(judged(RECORDED[:1])) == []


# The examples that there are


def test_the_examples_are_read(tmp_path: Path) -> None:
    usual = (ROOT / "goldens" / "tolerances.toml").read_text()
    assert written(tmp_path, usual).rows == NOTHING_SAID.rows
    commented = usual.split("looks like:\n#\n")[1].replace("# ", "", 1).replace("\n# ", "\n")
    docs = (ROOT / "docs" / "tolerances.md").read_text()
    documented = docs.split("    # goldens/tolerances.toml\n")[1].split("\n\nA failure says")[0]
    for text in (commented, documented):
        path = tmp_path / "example.toml"
        path.write_text(text)
        rows = read(path, dt.date(2026, 1, 1)).rows
        assert rows.tolerance
        assert rows.expected_failure
