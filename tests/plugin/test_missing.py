"""`--goldens-missing`, `goldens_missing`: a golden file that a marker names and that is not there."""

from collections.abc import Callable

import pytest

pytest_plugins = ["pytester"]
Run = Callable[..., pytest.RunResult]
ONE = 'include="lm_head", cases="hello", dtypes="float32", modes="isolated"'
SENTENCE = "there is no golden file no/other.h5: record it with `goldens record SUITE.toml -o no/other.h5`, *"


def test_it_is_one_failing_test_beside_the_others(parity: Run) -> None:
    result = parity(keywords=f'"no/other.h5", {ONE}')
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [SENTENCE, "FAILED test_parity.py::test_component?other? - *there is no golden*"]
    )
    result.stdout.no_fnmatch_line("*harness/*")


def test_it_is_skipped_by_name(parity: Run) -> None:
    result = parity("-rs", "-v", "--goldens-missing=skip", keywords=f'"no/other.h5", {ONE}')
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["test_parity.py::test_component?other? SKIPPED *", f"SKIPPED*{SENTENCE}"])
    assert result.ret == 0


def test_the_only_file_may_be_missing(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import pytest

        @pytest.fixture
        def port():
            return 1 / 0

        @pytest.mark.goldens("no/other.h5", "no/third.h5")
        def test_component(goldens):
            1 / 0
        """
    )
    result = project.runpytest()
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines([SENTENCE, "there is no golden file no/third.h5: *"])
    project.runpytest("--goldens-missing=skip").assert_outcomes(skipped=2)


def test_the_flag_goes_before_the_setting(project: pytest.Pytester) -> None:
    project.makeini("[pytest]\ngoldens_missing = skip\n")
    project.makepyfile(
        """
        import pytest

        @pytest.mark.goldens("no/other.h5")
        def test_component(goldens, port):
            goldens.check(port)
        """
    )
    project.runpytest().assert_outcomes(skipped=1)
    project.runpytest("--goldens-missing=fail").assert_outcomes(failed=1)


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("goldens_missing = maybe", "*goldens_missing = maybe: expected one of fail, skip"),
        ("goldens_unused = maybe", "*goldens_unused = maybe: expected one of auto, fail, warn, ignore"),
        ("goldens_margins = many", "*goldens_margins is 'many': expected a number*"),
        ("goldens_report = report.pdf", "*report.pdf: no report has the suffix '.pdf'*"),
    ],
)
def test_a_word_that_is_not_known_is_refused(project: pytest.Pytester, setting: str, told: str) -> None:
    project.makeini(f"[pytest]\n{setting}\n")
    project.makepyfile("def test_it():\n    pass\n")
    result = project.runpytest()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([told])
    result.stderr.no_fnmatch_line("*Traceback*")
