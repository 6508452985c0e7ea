"""What README and docs show is what happens."""

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PYTEST = (ROOT / "docs" / "pytest.md").read_text()
PORTS = (ROOT / "docs" / "ports.md").read_text()


def test_the_readme_shows_the_parity_test_that_there_is() -> None:
    source = (ROOT / "tests" / "test_parity.py").read_text()
    assert textwrap.indent(source[source.index("import pytest") :].rstrip(), "    ") in README


def test_the_id_in_the_readme_is_one() -> None:
    (shown,) = re.findall(r"^    (tests/test_parity\.py::\S+)$", README, re.MULTILINE)
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", shown]
    collected = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert shown in collected.stdout.splitlines()


def test_every_setting_is_documented() -> None:
    from harness.marker import FACE
    from harness.plugin import options

    arguments = set(re.findall(r"(\w+)=", FACE))
    cells = re.findall(r"^\|[^|]*\|([^|]*)\|", PYTEST, re.MULTILINE)
    assert arguments == {name for cell in cells for name in re.findall(r"`(\w+)=", cell)}
    source = Path(options.__file__).read_text()
    names = re.findall(r'\bini\("(\w+)"', source)
    flags = re.findall(r'\boption\(\s*"(--[\w-]+)"', source)
    assert len(names) > len(flags) > 5
    rows = [line for line in PYTEST.splitlines() if line.startswith("| ")]
    for name in names:
        (row,) = [row for row in rows if f"`{name}`" in row]
        flag = f"--{name.replace('_', '-')}"
        assert (flag in flags) == (f"`{flag}=" in row)


@pytest.fixture(scope="module")
def replay(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Replay the port that docs/ports.md shows."""
    (example,) = re.findall(r"Save this as `my_port.py`:\n\n(.*?)\nand replay it", PORTS, re.DOTALL)
    folder = tmp_path_factory.mktemp("ports")
    (folder / "my_port.py").write_text(textwrap.dedent(example))

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        golden = str(ROOT / "goldens" / "qwen2-tiny.h5")
        command = [
            sys.executable,
            "-m",
            "harness.cli",
            "replay",
            golden,
            "--port",
            "my_port:make",
            *arguments,
        ]
        wide = os.environ | {"COLUMNS": "200"}
        return subprocess.run(command, cwd=folder, env=wide, capture_output=True, text=True, check=False)

    return run


def shown_after(text: str, command: str) -> list[str]:
    """The lines of a document's example output."""
    block = text[text.index(command) :].split("\n\n## ")[0]
    return [line.strip() for line in block.splitlines()[1:] if line.strip() not in ("", "...")]


def test_the_port_in_the_docs_gives_what_they_show(replay) -> None:
    told = replay("--dtype", "float32", "--case", "left-padded")
    assert told.returncode == 1
    lines = {line.strip() for line in told.stdout.replace(f"{ROOT}/", "").splitlines()}
    shown = shown_after(
        PORTS,
        "$ goldens replay goldens/qwen2-tiny.h5 --port my_port:make --dtype float32 --case left-padded\n",
    )
    assert len(shown) == 3
    assert set(shown) <= lines


def test_it_holds_with_the_listing_in_the_docs(replay) -> None:
    listing = re.findall(r"--unmeasured '([^']+)'", PORTS)
    listed = (word for reason in listing for word in ("--unmeasured", reason))
    told = replay("--dtype", "float32", "--case", "left-padded", *listed)
    assert told.returncode == 0, told.stdout + told.stderr
    assert "its parts are compared" in told.stdout


def test_what_its_factory_refuses_is_shown(replay) -> None:
    told = replay("--dtype", "bfloat16")
    assert told.returncode == 2
    assert "this port runs in float32 only, not in bfloat16" in told.stderr
