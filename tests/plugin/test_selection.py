"""How pytest's own ways to select, stop and configure go together with parity tests."""

import shlex
import sys
from collections.abc import Callable

import pytest

pytest_plugins = ["pytester"]
Run = Callable[..., pytest.RunResult]
HEAVY = {"torch", "jax", "flax", "numba", "numpy", "h5py", "ml_dtypes", "scipy", "safetensors"}
LEFT = """
    import sys

    def pytest_unconfigure():
        print("imported:", *sorted({name.partition(".")[0] for name in sys.modules}))
"""


@pytest.mark.parametrize("arguments", [["--collect-only"], ["--collect-only", "-q"]])
def test_collection_leaves_nothing_heavy_imported(
    project: pytest.Pytester, parity: Run, arguments: list[str]
) -> None:
    parity("--collect-only")
    project.makeconftest(LEFT)
    result = project.run(sys.executable, "-m", "pytest", *arguments, "--goldens-unused=fail")
    assert result.ret == 0
    (imported,) = [line for line in result.outlines if line.startswith("imported:")]
    assert not HEAVY & set(imported.split())
    assert "harness" in imported.split()
    result.stdout.fnmatch_lines(["*36 tests collected*"])
    result.stdout.no_fnmatch_line("*= goldens =*")


def test_k_selects_by_the_parts_of_an_id(parity: Run) -> None:
    parity("-k", "isolated and q_proj and bfloat16").assert_outcomes(passed=2, deselected=34)


def test_m_selects_by_marker(project: pytest.Pytester, parity: Run) -> None:
    project.makepyfile(test_else="def test_it():\n    pass\n")
    parity("-m", "goldens").assert_outcomes(passed=36, deselected=1)
    parity("-m", "not goldens").assert_outcomes(passed=1, deselected=36)


def again(result: pytest.RunResult) -> list[str]:
    """What the first failure says pytest is to be given."""
    line = next(line for line in result.outlines if line.startswith("  again: pytest "))
    return shlex.split(line)[2:]


def test_the_command_that_a_failure_ends_with_runs_it_again(project: pytest.Pytester, parity: Run) -> None:
    first = parity(factory="make_faulty", keywords='dtypes="float32", cases="hello"')
    project.runpytest(*again(first)).assert_outcomes(failed=1)


def test_it_tells_the_flags_that_decide_what_is_compared(project: pytest.Pytester, parity: Run) -> None:
    parity("--collect-only", keywords='cases="hello", dtypes="float32", include="*.q_proj", modes="isolated"')
    first = project.runpytest("--goldens-port=tests.fakes:make_faulty", "--goldens-dir=.")
    first.assert_outcomes(failed=1)
    assert again(first)[:2] == ["--goldens-dir=.", "--goldens-port=tests.fakes:make_faulty"]
    project.runpytest(*again(first)).assert_outcomes(failed=1)
    project.runpytest(again(first)[2]).assert_outcomes(passed=1)


def test_lf_runs_what_failed(project: pytest.Pytester, parity: Run) -> None:
    parity(factory="make_faulty", keywords='dtypes="float32", cases="hello"')
    project.runpytest().assert_outcomes(passed=4, failed=5)
    result = project.runpytest("--lf")
    result.assert_outcomes(failed=5)
    result.stdout.fnmatch_lines(["tiny.h5: 0 pass, 5 fail, 0 unmeasured"])


@pytest.mark.parametrize(("option", "failed"), [("-x", 1), ("--maxfail=2", 2)])
def test_a_run_that_stops_sums_up_what_ran(parity: Run, option: str, failed: int) -> None:
    result = parity(option, factory="make_faulty", keywords='dtypes="float32", cases="hello"')
    result.stdout.fnmatch_lines([f"tiny.h5: * pass, {failed} fail, 0 unmeasured", "  incomplete: *"])


def test_addopts_of_the_environment(
    project: pytest.Pytester, parity: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p harness.plugin -k isolated --goldens-margins=1 --strict-markers")
    result = parity(factory="make_faulty")
    result.assert_outcomes(passed=12, failed=4, deselected=20)
    result.stdout.fnmatch_lines(["nearest to their limit, 1 of 4 with an error"])


def test_strict_markers_and_config_know_it(project: pytest.Pytester, parity: Run) -> None:
    again = ("-W", "ignore::pytest.PytestAssertRewriteWarning")  # pytester's: the plugin is imported already
    parity("--strict-markers", "--strict-config", "-W", "error", *again).assert_outcomes(passed=36)
    project.runpytest("--markers").stdout.fnmatch_lines(["@pytest.mark.goldens(file, ..., include=*"])
    project.runpytest("--help").stdout.fnmatch_lines(["*--goldens-margins=N*"])


def test_files_are_imported_in_any_way(parity: Run) -> None:
    parity("--import-mode=importlib").assert_outcomes(passed=36)


def test_without_a_terminal_the_exit_status_and_the_report_tell(
    project: pytest.Pytester, parity: Run
) -> None:
    keywords = 'cases="hello"'
    result = parity(
        "-p", "no:terminal", "--goldens-unused=fail", "--goldens-report=a.json", keywords=keywords
    )
    assert result.ret == 1
    assert (project.path / "a.json").is_file()
    assert parity("-p", "no:terminal", keywords=keywords).ret == 0
