"""Where a port, and the faults of its source, are named once for a project."""

from pathlib import Path

import pytest

from harness.audit.command import source_setting
from harness.errors import GoldensError
from harness.settings import fault_settings, port_setting


def test_the_nearest_pyproject_decides(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text('[tool.goldens]\nport = "outer:make"\n')
    assert port_setting(inner) == "outer:make"
    (tmp_path / "a" / "pyproject.toml").write_text("[project]\nname = 'a'\n")
    assert port_setting(inner) == ""


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[tool", "pyproject.toml is not TOML"),
        ("[tool.goldens]\nport = 3", "is 3, expected 'MODULE:FACTORY'"),
    ],
)
def test_a_wrong_setting_gets_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(GoldensError, match=sentence):
        port_setting(tmp_path)


def project(folder: Path, faults: str) -> Path:
    """A project that names its port and faults, and a folder inside it."""
    (folder / "inner").mkdir()
    (folder / "pyproject.toml").write_text(f'[tool.goldens]\nport = "mine:make"\nfaults = {faults}\n')
    return folder / "inner"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('["a.toml", "more/b.toml"]', ["a.toml", "more/b.toml"]),
        ('"a.toml"', ["a.toml"]),
        ("[]", []),
    ],
)
def test_faults_are_relative_to_the_pyproject_that_names_them(
    tmp_path: Path, text: str, names: list[str]
) -> None:
    assert fault_settings(project(tmp_path, text)) == tuple(tmp_path / name for name in names)


def test_no_faults_need_be_named(tmp_path: Path) -> None:
    assert fault_settings(tmp_path) == ()
    (tmp_path / "pyproject.toml").write_text("[tool.other]\n")
    assert fault_settings(tmp_path) == ()


@pytest.mark.parametrize("text", ["3", "[3]", "{ a = 1 }"])
def test_faults_that_are_no_paths_get_one_sentence(tmp_path: Path, text: str) -> None:
    with pytest.raises(
        GoldensError, match=r"faults under \[tool.goldens\] is .*, expected paths of TOML files"
    ):
        fault_settings(project(tmp_path, text))


def test_faults_are_of_the_port_that_is_named_beside_them(tmp_path: Path) -> None:
    inner = project(tmp_path, '"a.toml"')
    assert source_setting(inner, None) == source_setting(inner, "mine:make") == (tmp_path / "a.toml",)
    assert source_setting(inner, "other:make") == ()
