"""Workflows and Makefile: valid, careful, and nothing in them asks for what is not there."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest
import typer
from packaging.requirements import Requirement

from harness.cli.app import app

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
SCRIPTS = [*WORKFLOWS, ROOT / "Makefile", ROOT / ".ci" / "nightly", ROOT / ".ci" / "run"]
COMMANDS = typer.main.get_command(app).commands
BIN = Path(sys.executable).parent

needs_linters = pytest.mark.skipif(not (BIN / "zizmor").exists(), reason="zizmor is not installed")


def lines(path: Path) -> list[str]:
    """With lines that go on in the next one joined, without comments, and without variables of make for programs."""
    text = path.read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if not line.strip().startswith("#")]


def targets() -> set[str]:
    return {
        name for line in lines(ROOT / "Makefile") if (name := line.partition(":")[0]) and name == name.strip()
    }


@needs_linters
def test_workflows_keep_to_their_schema() -> None:
    command = [BIN / "check-jsonschema", "--builtin-schema", "vendor.github-workflows", *WORKFLOWS]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout


@needs_linters
def test_the_workflow_to_copy_is_as_good(tmp_path: Path) -> None:
    block = re.search(
        r"(?:^    .*\n|^\n)+", (ROOT / "docs" / "ci.md").read_text().split("## Every push")[1], re.M
    )
    assert block is not None
    path = tmp_path / ".github" / "workflows" / "parity.yml"
    path.parent.mkdir(parents=True)
    head = "name: parity\non: push\npermissions:\n  contents: read\n"
    path.write_text(head + textwrap.dedent(block[0]).lstrip())
    for command in (
        [BIN / "check-jsonschema", "--builtin-schema", "vendor.github-workflows", path],
        [BIN / "zizmor", "--offline", "--quiet", "--config", ROOT / ".github" / "zizmor.yml", path],
    ):
        told = subprocess.run(command, capture_output=True, text=True, check=False)
        assert told.returncode == 0, told.stdout


@needs_linters
def test_workflows_give_strangers_nothing() -> None:
    command = [BIN / "zizmor", "--offline", "--quiet", ".github/workflows"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_every_target_that_is_made_exists(path: Path) -> None:
    made = {word for line in lines(path) for word in re.findall(r"^[^#\"'`]*?\bmake ([a-z][a-z-]+)", line)}
    assert made <= targets()


def parts_of_the_night() -> list[str]:
    script = (ROOT / ".ci" / "nightly").read_text()
    return " ".join(re.findall(r'^all\+?="(.*?)"', script, re.MULTILINE)).split()


def test_the_parts_of_the_night_are_targets() -> None:
    parts = parts_of_the_night()
    assert len(parts) > 5
    assert set(parts) <= targets()


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_every_command_and_flag_that_is_used_exists(path: Path) -> None:
    for line in lines(path):
        for name, arguments in re.findall(r"(?:BIN\)|bin)/goldens ([a-z-]+)([^&|;]*)", line):
            known = {flag for option in COMMANDS[name].params for flag in option.opts}
            used = set(re.findall(r"(?<!\S)(--?[a-z][a-z-]*)", arguments))
            if "$(call REPORTS" in arguments:
                used |= {"--report", "--history"}
            assert used <= known, line


def test_parts_go_on_after_one_that_fails_and_the_end_says_which(tmp_path: Path) -> None:
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "nightly", tmp_path / ".ci")
    (tmp_path / "make").write_text(
        '#!/bin/sh\necho "$@" >> made\ncase "$2" in audit | worse) exit 2;; esac\necho "## $2" > reports/real.md\n'
    )
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "goldens").write_text("#!/bin/sh\necho since Tuesday\n")
    for program in ("make", ".venv/bin/goldens"):
        (tmp_path / program).chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "MODEL": "a model",
        "SEED": "20261126",
    }
    command = [tmp_path / ".ci" / "nightly"]
    told = subprocess.run(
        command, env=environment | {"RECORDED": "true"}, capture_output=True, text=True, check=False
    )
    assert told.returncode == 1
    made = (tmp_path / "made").read_text().splitlines()
    assert [line.split()[1] for line in made][-1] == "real-story"
    assert not any("record-real" in line for line in made)
    summary = (tmp_path / "reports" / "nightly.md").read_text()
    assert f"2 of {len(parts_of_the_night())} parts failed" in summary
    assert f"    make audit MODEL=a\\ model SEED=20261126 SHARD={20261126 % 7 + 1}/7 SEEDS=36\n" in summary
    assert "    make worse" in summary
    assert "since Tuesday" in summary
    assert re.search(r"It took: replay-stored \d+ min, .*real-story \d+ min\.", summary)
    assert "## real-story" in summary
    assert f"2 of {len(parts_of_the_night())} parts failed" in told.stdout
    (tmp_path / "make").write_text('#!/bin/sh\necho "$@" >> made\n')
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    assert "record-real" in (tmp_path / "made").read_text()


def pinned(name: str) -> dict[str, str]:
    text = (ROOT / name).read_text()
    return dict(line.split("==") for line in text.splitlines() if line and not line.startswith("#"))


def test_the_versions_that_are_told_are_those_that_are_tested() -> None:
    rows = re.findall(
        r"^\| (\w+)(?:, to record)? \| ([\d.]+) \| ([\d.]+) \|", (ROOT / "docs" / "ci.md").read_text(), re.M
    )
    assert len(rows) == 6
    lowest, tested = pinned("constraints-lowest.txt"), pinned("constraints.txt")
    for name, low, high in rows:
        assert (lowest[name], tested[name]) == (low, high)


def test_the_lowest_versions_are_the_lower_ends_of_the_ranges() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    promised = [*project["dependencies"], *extras["record"], *extras["remote"]]
    named = [Requirement(text) for text in [*promised, *extras["dev"]]]
    lower = {
        one.name: next(part.version for part in one.specifier if part.operator == ">=")
        for one in named
        if one.specifier
    }
    lowest = pinned("constraints-lowest.txt")
    assert {Requirement(name).name for name in promised} <= lowest.keys()
    for name, version in lowest.items():
        assert f"{version}.".startswith(f"{lower[name]}."), (
            f"{name}: {version} is not the lowest of >={lower[name]}"
        )
