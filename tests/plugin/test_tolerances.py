"""The marker's tolerance, the tolerance file and expected failures, as pytest shows them."""

from collections.abc import Callable

import pytest

pytest_plugins = ["pytester"]
Run = Callable[..., pytest.RunResult]
ONE = 'include="layers.0.q_proj", cases="hello", dtypes="float32", modes="isolated"'
SOME = 'cases="hello", dtypes="float32", modes="isolated"'
LOOSE = '[[tolerance]]\ncomponent = "layers.0.q_proj"\nrtol = 0.2\nreason = "ten percent is nothing"\n'
EXPECTED = '[[expected_failure]]\ncomponent = "layers.0.q_proj"\nreason = "known"\n'


@pytest.fixture
def usual(project: pytest.Pytester) -> Callable[[str], None]:
    """Write `goldens/tolerances.toml`."""

    def write(text: str) -> None:
        folder = project.path / "goldens"
        folder.mkdir(exist_ok=True)
        (folder / "tolerances.toml").write_text(text)

    return write


def test_a_marker_lets_pass(parity: Run) -> None:
    parity(factory="make_faulty", keywords=ONE).assert_outcomes(failed=1)
    parity(factory="make_faulty", keywords=f'{ONE}, rtol=0.2, reason="so be it"').assert_outcomes(passed=1)
    result = parity(factory="make_faulty", keywords=f'{ONE}, rtol=0.01, atol=1e-9, reason="so be it"')
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "  error 0.1 whole, * allowed 0.01 whole, 0.01 worst row, 0.01 worst channel",
            "  allowed: rtol = 0.01, atol = 1e-09 by the marker: so be it",
            "  would pass with rtol = 0.1*, 1e+06 times its noise floor",
        ]
    )


@pytest.mark.parametrize(
    ("keywords", "sentence"),
    [
        (f"{ONE}, rtol=0.1", "takes rtol=, with or without atol=, together with reason='WHY'"),
        (f"{ONE}, reason='r'", "takes rtol=, with or without atol=, together with reason='WHY'"),
        (f"{ONE}, atol=0.1, reason='r'", "takes rtol=, with or without atol=, together with reason='WHY'"),
        (f"{ONE}, rtol=0.1, reason=' '", "takes rtol=, with or without atol=, together with reason='WHY'"),
        (f"{ONE}, rtol='0.1', reason='r'", "takes a number for rtol, not '0.1'"),
        (f"{ONE}, rtol=True, reason='r'", "takes a number for rtol, not True"),
        (f"{ONE}, rtol=2, reason='r'", "rtol is 2, expected a number between 0 and 1: at 1, zeros pass"),
        (f"{ONE}, rtol=0.1, atol=-1, reason='r'", "atol is -1, expected a number above 0"),
        (
            "rtol=0.1, reason='r'",
            "with rtol= selects every component of *tiny.h5, and no tolerance is one for all",
        ),
        ("include=['layers.*', 'lm_head'], rtol=0.1, reason='r'", "selects every component"),
    ],
)
def test_what_a_marker_may_not_say(parity: Run, keywords: str, sentence: str) -> None:
    result = parity(keywords=keywords)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"*the marker goldens*{sentence}*"])


def test_the_file_lets_pass_and_the_marker_goes_before_it(parity: Run, usual: Callable[[str], None]) -> None:
    usual(LOOSE)
    parity(factory="make_faulty", keywords=SOME).assert_outcomes(passed=4)
    tight = f'{ONE}, rtol=0.01, reason="sharper here"'
    parity(factory="make_faulty", keywords=tight).assert_outcomes(failed=1)


def test_tests_with_different_tolerances_stand_in_one_file(project: pytest.Pytester, parity: Run) -> None:
    parity(factory="make_faulty", keywords=ONE)
    project.makepyfile(
        test_parity=f"""
            import pytest

            @pytest.mark.goldens("tiny.h5", {ONE}, rtol=0.2, reason="r")
            def test_loose(goldens, port):
                goldens.check(port)

            @pytest.mark.goldens("tiny.h5", {ONE})
            def test_by_the_rule(goldens, port):
                goldens.check(port)

            @pytest.mark.goldens("tiny.h5", {ONE}, rtol=0.2, reason="r")
            def test_loose_again(goldens, port):
                goldens.check(port)
        """
    )
    result = project.runpytest("-v", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*test_by_the_rule* FAILED*"])


def test_where_the_file_is(project: pytest.Pytester, parity: Run, usual: Callable[[str], None]) -> None:
    usual("nonsense")
    (project.path / "mine.toml").write_text(LOOSE)
    (project.path / "pyproject.toml").write_text('[tool.goldens]\ntolerances = "mine.toml"\n')
    parity(factory="make_faulty", keywords=SOME).assert_outcomes(passed=4)
    (project.path / "theirs.toml").write_text(EXPECTED)
    ini = ("-o", "goldens_tolerances=theirs.toml")
    parity(*ini, factory="make_faulty", keywords=SOME).assert_outcomes(passed=3, xfailed=1)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            LOOSE + "expires = 2020-02-03",
            "tolerance?0? (layers.0.q_proj) expired on 2020-02-03: remove it, or *",
        ),
        (LOOSE.replace("layers.0.q_proj", "*"), "tolerance?0? (?) is about every component of *tiny.h5*"),
        ("[[tolerance", "* is not TOML*"),
    ],
    ids=["expired", "everything", "no TOML"],
)
def test_what_is_refused_is_an_error_at_collection(
    parity: Run, usual: Callable[[str], None], text: str, sentence: str
) -> None:
    usual(text)
    result = parity(keywords=SOME)
    result.assert_outcomes(errors=1)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines([f"*goldens/tolerances.toml*{sentence}"])
    result.stdout.no_fnmatch_line("*Traceback*")


def test_a_file_that_is_refused_stops_no_other_tests(
    project: pytest.Pytester, usual: Callable[[str], None]
) -> None:
    usual("nonsense")
    project.makepyfile("def test_it():\n    pass\n")
    project.runpytest().assert_outcomes(passed=1)


def test_two_rows_that_speak_alike_fail_what_they_speak_of(parity: Run, usual: Callable[[str], None]) -> None:
    usual(LOOSE + LOOSE)
    result = parity(keywords=SOME)
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(["*tolerance?0? * and tolerance?1? * are equally specific*"])
    usual(EXPECTED + EXPECTED)
    parity(keywords=SOME).assert_outcomes(passed=3, failed=1)


def test_an_expected_failure_is_xfailed(parity: Run, usual: Callable[[str], None]) -> None:
    usual(EXPECTED)
    result = parity("-rxN", factory="make_faulty", keywords=SOME)
    result.assert_outcomes(passed=3, xfailed=1)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["tiny.h5: 3 pass, 1 fail (1 expected), 0 unmeasured"])
    result.stdout.no_fnmatch_line("*first wrong*")
    result = parity("-rx", factory="make_faulty", keywords=SOME)
    result.stdout.fnmatch_lines(["XFAIL *layers.0.q_proj* - *known (error 1e+06 x noise floor)"])


def test_one_that_passes_fails(parity: Run, usual: Callable[[str], None]) -> None:
    usual(EXPECTED)
    result = parity(keywords=SOME)
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*expected to fail (known), and passes: remove the row from goldens/tolerances.toml*",
            "tiny.h5: 3 pass, 1 fail, 0 unmeasured",
        ]
    )
    result.stdout.no_fnmatch_line("*explained*")
    result.stdout.no_fnmatch_line("*would pass*")


def test_runxfail_shows_it_in_full(parity: Run, usual: Callable[[str], None]) -> None:
    usual(EXPECTED)
    result = parity("--runxfail", factory="make_faulty", keywords=SOME)
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(["*layers.0.q_proj   hello float32 isolated   FAIL*", "  would pass with*"])


def test_it_is_the_same_in_several_processes(parity: Run, usual: Callable[[str], None]) -> None:
    usual(EXPECTED)
    result = parity("-p", "xdist.plugin", "-n", "2", factory="make_faulty", keywords=SOME)
    result.assert_outcomes(passed=3, xfailed=1)
    result.stdout.fnmatch_lines(["tiny.h5: 3 pass, 1 fail (1 expected), 0 unmeasured"])
