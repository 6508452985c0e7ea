"""Where a port is named once for a project."""

from pathlib import Path

import pytest

from harness.errors import GoldensError
from harness.settings import port_setting


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
