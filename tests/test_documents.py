"""Every command that the README and the tutorial show is run, and tells what they show."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.cli.app import app
from harness.cli.examples import EXAMPLES
from tests.commandline import runner
from tests.documents import alike, examples, first_untold

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
TUTORIAL = (DOCS / "tutorial.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def tell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[[str], str]:
    """Run a command of a document: `goldens` in a clone, `pytest` in the tutorial's own folder beside it."""
    clone, parity = tmp_path / "flax-goldens", tmp_path / "parity"
    for folder in (clone, parity):
        folder.mkdir()
    for name in ("goldens", "tests", "qwen_flax", "pyproject.toml"):
        (clone / name).symlink_to(ROOT / name)
    for name, content in re.findall(r"`parity/(\S+)`:\n\n((?:    .*\n|\n)+)", TUTORIAL):
        (parity / name).write_text(textwrap.dedent(content))
    monkeypatch.chdir(clone)
    monkeypatch.delenv("CI", raising=False)
    goldens = runner(monkeypatch, capsys)
    monkeypatch.setenv("COLUMNS", "200")

    def tell(command: str) -> str:
        program, *arguments = shlex.split(command)
        if program == "goldens":
            told = goldens(*arguments)
            assert told.status in (0, 1), told.err
            return told.out
        assert program == "pytest"
        process = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
            cwd=parity,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        return process.stdout

    return tell


@pytest.mark.parametrize(
    "example",
    [
        pytest.param(example, id=f"{name}: {example.command}")
        for name, page in {"README": README, "tutorial": TUTORIAL}.items()
        for example in examples(page)
    ],
)
def test_what_is_shown_is_told(example, tell) -> None:
    told = tell(example.command)
    assert example.shown
    assert first_untold(example.shown, told) is None, told


def test_the_documents_show_commands() -> None:
    assert len(examples(README)) >= 1
    assert {example.command.split()[1] for example in examples(TUTORIAL)} >= {
        "replay",
        "explain",
        "audit",
        "-q",
    }


@pytest.mark.parametrize(
    ("shown", "told", "expected"),
    [
        (["a", "b"], "a\n\nb\n", None),
        (["a", "..."], "a\nb\nc\n", None),
        (["a", "...", "c"], "a\nb\nc\n", None),
        (["...", "c"], "a\nb\nc\n", None),
        (["a", "c"], "a\nb\nc\n", ("c", "b")),
        (["a", "b"], "a\nb\nc\n", ("nothing", "c")),
        (["...", "c", "a"], "a\nb\nc\n", ("a", "nothing")),
        (["59 pass"], "58 pass\n", ("59 pass", "58 pass")),
        (["error 1.5 whole"], "error 1.4 whole\n", None),
        (["a", "b"], "a\n", ("b", "nothing")),
    ],
)
def test_what_is_shown_stands_in_order_and_whole(shown, told, expected) -> None:
    assert first_untold(shown, told) == expected


@pytest.mark.parametrize(
    ("word", "other", "expected"),
    [
        ("59/65", "59/65", True),
        ("59/65", "58/65", False),
        ("1.4", "1.5", True),
        ("0.72", "0", True),
        ("1.4", "140.5", False),
        ("2.5", "-2.5", False),
        ("`q_proj`", "`k_proj`", False),
    ],
)
def test_what_is_the_same_on_another_machine(word, other, expected) -> None:
    assert alike(word, other) is expected


def test_the_reference_of_commands_is_what_they_declare() -> None:
    spec = importlib.util.spec_from_file_location("make_commands", DOCS / "make_commands.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (DOCS / "commands.md").read_text(encoding="utf-8") == module.page(), "write it again: make docs"


def typed_examples() -> list[str]:
    return [typed for command in EXAMPLES.values() for typed in command.values()]


@pytest.mark.parametrize("typed", typed_examples())
def test_every_example_of_the_help_can_be_typed(typed: str) -> None:
    import typer

    program, name, *arguments = shlex.split(typed)
    assert program == "goldens"
    command = typer.main.get_command(app).commands[name]
    command.make_context(name, arguments)


def test_every_command_has_an_example_and_its_help_shows_it(monkeypatch, capsys) -> None:
    goldens = runner(monkeypatch, capsys)
    names = {info.callback.__name__ for info in app.registered_commands}
    assert names == set(EXAMPLES)
    for name in sorted(names):
        shown = goldens(name.replace("_", "-"), "--help").out
        for what, typed in EXAMPLES[name].items():
            assert f"  # {what}\n" in shown
            assert f"    {typed}\n" in shown
