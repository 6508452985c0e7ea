"""pytest-xdist: the same as serial, however tests are distributed, and what becomes of a crash."""

import json
from collections.abc import Callable

import pytest

pytest_plugins = ["pytester"]
Run = Callable[..., pytest.RunResult]
XDIST = ("-p", "xdist.plugin", "-n2", "-rN")
SOME = 'dtypes="float32"'
MODES = ["load", "loadgroup"]
OTHERS = ["loadscope", "loadfile", "worksteal", "no"]


def told(result: pytest.RunResult) -> list[str]:
    """The plugin's own section."""
    lines = result.outlines
    begin = next(place for place, line in enumerate(lines) if line.strip("=") == " goldens ")
    return [line for line in lines[begin + 1 : -1] if not line.startswith(("report:", "="))]


def report(project: pytest.Pytester) -> list[dict]:
    runs = [json.loads(line) for line in (project.path / "report.json").read_text().splitlines()]
    for run in runs:
        assert run.pop("environment")["versions"]  # this process may have imported JAX, the workers not
    return runs


@pytest.mark.parametrize("modes", [MODES, pytest.param(OTHERS, marks=pytest.mark.slow)], ids=" ".join)
def test_the_same_as_serial(project: pytest.Pytester, parity: Run, modes: list[str]) -> None:
    asked = ("--goldens-report=report.json", "--goldens-margins=4", "--goldens-unused=warn")
    serial = parity(*asked, "-rN", factory="make_faulty", keywords=SOME)
    serial.assert_outcomes(passed=8, failed=10)
    expected = told(serial), report(project)
    for mode in modes:
        result = parity(*asked, *XDIST, f"--dist={mode}", factory="make_faulty", keywords=SOME)
        result.assert_outcomes(passed=8, failed=10)
        assert (told(result), report(project)) == expected, mode


def test_what_every_worker_runs_counts_once(parity: Run) -> None:
    keywords = f'{SOME}, modes="isolated", cases="hello"'
    result = parity(*XDIST, "--dist=each", factory="make_faulty", keywords=keywords)
    result.assert_outcomes(passed=6, failed=2)
    result.stdout.fnmatch_lines(["tiny.h5: 3 pass, 1 fail, 0 unmeasured"])


def test_ids_stay_as_they_are(project: pytest.Pytester, parity: Run) -> None:
    keywords = f'{SOME}, include="layers.0.q_proj", modes="isolated", cases="hello"'
    result = parity(*XDIST, "-v", "--dist=loadgroup", factory="make_faulty", keywords=keywords)
    name = "test_parity.py::test_component[tiny/hello/float32/isolated/layers.0.q_proj]"
    again = [line for line in result.outlines if line.startswith("  again:")]
    assert again == [f"  again: pytest '{name}'"]
    result.stdout.fnmatch_lines([f"*FAILED {name.replace('[', '?').replace(']', '?')}*"])


def test_what_failed_is_found_again_by_any_way(project: pytest.Pytester, parity: Run) -> None:
    parity(factory="make_faulty", keywords=f'{SOME}, modes="isolated"')
    project.runpytest(*XDIST, "--dist=loadgroup").assert_outcomes(passed=6, failed=2)
    project.runpytest("--lf").assert_outcomes(failed=2)
    project.runpytest(*XDIST, "--dist=loadgroup", "--lf").assert_outcomes(failed=2)


COUNTING = """
    import os
    from tests.fakes import NumpyPort

    class Counting(NumpyPort):
        def trace(self, inputs, names):
            with open({log!r}, "a") as log:
                log.write(f"{{self.dtype}} {{inputs['token_ids'].tolist()}}\\n")
            return super().trace(inputs, names)

    def make(checkpoint, *, dtype):
        return Counting(dtype)
"""


def test_a_forward_pass_is_run_once(project: pytest.Pytester, parity: Run) -> None:
    log = project.path / "passes"
    project.makepyfile(counting=COUNTING.format(log=str(log)))
    parity("--collect-only")
    asked = ("--goldens-port=counting:make", *XDIST, "--dist=loadgroup")
    project.runpytest(*asked).assert_outcomes(passed=36)
    passes = log.read_text().splitlines()
    assert len(passes) == len(set(passes)) == 4


def test_groups_of_other_tests_are_left_to_xdist() -> None:
    from harness.plugin.grouped import group_of

    assert group_of("test_a.py::test_it[tiny/a case/float32/isolated/layers.0.act]") == "tiny/a case/float32"
    assert group_of("test_a.py::test_it[x-sub/tiny.h5/far/bfloat16/end-to-end/norm]") == (
        "x-sub/tiny.h5/far/bfloat16"
    )
    assert group_of("test_a.py::test_it@group") is None
    assert group_of("test_a.py::test_it[a/b/c/d/e]") is None
    assert group_of("test_a.py::test_it") is None


def test_a_worker_that_crashes_leaves_an_incomplete_result(project: pytest.Pytester) -> None:
    project.makepyfile(
        f"""
        import os
        import pytest

        @pytest.mark.goldens("tiny.h5", {SOME}, cases="hello", modes="isolated")
        def test_component(goldens, port):
            if goldens.comparison.recorded.component == "layers.0.act":
                os._exit(3)
            goldens.check(port)
        """
    )
    asked = ("--goldens-report=report.json", "--goldens-unused=fail", "--dist=load")
    result = project.runpytest(*XDIST, *asked)
    result.assert_outcomes(passed=3, failed=1)
    (run,) = report(project)
    assert (run["verdict"], run["counts"]["pass"]) == ("fail", 3)
    assert run["notes"] == [
        "incomplete: 1 of 4 selected tests did not run to their end, and a worker process crashed"
    ]
    result.stdout.fnmatch_lines(
        [
            "tiny.h5: 3 pass, 0 fail, 0 unmeasured",
            "  incomplete: 1 of 4 selected tests did not run to their end, and a worker process crashed",
            "unused goldens are not judged: a process crashed",
        ]
    )


def test_unused_goldens_are_judged_as_in_one_process(parity: Run) -> None:
    keywords = f'{SOME}, cases="hello", modes="isolated"'
    assert parity(*XDIST, "--goldens-unused=fail", keywords=keywords).ret == 1
    result = parity(*XDIST, "--goldens-unused=fail", "-k", "lm_head", keywords=keywords)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["unused goldens are not judged: a part of the tests was selected"])


def test_a_setting_that_is_wrong_is_told_once(parity: Run) -> None:
    result = parity(*XDIST, "--goldens-report=no/report.json", keywords=SOME)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*the folder *no is not there*"])
