"""What passes, what fails, what is skipped, and what a failure says."""

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
            "layers.0.q_proj   hello float32 isolated   FAIL   error 1e+06 x noise floor",
            "  error 0.1 whole, 0.1 worst row, 0.1 worst channel; allowed 4e-07 whole*",
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
        ["FAILED *isolated/layers.0.q_proj] - *layers.0.q_proj   hello float32 isolated   FAIL*"]
    )


def test_unmeasured_fails(parity: Run) -> None:
    result = parity(factory="make_partial", keywords='dtypes="float32", cases="hello"')
    result.assert_outcomes(passed=7, failed=2)
    result.stdout.fnmatch_lines(
        ["layers.0.act   hello float32 isolated   UNMEASURED   the port does not offer this component"]
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
