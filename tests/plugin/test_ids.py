"""Which tests there are, and what they are called."""

import textwrap
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
        ('unmeasured={"*.act": "  "}', "takes unmeasured={'GLOB': 'REASON'}"),
        ('unmeasured={"*.act": 3}', "takes unmeasured={'GLOB': 'REASON'}"),
        ('unmeasured="*.act"', "takes unmeasured={'GLOB': 'REASON'}"),
        ("include=3", "takes text, or a list of texts, for include, not 3"),
        ("cases=[1]", "takes text, or a list of texts, for cases, not [[]1]"),
        ("dtypes=None", "takes text, or a list of texts, for dtypes, not None"),
        ("modes=[]", "modes=[[]] selects nothing: name one, or leave modes= out"),
        ("dtypes=()", "dtypes=() selects nothing: name one, or leave dtypes= out"),
        ("3", "takes names of golden files, not 3"),
        ('["a.h5", "b.h5"]', "takes names of golden files, not [[]'a.h5', 'b.h5']"),
        ("checkpoint=3", "takes checkpoint='FOLDER', not 3"),
        ('checkpoint=" "', "takes checkpoint='FOLDER', not ' '"),
        ('unmeasured={"none*": "x"}', "matches 'none[*]'"),
    ],
)
def test_a_wrong_marker_gets_one_sentence(parity: Run, keywords: str, sentence: str) -> None:
    result = parity(keywords=keywords)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"test_parity.py::test_component: *{sentence}*"])
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*harness/*")


@pytest.mark.parametrize(
    "source",
    [
        """
        @pytest.mark.goldens("tiny.h5", cases="hello")
        @pytest.mark.goldens("tiny.h5", cases="padded")
        def test_component(goldens, port):
            goldens.check(port)
        """,
        """
        pytestmark = [pytest.mark.goldens("tiny.h5"), pytest.mark.goldens("other.h5")]

        def test_component(goldens, port):
            goldens.check(port)
        """,
    ],
    ids=["function", "module"],
)
def test_no_marker_is_dropped_in_silence(project: pytest.Pytester, source: str) -> None:
    project.makepyfile("import pytest\n" + textwrap.dedent(source))
    result = project.runpytest()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["test_*::test_component: * has the marker goldens 2 times: name all files in one marker, *"]
    )
    result.stdout.no_fnmatch_line("*harness/*")


def test_the_nearest_marker_decides(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import pytest

        pytestmark = pytest.mark.goldens("missing.h5")

        @pytest.mark.goldens("tiny.h5")
        def test_component(goldens, port):
            goldens.check(port)
        """
    )
    project.runpytest().assert_outcomes(passed=36)


def test_files_of_one_name_are_told_apart(project: pytest.Pytester, parity: Run) -> None:
    (project.path / "sub").mkdir()
    (project.path / "sub" / "tiny.h5").write_bytes((project.path / "tiny.h5").read_bytes())
    keywords = '"sub/tiny.h5", include="lm_head", cases="hello", dtypes="float32", modes="isolated"'
    result = parity("-v", keywords=keywords)
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        [
            "test_parity.py::test_component?tiny.h5/hello/float32/isolated/lm_head? PASSED*",
            "test_parity.py::test_component?sub/tiny.h5/hello/float32/isolated/lm_head? PASSED*",
            "tiny.h5: 1 pass, 0 fail, 0 unmeasured",
            "sub/tiny.h5: 1 pass, 0 fail, 0 unmeasured",
        ]
    )


def test_a_file_named_twice_is_one_file(parity: Run) -> None:
    keywords = '"./tiny.h5", include="lm_head", cases="hello", dtypes="float32", modes="isolated"'
    assert ids(parity("--collect-only", "-q", keywords=keywords)) == ["tiny/hello/float32/isolated/lm_head"]


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
