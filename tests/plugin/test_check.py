"""What passes, what fails, what is skipped, and what a failure says."""

import textwrap
from collections.abc import Callable

import pytest

pytest_plugins = ["pytester"]
Run = Callable[..., pytest.RunResult]


def test_a_right_port_passes(parity: Run) -> None:
    parity().assert_outcomes(passed=36)


def test_a_wrong_component_fails_by_itself_and_first(parity: Run) -> None:
    result = parity(factory="make_faulty", keywords='dtypes="float32", cases="hello"')
    result.assert_outcomes(passed=4, failed=5)
    result.stdout.fnmatch_lines(
        [
            "error 2e+05 x limit: the right output times 1.1   layers.0.q_proj   hello float32 isolated   FAIL",
            "  error 0.1 whole, 0.1 worst row, 0.1 worst channel; allowed * whole*",
            "  largest difference at *: port *, golden *",
            "  golden: tiny.h5, digest ????????????",
            "  again: pytest 'test_parity.py::test_component?tiny/hello/float32/isolated/layers.0.q_proj?'",
        ]
    )
    result.stdout.no_fnmatch_line("*harness/*")
    result.stdout.fnmatch_lines(
        [
            "*= goldens =*",
            "tiny.h5: 4 pass, 5 fail, 0 unmeasured",
            "  layers.0.q_proj   hello float32 isolated   FAIL   error 1e+06 x noise floor",
            "    first wrong component in forward order (1 of 4 before it pass)",
        ]
    )
    result.stdout.fnmatch_lines(
        ["FAILED *isolated/layers.0.q_proj] - *error 2e+05 x limit: the right output times 1.1 *"]
    )


def test_unmeasured_fails(parity: Run) -> None:
    result = parity(factory="make_partial", keywords='dtypes="float32", cases="hello"')
    result.assert_outcomes(passed=7, failed=2)
    result.stdout.fnmatch_lines(
        ["the port does not offer this component   layers.0.act   hello float32 isolated   UNMEASURED"]
    )


def test_listed_unmeasured_is_skipped_with_its_reason(parity: Run) -> None:
    keywords = 'dtypes="float32", cases="hello", unmeasured={"*.act": "fused into the product"}'
    result = parity("-rs", factory="make_partial", keywords=keywords)
    result.assert_outcomes(passed=7, skipped=2)
    result.stdout.fnmatch_lines(["SKIPPED*listed: fused into the product"])
    result.stdout.fnmatch_lines(["tiny.h5: 7 pass, 0 fail, 2 unmeasured (2 listed)"])


def test_a_listing_excuses_no_failure(parity: Run) -> None:
    keywords = 'dtypes="float32", modes="isolated", cases="hello", unmeasured={"*": "all"}'
    parity(factory="make_faulty", keywords=keywords).assert_outcomes(passed=3, failed=1)


@pytest.mark.parametrize(
    "body",
    ["def test_component(goldens, port):\n    pass", "def test_component():\n    pass"],
    ids=["no check", "no fixture"],
)
def test_a_marked_test_that_compares_nothing_fails(project: pytest.Pytester, body: str) -> None:
    marker = 'include="lm_head", cases="hello", dtypes="float32", modes="isolated"'
    project.makepyfile(f'import pytest\n@pytest.mark.goldens("tiny.h5", {marker})\n{body}\n')
    result = project.runpytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["marked with goldens, and nothing was compared: call goldens.check(port)"])


def test_a_test_that_fails_otherwise_keeps_its_own_failure(project: pytest.Pytester) -> None:
    project.makepyfile('import pytest\n@pytest.mark.goldens("tiny.h5")\ndef test_it():\n    assert 1 == 2\n')
    project.runpytest().stdout.fnmatch_lines(["*assert 1 == 2*"])


def test_damage_is_found_by_the_test_that_reads_it(project: pytest.Pytester, parity: Run) -> None:
    from harness.store.reader import GoldenFile

    file = GoldenFile.open(project.path / "tiny.h5")
    head = next(golden for golden in file.contents.goldens if golden.component == "lm_head")
    content = bytearray(file.path.read_bytes())
    content[file.tensors[head.output].offset] ^= 1
    file.path.write_bytes(content)
    result = parity()
    result.assert_outcomes(passed=34, failed=2)
    result.stdout.fnmatch_lines(["*tiny.h5 is damaged at /goldens/float32/hello/lm_head/output: *"])
    result.stdout.fnmatch_lines(["tiny.h5: 34 pass, 0 fail, 0 unmeasured, 2 could not be compared"])


UNCOMPARED = """
    import pytest

    @pytest.fixture
    def other():
        {setup}

    @pytest.mark.goldens("tiny.h5", include="lm_head", cases="hello", dtypes="float32")
    def test_component(goldens, port, other):
        if goldens.comparison.mode == "isolated":
            {body}
        goldens.check(port)
"""


@pytest.mark.parametrize(
    ("setup", "body", "passed", "uncompared"),
    [
        ("pass", "raise RuntimeError('crash')", 1, 1),
        ("pass", "goldens.check(3)", 1, 1),
        ("pass", "goldens.check(port); goldens.check(3)", 1, 1),
        ("raise RuntimeError('crash')", "pass", 0, 2),
    ],
    ids=["crash", "no port", "second of two", "fixture"],
)
def test_what_could_not_be_compared_is_counted(
    project: pytest.Pytester, setup: str, body: str, passed: int, uncompared: int
) -> None:
    project.makepyfile(textwrap.dedent(UNCOMPARED).format(setup=setup, body=body))
    project.runpytest().stdout.fnmatch_lines(
        [
            "*= goldens =*",
            f"tiny.h5: {passed} pass, 0 fail, 0 unmeasured, {uncompared} could not be compared",
        ]
    )


def test_a_test_that_is_skipped_otherwise_is_not_counted(project: pytest.Pytester) -> None:
    project.makepyfile(textwrap.dedent(UNCOMPARED).format(setup="pytest.skip('later')", body="pass"))
    result = project.runpytest()
    result.assert_outcomes(skipped=2)
    result.stdout.no_fnmatch_line("*could not be compared*")


def test_results_of_other_processes_are_summed_up(parity: Run) -> None:
    result = parity("-p", "xdist.plugin", "-n", "2", factory="make_faulty", keywords='dtypes="float32"')
    result.stdout.fnmatch_lines(
        [
            "tiny.h5: 8 pass, 10 fail, 0 unmeasured",
            "  layers.0.q_proj   * float32 isolated   FAIL   error 1e+06 x noise floor",
            "    first wrong component in forward order (1 of 4 before it pass)",
        ]
    )


def test_nothing_is_said_where_nothing_was_compared(project: pytest.Pytester) -> None:
    project.makepyfile("def test_it():\n    pass\n")
    project.runpytest().stdout.no_fnmatch_line("*goldens*")
