"""`--goldens-report`, `goldens_report`: the results as files."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]
Run = Callable[..., pytest.RunResult]
FEW = 'cases="hello", dtypes="float32"'


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_it_says_what_a_replay_would(project: pytest.Pytester, parity: Run) -> None:
    result = parity("--goldens-report=report.json", factory="make_faulty", keywords=FEW)
    (run,) = read(project.path / "report.json")
    assert result.ret == 1
    assert (run["golden"], run["port"], run["verdict"]) == ("tiny.h5", "tests.fakes:make_faulty", "fail")
    assert run["counts"] == {"pass": 4, "fail": 5, "unmeasured": 0}
    assert run["first_wrong"]["component"] == "layers.0.q_proj"
    assert run["digest"]
    assert run["recorded"]["recorded_at"] == "2030-01-01T00:00:00Z"
    assert run["environment"]["versions"]["numpy"]
    assert run["explanations"][0]["text"].startswith("the right output times 1.1")
    assert run["pictures"][0]["place"] == run["first_wrong"]
    modes = [(each["mode"], each["component"]) for each in run["results"]]
    assert modes[:2] == [("isolated", "embed_tokens"), ("isolated", "layers.0.q_proj")]
    assert [mode for mode, _ in modes] == ["isolated"] * 4 + ["end-to-end"] * 5
    result.stdout.fnmatch_lines([f"report: {project.path / 'report.json'}"])


def test_several_files_each_by_its_suffix(project: pytest.Pytester, parity: Run) -> None:
    parity("--goldens-report=a.json", "--goldens-report=b.html", "--goldens-report=c.md", keywords=FEW)
    assert read(project.path / "a.json")[0]["verdict"] == "pass"
    assert "<html" in (project.path / "b.html").read_text()
    assert (project.path / "c.md").read_text()


def test_flags_go_before_the_setting(project: pytest.Pytester, parity: Run) -> None:
    parity(keywords=FEW)
    project.makeini("[pytest]\ngoldens_port = tests.fakes:make\ngoldens_report =\n    a.json\n    b.json\n")
    project.runpytest()
    assert (project.path / "a.json").is_file()
    assert (project.path / "b.json").is_file()
    (project.path / "a.json").unlink()
    project.runpytest("--goldens-report=c.json")
    assert not (project.path / "a.json").exists()
    assert (project.path / "c.json").is_file()


@pytest.mark.parametrize(
    ("path", "told"),
    [("report.pdf", "*no report has the suffix '.pdf'*"), ("no/report.json", "*is not there*")],
)
def test_one_that_cannot_be_written_is_refused_first(parity: Run, path: str, told: str) -> None:
    result = parity(f"--goldens-report={path}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([told])
    result.stderr.no_fnmatch_line("*Traceback*")


def test_one_that_cannot_be_written_in_the_end_fails_the_run(project: pytest.Pytester, parity: Run) -> None:
    (project.path / "report.json").mkdir()
    result = parity("--goldens-report=report.json", keywords=FEW)
    result.assert_outcomes(passed=9)
    result.stdout.fnmatch_lines(["no report *report.json: cannot write *"])
    assert result.ret == 1


def test_what_could_not_be_compared_is_no_pass(project: pytest.Pytester) -> None:
    project.makepyfile(
        f"""
        import pytest

        @pytest.mark.goldens("tiny.h5", {FEW})
        def test_component(goldens, port):
            if goldens.comparison.recorded.component == "lm_head":
                raise RuntimeError("crash")
            if goldens.comparison.recorded.component == "layers.0.act":
                pytest.skip("not today")
            goldens.check(port)
        """
    )
    result = project.runpytest("--goldens-report=report.json")
    (run,) = read(project.path / "report.json")
    assert run["verdict"] == "fail"
    assert run["counts"] == {"pass": 5, "fail": 0, "unmeasured": 4}
    by_component = {each["component"]: each for each in run["results"]}
    assert by_component["lm_head"]["reason"] == "could not be compared: RuntimeError: crash"
    assert by_component["layers.0.act"]["listed"] == "not today"
    result.stdout.fnmatch_lines(["tiny.h5: 5 pass, 0 fail, 2 unmeasured (2 listed), 2 could not be compared"])


def test_a_run_that_stopped_early_says_so(project: pytest.Pytester, parity: Run) -> None:
    result = parity("--goldens-report=report.json", "-x", factory="make_faulty", keywords=FEW)
    (run,) = read(project.path / "report.json")
    assert run["notes"][0] == "incomplete: 7 of 9 selected tests did not run to their end"
    result.stdout.fnmatch_lines(["  incomplete: 7 of 9 selected tests did not run to their end"])


def test_a_missing_file_is_in_it(project: pytest.Pytester, parity: Run) -> None:
    parity("--goldens-report=report.json", "--goldens-missing=skip", keywords=f'"other.h5", {FEW}')
    run, other = read(project.path / "report.json")
    assert run["verdict"] == "pass"
    assert (other["golden"], other["verdict"]) == ("other.h5", "unmeasured")
    assert other["notes"][0].startswith("there is no golden file other.h5")


def test_tests_of_one_file_are_one_run_and_ports_are_told_apart(project: pytest.Pytester) -> None:
    marker = 'pytest.mark.goldens("tiny.h5", cases="{}", dtypes="float32", modes="isolated")'
    project.makepyfile(
        f"""
        import pytest
        from tests.fakes import NumpyPort

        @{marker.format("hello")}
        def test_one(goldens, port):
            goldens.check(port)

        @{marker.format("padded")}
        def test_other(goldens, port):
            goldens.check(port)

        @{marker.format("padded")}
        def test_object(goldens):
            goldens.check(NumpyPort("float32", faulty=["lm_head"]))
        """
    )
    result = project.runpytest("--goldens-report=report.json")
    named, given = read(project.path / "report.json")
    assert (named["port"], named["counts"]["pass"]) == ("tests.fakes:make", 8)
    assert (given["port"], given["counts"]["fail"]) == ("NumpyPort", 1)
    result.stdout.fnmatch_lines(
        ["tiny.h5 on tests.fakes:make: 8 pass, *", "tiny.h5 on NumpyPort: 3 pass, 1 fail, *"]
    )


def test_a_comparison_that_two_tests_make_counts_once_and_by_the_worse(project: pytest.Pytester) -> None:
    marker = (
        'pytest.mark.goldens("tiny.h5", cases="hello", dtypes="float32", include="lm_head", modes="isolated")'
    )
    project.makepyfile(
        f"""
        import pytest
        from tests.fakes import NumpyPort

        @{marker}
        def test_right(goldens):
            goldens.check(NumpyPort("float32"))

        @{marker}
        def test_wrong(goldens):
            goldens.check(NumpyPort("float32", faulty=["lm_head"]))

        @{marker}
        def test_right_again(goldens):
            goldens.check(NumpyPort("float32"))
        """
    )
    result = project.runpytest("--goldens-report=report.json")
    (run,) = read(project.path / "report.json")
    assert run["counts"] == {"pass": 0, "fail": 1, "unmeasured": 0}
    result.stdout.fnmatch_lines(["tiny.h5: 0 pass, 1 fail, 0 unmeasured", "  lm_head * FAIL *"])


def test_nothing_compared_makes_no_report(project: pytest.Pytester) -> None:
    project.makepyfile("def test_it():\n    pass\n")
    result = project.runpytest("--goldens-report=report.json")
    assert result.ret == 0
    assert not (project.path / "report.json").exists()
    result.stdout.fnmatch_lines(["no report *report.json: no test compared anything"])
