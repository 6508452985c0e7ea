"""Where the port comes from, and what is refused."""

import sys
from collections.abc import Callable

import pytest

from tests.fakes import write_checkpoint

pytest_plugins = ["pytester"]
Run = Callable[..., pytest.RunResult]
FEW = 'include="lm_head", dtypes="float32", cases="hello"'


def few(project: pytest.Pytester, **files: str) -> pytest.RunResult:
    """Two tests of one component, with what else is in the project."""
    project.makepyfile(
        f"""
        import pytest

        @pytest.mark.goldens("tiny.h5", {FEW})
        def test_component(goldens, port):
            goldens.check(port)
        """,
        **files,
    )
    return project.runpytest()


def test_the_project_names_it(project: pytest.Pytester) -> None:
    (project.path / "tox.ini").unlink()
    project.makepyprojecttoml('[tool.pytest.ini_options]\n[tool.goldens]\nport = "tests.fakes:make"\n')
    few(project).assert_outcomes(passed=2)


def test_a_module_in_the_project_needs_no_installation(project: pytest.Pytester) -> None:
    project.makeini("[pytest]\ngoldens_port = own_port:make\n")
    few(project, own_port="from tests.fakes import make").assert_outcomes(passed=2)


def test_a_fixture_of_that_name_is_used_instead(project: pytest.Pytester) -> None:
    project.makeini("[pytest]\n")
    conftest = """
        import pytest
        from tests.fakes import NumpyPort

        @pytest.fixture(scope="session")
        def port():
            return NumpyPort("float32", faulty={"lm_head"})
    """
    few(project, conftest=conftest).assert_outcomes(failed=2)


def test_a_port_in_another_dtype_does_not_pass(project: pytest.Pytester) -> None:
    conftest = """
        import pytest
        from tests.fakes import NumpyPort

        @pytest.fixture(scope="session")
        def port():
            return NumpyPort("bfloat16")
    """
    result = few(project, conftest=conftest)
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(
        ["the port answered in bfloat16, asked for float32: not compared   lm_head *"]
    )


@pytest.mark.parametrize(
    ("port", "sentence"),
    [
        ("", "no port is named: set goldens_port *"),
        ("no_such_module:make", "*no module named 'no_such_module'*"),
        ("tests.fakes:nothing", "*has no factory 'nothing'*"),
    ],
)
def test_a_port_that_cannot_be_made_gets_one_sentence(
    project: pytest.Pytester, port: str, sentence: str
) -> None:
    project.makeini(f"[pytest]\ngoldens_port = {port}\n")
    result = few(project)
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines([sentence])
    result.stdout.no_fnmatch_line("*harness/*")
    result.stdout.no_fnmatch_line("During handling of the above exception*")


def test_what_is_no_port_gets_one_sentence(project: pytest.Pytester) -> None:
    result = few(project, conftest="import pytest\n@pytest.fixture\ndef port():\n    return 3\n")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["goldens.check was given a int, which has no method 'trace'"])


def test_another_checkpoint_is_refused(project: pytest.Pytester, parity: Run) -> None:
    (write_checkpoint(project.path / "other") / "model.safetensors").write_bytes(b"trained on")
    result = parity(keywords=f'{FEW}, checkpoint="other"')
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["checkpoint *other is not the recorded one: *"])


def test_a_checkpoint_that_moved_is_named_by_the_marker(project: pytest.Pytester, parity: Run) -> None:
    (project.path / "checkpoint").rename(project.path / "moved")
    parity(keywords=FEW).assert_outcomes(failed=2)
    parity(keywords=f'{FEW}, checkpoint="moved"').assert_outcomes(passed=2)


def test_each_test_gets_the_checkpoint_that_its_marker_names(project: pytest.Pytester) -> None:
    (write_checkpoint(project.path / "other") / "model.safetensors").write_bytes(b"trained on")
    project.makepyfile(
        f"""
        import pytest

        @pytest.mark.goldens("tiny.h5", {FEW})
        def test_recorded(goldens, port):
            goldens.check(port)

        @pytest.mark.goldens("tiny.h5", checkpoint="other", {FEW})
        def test_other(goldens, port):
            goldens.check(port)
        """
    )
    result = project.runpytest()
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines(["checkpoint *other is not the recorded one: *"])


def test_a_port_given_as_an_object_takes_no_checkpoint(project: pytest.Pytester) -> None:
    """It is made already: to accept the keyword would be to seem to have checked its weights."""
    conftest = """
        import pytest
        from tests.fakes import NumpyPort

        @pytest.fixture(scope="session")
        def port():
            return NumpyPort("float32")
    """
    project.makepyfile(
        f"""
        import pytest

        @pytest.mark.goldens("tiny.h5", checkpoint="checkpoint", {FEW})
        def test_component(goldens, port):
            goldens.check(port)
        """,
        conftest=conftest,
    )
    result = project.runpytest()
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["the marker names checkpoint='*checkpoint', and goldens.check was given *"])


def test_a_port_is_looked_for_in_the_folder_that_names_it(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project.path / "tox.ini").unlink()
    project.makepyprojecttoml('[tool.goldens]\nport = "port_above:make"\n')
    project.makepyfile(port_above="from tests.fakes import make")
    inner = project.mkdir("inner")
    (inner / "pytest.ini").write_text("[pytest]\ngoldens_dir = ..\n")
    (inner / "test_parity.py").write_text(
        "import pytest\n\n"
        f'@pytest.mark.goldens("tiny.h5", {FEW})\n'
        "def test_component(goldens, port):\n    goldens.check(port)\n"
    )
    monkeypatch.chdir(inner)
    project.run(sys.executable, "-m", "pytest").assert_outcomes(passed=2)


def test_the_flag_names_it_and_a_module_in_the_current_folder(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    few(project).assert_outcomes(passed=2)
    inner = project.mkdir("inner")
    (inner / "port_here.py").write_text("from tests.fakes import make_partial as make\n")
    project.makeini("[pytest]\ngoldens_port = no_such_module:make\n")
    project.runpytest("--goldens-port=tests.fakes:make").assert_outcomes(passed=2)
    monkeypatch.chdir(inner)
    project.runpytest("--goldens-port=port_here:make", "..").assert_outcomes(passed=2)
