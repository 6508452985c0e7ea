"""`--goldens-dir`, `goldens_dir`: where golden files lie."""

from collections.abc import Callable

import pytest

pytest_plugins = ["pytester"]
Run = Callable[..., pytest.RunResult]
ONE = 'include="lm_head", cases="hello", dtypes="float32", modes="isolated"'


@pytest.fixture
def moved(project: pytest.Pytester) -> pytest.Pytester:
    """The project, with its golden file in `data`, and a test that names it as before."""
    (project.path / "data").mkdir()
    (project.path / "tiny.h5").rename(project.path / "data" / "tiny.h5")
    checkpoint = project.path / "checkpoint"
    project.makepyfile(
        test_parity=f"""
        import pytest

        @pytest.mark.goldens("tiny.h5", {ONE}, checkpoint="{checkpoint}")
        def test_component(goldens, port):
            goldens.check(port)
        """
    )
    return project


def ini(project: pytest.Pytester, folder: str) -> None:
    project.makeini(f"[pytest]\ngoldens_port = tests.fakes:make\ngoldens_dir = {folder}\n")


def test_the_setting_is_relative_to_rootdir(moved: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    ini(moved, "data")
    monkeypatch.chdir(moved.path / "data")
    moved.runpytest("..").assert_outcomes(passed=1)


def test_the_flag_is_relative_to_the_current_folder(
    moved: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved.runpytest("--goldens-dir=data").assert_outcomes(passed=1)
    monkeypatch.chdir(moved.path / "data")
    moved.runpytest("--goldens-dir=.", "..").assert_outcomes(passed=1)


def test_the_flag_goes_first(moved: pytest.Pytester) -> None:
    ini(moved, "elsewhere")
    moved.runpytest().assert_outcomes(failed=1)
    moved.runpytest("--goldens-dir", "data").assert_outcomes(passed=1)


def test_an_absolute_path_needs_neither(moved: pytest.Pytester) -> None:
    ini(moved, "elsewhere")
    test = moved.path / "test_parity.py"
    test.write_text(test.read_text().replace('"tiny.h5"', f'"{moved.path / "data" / "tiny.h5"}"'))
    moved.runpytest().assert_outcomes(passed=1)
