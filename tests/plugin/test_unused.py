"""`--goldens-unused`, `goldens_unused`: goldens that no test compares, and when that is judged."""

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.marker import comparisons, read_marker
from harness.plugin.options import unused_on
from harness.plugin.told import collected
from harness.store.reader import GoldenFile

pytest_plugins = ["pytester"]
Run = Callable[..., pytest.RunResult]
HALF = 'cases="hello"'


def judged(result: pytest.RunResult) -> bool:
    return any(line.startswith("unused goldens, which") for line in result.outlines)


@pytest.mark.parametrize(
    ("word", "environment", "found"),
    [
        ("auto", {}, "warn"),
        ("auto", {"CI": ""}, "warn"),
        ("auto", {"CI": "true"}, "fail"),
        ("fail", {}, "fail"),
        ("warn", {"CI": "true"}, "warn"),
        ("ignore", {"CI": "true"}, "ignore"),
    ],
)
def test_who_reads_along_decides_what_auto_is(word: str, environment: dict[str, str], found: str) -> None:
    assert unused_on(word, environment) == found


def test_what_a_marker_leaves_out_is_listed(parity: Run) -> None:
    result = parity("--goldens-unused=fail", keywords=HALF)
    result.assert_outcomes(passed=18)
    result.stdout.fnmatch_lines(
        [
            "unused goldens, which fail this run (goldens_unused = fail):",
            "  tiny.h5: 10 of 20 goldens are compared by no test",
            "    padded float32: embed_tokens, layers.0.q_proj, layers.0.act and 2 more",
            "    padded bfloat16: embed_tokens, *",
        ]
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_warn_lists_and_passes(parity: Run) -> None:
    result = parity("--goldens-unused=warn", keywords=HALF)
    assert judged(result)
    assert result.ret == 0


def test_ignore_is_silent(parity: Run) -> None:
    assert not judged(parity("--goldens-unused=ignore", keywords=HALF))


@pytest.mark.parametrize("environment", ["", "true"])
def test_auto_fails_under_ci(parity: Run, monkeypatch: pytest.MonkeyPatch, environment: str) -> None:
    monkeypatch.setenv("CI", environment)
    assert parity(keywords=HALF).ret == (1 if environment else 0)


def test_the_flag_goes_before_the_setting(project: pytest.Pytester, parity: Run) -> None:
    parity()
    project.makeini("[pytest]\ngoldens_port = tests.fakes:make\ngoldens_unused = fail\n")
    test = project.path / "test_parity.py"
    test.write_text(test.read_text().replace('"tiny.h5"', f'"tiny.h5", {HALF}'))
    assert project.runpytest().ret == 1
    assert project.runpytest("--goldens-unused=warn").ret == 0


def test_all_that_is_recorded_may_be_compared_in_one_mode(parity: Run) -> None:
    result = parity("--goldens-unused=fail", keywords='modes="end-to-end"')
    result.assert_outcomes(passed=20)
    assert result.ret == 0
    result = parity("--goldens-unused=fail", keywords='modes="isolated"')
    result.stdout.fnmatch_lines(["  tiny.h5: 4 of 20 goldens are compared by no test", "*padded *: layers.0"])


def test_several_tests_compare_a_file_together(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import pytest

        @pytest.mark.goldens("tiny.h5", cases="hello")
        def test_one(goldens, port):
            goldens.check(port)

        @pytest.mark.goldens("tiny.h5", cases="padded")
        def test_other(goldens, port):
            goldens.check(port)
        """
    )
    assert project.runpytest("--goldens-unused=fail").ret == 0


def test_a_file_that_no_test_names_is_listed_where_a_setting_says_the_folder(
    project: pytest.Pytester, parity: Run
) -> None:
    (project.path / "sub").mkdir()
    (project.path / "sub" / "other.h5").write_bytes((project.path / "tiny.h5").read_bytes())
    (project.path / "sub" / "weights.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    assert parity("--goldens-unused=fail").ret == 0
    result = parity("--goldens-unused=fail", "--goldens-dir=.")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["  sub/other.h5: no test compares anything of it"])
    result.stdout.no_fnmatch_line("*weights.h5*")


def test_a_folder_of_goldens_without_any_parity_test_is_noticed(project: pytest.Pytester) -> None:
    project.makepyfile("def test_it():\n    pass\n")
    assert project.runpytest("--goldens-unused=fail").ret == 0
    assert project.runpytest("--goldens-unused=fail", "--goldens-dir=.").ret == 1


def test_a_failure_is_judged_and_stays_a_failure(parity: Run) -> None:
    result = parity("--goldens-unused=fail", keywords=HALF, factory="make_faulty")
    assert judged(result)
    assert result.ret == 1


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["-k", "float32"], "a part of the tests was selected"),
        (["--deselect", "test_parity.py::test_component[tiny/hello/float32/isolated/lm_head]"], "a part*"),
        (["--lf", "-p", "cacheprovider"], "a part of the tests was selected"),
        (["--ignore", "nothing"], "a part of the tests was selected"),
        (["test_parity.py"], "a part of the tests was selected"),
        (["-x"], "not every selected test compared something"),
        (["--maxfail=2"], "not every selected test compared something"),
    ],
    ids=lambda value: " ".join(value[:1]) if isinstance(value, list) else None,
)
def test_a_part_is_not_judged(parity: Run, arguments: list[str], why: str) -> None:
    result = parity("--goldens-unused=fail", *arguments, keywords=HALF, factory="make_faulty")
    assert not judged(result)
    result.stdout.fnmatch_lines([f"unused goldens are not judged: {why}"])


def test_nothing_is_said_of_a_part_unless_it_was_asked_for(parity: Run) -> None:
    parity("-k", "float32", keywords=HALF).stdout.no_fnmatch_line("*unused*")


@pytest.mark.parametrize("arguments", [["-k", "not unrelated"], ["-m", "not slow"], ["."]])
def test_all_parity_tests_are_all(project: pytest.Pytester, parity: Run, arguments: list[str]) -> None:
    project.makepyfile(
        test_else="import pytest\n@pytest.mark.slow\ndef test_unrelated():\n    pytest.skip('here')\n"
    )
    result = parity("--goldens-unused=fail", *arguments, keywords=HALF)
    assert judged(result)


def test_testpaths_are_all_there_is(project: pytest.Pytester, parity: Run) -> None:
    parity()
    (project.path / "checks").mkdir()
    (project.path / "test_parity.py").rename(project.path / "checks" / "test_parity.py")
    (project.path / "checks" / "sub").mkdir()
    project.makeini("[pytest]\ngoldens_port = tests.fakes:make\ntestpaths = checks\n")
    test = project.path / "checks" / "test_parity.py"
    test.write_text(test.read_text().replace('"tiny.h5"', f'"tiny.h5", {HALF}'))
    assert judged(project.runpytest())
    assert judged(project.runpytest("checks"))
    assert not judged(project.runpytest("checks/test_parity.py"))


@pytest.mark.parametrize(
    "other",
    [
        "import pytest\npytest.importorskip('no_such_module')\n",
        "import pytest\n@pytest.mark.goldens('none.h5')\ndef test_it(goldens):\n    pass\n",
        "import pytest\n@pytest.mark.skip\n@pytest.mark.goldens('tiny.h5', cases='hello')\n"
        "def test_it(goldens):\n    pass\n",
        "import pytest\n@pytest.mark.goldens('tiny.h5', cases='hello')\ndef test_it(goldens):\n    1 / 0\n",
    ],
    ids=["skipped module", "missing file", "skipped test", "crash"],
)
def test_what_did_not_compare_bars_judging(project: pytest.Pytester, parity: Run, other: str) -> None:
    project.makepyfile(test_other=other)
    assert not judged(parity("--goldens-unused=fail", keywords=HALF))


def test_what_is_listed_as_unmeasured_was_looked_at(parity: Run) -> None:
    keywords = f'{HALF}, unmeasured={{"*.act": "fused"}}'
    assert judged(parity(keywords=keywords, factory="make_partial"))


def test_a_fact_is_used_in_any_one_dtype() -> None:
    root = Path(__file__).parents[2]
    asked = read_marker(["goldens/qwen2-tiny.h5"], {"dtypes": "bfloat16"}, root, root)
    found = comparisons(asked, GoldenFile.open)
    (of_file,) = collected(found, [], root, deselected=False).files.values()
    assert {dtype for dtype, _, _ in of_file.left} == {"float32"}
    goldens = {golden.component for golden in found[0].file.contents.goldens}
    assert {component for _, _, component in of_file.left} <= goldens | {"generation"}
    assert of_file.used + len(of_file.left) == len(found[0].file.contents.goldens) + len(
        found[0].file.contents.facts
    )
