"""Which tests there are, and what they are called."""

from collections.abc import Callable

import pytest

pytest_plugins = ["pytester"]
Run = Callable[..., pytest.RunResult]


def ids(result: pytest.RunResult) -> list[str]:
    prefix = "test_parity.py::test_component["
    return [line.removeprefix(prefix)[:-1] for line in result.outlines if line.startswith(prefix)]


def test_one_test_a_component_in_the_order_of_forward_passes(parity: Run) -> None:
    found = ids(parity("--collect-only", "-q"))
    assert found[:9] == [
        "tiny/hello/float32/isolated/embed_tokens",
        "tiny/hello/float32/isolated/layers.0.q_proj",
        "tiny/hello/float32/isolated/layers.0.act",
        "tiny/hello/float32/isolated/lm_head",
        "tiny/hello/float32/end-to-end/embed_tokens",
        "tiny/hello/float32/end-to-end/layers.0.q_proj",
        "tiny/hello/float32/end-to-end/layers.0.act",
        "tiny/hello/float32/end-to-end/layers.0",
        "tiny/hello/float32/end-to-end/lm_head",
    ]
    runs = [name.split("/")[1:3] for name in found]
    assert runs[::9] == [
        ["hello", "float32"],
        ["padded", "float32"],
        ["hello", "bfloat16"],
        ["padded", "bfloat16"],
    ]
    assert runs == sorted(runs, key=runs.index)


def test_a_marker_selects(parity: Run) -> None:
    keywords = 'include="layers.*", exclude=["*.act"], cases="hello", dtypes="bfloat16", modes="end-to-end"'
    assert ids(parity("--collect-only", "-q", keywords=keywords)) == [
        "tiny/hello/bfloat16/end-to-end/layers.0.q_proj",
        "tiny/hello/bfloat16/end-to-end/layers.0",
    ]


def test_one_marker_names_several_files(project: pytest.Pytester, parity: Run) -> None:
    (project.path / "sub").mkdir()
    (project.path / "sub" / "other.h5").write_bytes((project.path / "tiny.h5").read_bytes())
    keywords = '"sub/other.h5", include="lm_head", cases="hello", dtypes="float32", modes="isolated"'
    assert ids(parity("--collect-only", "-q", keywords=keywords)) == [
        "tiny/hello/float32/isolated/lm_head",
        "other/hello/float32/isolated/lm_head",
    ]


def test_golden_files_lie_in_goldens_dir(project: pytest.Pytester) -> None:
    (project.path / "data").mkdir()
    (project.path / "tiny.h5").rename(project.path / "data" / "tiny.h5")
    project.makeini("[pytest]\ngoldens_dir = data\n")
    project.makepyfile(
        """
        import pytest

        @pytest.mark.goldens("tiny.h5")
        def test_component(goldens, port):
            goldens.check(port)
        """
    )
    project.runpytest("--collect-only").assert_outcomes()
    project.runpytest("--collect-only", "-q").stdout.fnmatch_lines(["36 tests collected*"])


@pytest.mark.parametrize(
    ("keywords", "sentence"),
    [
        ('includes="lm_head"', "the marker goldens knows no 'includes'; nearest: include"),
        ('include="layers.0.p_proj"', "matches 'layers.0.p_proj'; nearest: layers.0.q_proj"),
        ('modes="alone"', "knows no mode 'alone': it has isolated, end-to-end"),
        ('dtypes="float16"', "dtype 'float16' was not recorded"),
        ('cases="bye"', "case 'bye' was not recorded"),
        ('include="layers.0", modes="isolated"', "nothing that the marker selects has a golden for isolated"),
        ('unmeasured={"*": ""}', "takes unmeasured={'GLOB': 'REASON'}"),
        ('unmeasured={"none*": "x"}', "matches 'none[*]'"),
        ('"missing.h5"', "there is no golden file *missing.h5: record it with `goldens record`"),
    ],
)
def test_a_wrong_marker_gets_one_sentence(parity: Run, keywords: str, sentence: str) -> None:
    result = parity(keywords=keywords)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"test_parity.py::test_component: *{sentence}*"])
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*harness/*")


def test_the_fixture_needs_the_marker(project: pytest.Pytester) -> None:
    project.makepyfile("def test_component(goldens, port):\n    goldens.check(port)\n")
    result = project.runpytest()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["test_*::test_component uses the fixture `goldens` and has no marker: add @pytest.mark.goldens(*"]
    )


def test_another_fixture_of_that_name_is_left_alone(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import pytest

        @pytest.fixture
        def goldens():
            return 3

        def test_it(goldens):
            assert goldens == 3
        """
    )
    project.runpytest().assert_outcomes(passed=1)
