"""What a project says of itself once, in `[tool.goldens]` of its pyproject.toml. Imports nothing heavy."""

import sys
import tomllib
from pathlib import Path
from typing import Any

from harness.errors import GoldensError


def port_setting(folder: Path) -> str:
    """`port` of the nearest pyproject.toml, in `folder` or above it; empty when none is named."""
    path = project_folder(folder) / "pyproject.toml"
    return _port(path) if path.is_file() else ""


def fault_settings(folder: Path) -> tuple[Path, ...]:
    """`faults` of the nearest pyproject.toml: files of faults in the port's source, relative to it."""
    project = project_folder(folder)
    path = project / "pyproject.toml"
    named = _table(path).get("faults", []) if path.is_file() else []
    files = [named] if isinstance(named, str) else named
    if not isinstance(files, list) or not all(isinstance(file, str) for file in files):
        raise GoldensError(f"{path}: faults under [tool.goldens] is {named!r}, expected paths of TOML files")
    return tuple(project / file for file in files)


def tolerance_setting(folder: Path) -> Path | None:
    """`tolerances` of the nearest pyproject.toml, relative to it; else goldens/tolerances.toml, if it is there."""
    project = project_folder(folder)
    path = project / "pyproject.toml"
    named = _table(path).get("tolerances") if path.is_file() else None
    if named is None:
        usual = project / "goldens" / "tolerances.toml"
        return usual if usual.is_file() else None
    if not isinstance(named, str) or not named:
        raise GoldensError(
            f"{path}: tolerances under [tool.goldens] is {named!r}, expected the path of a TOML file"
        )
    return project / named


def project_folder(folder: Path) -> Path:
    """Where the nearest pyproject.toml is, in `folder` or above it; `folder` when there is none."""
    places = (folder, *folder.parents)
    return next((place for place in places if (place / "pyproject.toml").is_file()), folder)


def _table(path: Path) -> dict[str, Any]:
    """`[tool.goldens]` of a pyproject.toml; empty if it has none."""
    try:
        project = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise GoldensError(f"{path} is not TOML: {error}") from error
    tool = project.get("tool", {})
    table = tool.get("goldens", {}) if isinstance(tool, dict) else tool
    if not isinstance(table, dict):
        raise GoldensError(f"{path}: [tool.goldens] is {table!r}, expected a table: port = 'MODULE:FACTORY'")
    return table


def _port(path: Path) -> str:
    port = _table(path).get("port", "")
    if not isinstance(port, str):
        raise GoldensError(f"{path}: port under [tool.goldens] is {port!r}, expected 'MODULE:FACTORY'")
    return port


def make_importable(folder: Path) -> None:
    """Let a port that lies in `folder`, and is not installed, be imported by its module's name."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
