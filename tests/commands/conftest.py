"""A temporary project with a copy of a built-in checkpoint, and `goldens` run in it."""

import json
import shutil
from pathlib import Path

import pytest

from tests.commandline import runner, tell
from tests.commands.waiting import beside_them

ROOT = Path(__file__).parents[2]
SUITE = """
checkpoint = "../checkpoint"
dtypes = ["float32"]
cases = ["tiny-norm"]
facts = ["config"]

[[randomized]]
name = "random-1"
seed = 3
batch = 2
length = [3, 5]
padding = "left"
"""


@pytest.fixture
def goldens(monkeypatch, capsys, tmp_path):
    """Run `goldens` in a project with `checkpoint/`, `suites/small.toml` and the port of `qwen_flax`."""
    write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    return runner(monkeypatch, capsys)


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """The golden file of `suites/small.toml`, recorded once: `small.h5` in any such project."""
    folder = tmp_path_factory.mktemp("small")
    write_project(folder)
    told = tell(folder, "record", "suites/small.toml")
    assert told.status == 0, told.err
    return (folder / "small.h5").read_bytes()


def write_project(folder):
    shutil.copytree(ROOT / "goldens" / "checkpoints" / "qwen2-tiny", folder / "checkpoint")
    (folder / "suites").mkdir()
    (folder / "suites" / "small.toml").write_text(SUITE)
    (folder / "pyproject.toml").write_text('[tool.goldens]\nport = "qwen_flax.port:make"\n')


@pytest.fixture
def waiting(monkeypatch, capsys, tmp_path):
    """Run `goldens` in a folder that has `a.h5` and `goldens/b.h5`, each with a recording of a newer version."""
    return beside_them(monkeypatch, capsys, tmp_path)


@pytest.fixture
def change_config(tmp_path):
    """Change settings in `checkpoint/config.json`; None takes a setting away."""

    def change(**settings):
        path = tmp_path / "checkpoint" / "config.json"
        config = json.loads(path.read_text()) | settings
        path.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))

    return change


@pytest.fixture
def change_tensors(tmp_path):
    """Edit the checkpoint's tensors in place, given as a dictionary."""
    from safetensors.numpy import load_file, save_file

    def change(edit):
        path = tmp_path / "checkpoint" / "model.safetensors"
        tensors = load_file(path)
        edit(tensors)
        save_file(tensors, path, metadata={"format": "pt"})

    return change
