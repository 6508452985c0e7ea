"""`goldens record --resume`: what was recorded before an interruption is used, if it is what is asked for."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("torch")

from harness.record import command, reference, resumed
from harness.record.recorder import Recorder
from harness.store.reader import GoldenFile
from harness.whole import alone
from tests.commandline import tell
from tests.commands.conftest import ROOT, write_project
from tests.commands.conftest import SUITE as SMALL
from tests.commands.waiting import DEAD

SUITE = f"""{SMALL.replace("float32", "bfloat16")}
[[generation]]
name = "written"
prompt = "left-padded"
new_tokens = 4
"""
RECORD = ("record", "suites/small.toml")
RESUME = (*RECORD, "--resume")
ONE = (*RESUME, "--case", "tiny-norm")
GOLDEN, PARTS = Path("small.h5"), Path("small.h5.parts")
FIRST = PARTS / "tiny-norm.bfloat16.part"


def write(folder):
    """A project with the suite."""
    write_project(folder)
    (folder / "suites" / "small.toml").write_text(SUITE)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The parts of a recording that was ended by `kill -9` when the first of them was there."""
    folder = tmp_path_factory.mktemp("killed")
    write(folder)
    typed = [sys.executable, "-m", "harness.cli", *RESUME]
    process = subprocess.Popen(typed, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)})
    until = time.monotonic() + 300
    while not (folder / FIRST).exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (folder / GOLDEN).exists()
    return folder / PARTS


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The golden file that a recording in one go gives."""
    folder = tmp_path_factory.mktemp("whole")
    write(folder)
    told = tell(folder, *RECORD)
    assert told.status == 0, told.err
    return GoldenFile.open(folder / GOLDEN)


@pytest.fixture
def interrupted(goldens, killed, tmp_path):
    """`goldens`, in a project that has the parts."""
    (tmp_path / "suites" / "small.toml").write_text(SUITE)
    shutil.copytree(killed, tmp_path / PARTS)
    return goldens


@pytest.fixture
def recorded(monkeypatch):
    """The names of what the model is run for."""
    names = []
    whole, generation = Recorder.whole, Recorder.generation

    def seen_whole(self, cases, keep):
        names.extend(case.name for _, case in cases)
        return whole(self, cases, keep)

    def seen_generation(self, writing):
        names.append(writing.prompt.name)
        return generation(self, writing)

    monkeypatch.setattr(Recorder, "whole", seen_whole)
    monkeypatch.setattr(Recorder, "generation", seen_generation)
    return names


def left():
    return [path.name for path in sorted(Path().glob("*small.h5*"))]


def test_goes_on_behind_what_a_killed_one_left(interrupted, recorded, whole):
    before = len(list(PARTS.glob("*.part")))
    told = interrupted(*RESUME)
    assert told.status == 0, told.err
    assert f"resumed: {before} of 3 parts were there" in told.err
    assert recorded == ["tiny-norm", "random-1", "written"][before:], "what is there is not run again"
    file = GoldenFile.open(GOLDEN)
    assert file.digest == whole.digest
    assert file.tensors == whole.tensors, "in the same order, at the same places"
    assert interrupted("verify", "small.h5").status == 0
    assert left() == ["small.h5"]


def another_checkpoint(project, monkeypatch):
    from safetensors.numpy import load_file, save_file

    path = project / "checkpoint" / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.1.mlp.up_proj.weight"] *= 2
    save_file(tensors, path, metadata={"format": "pt"})


def another_suite(project, monkeypatch):
    prompts = project / "suites" / "prompts.toml"
    prompts.write_text('[[case]]\nname = "tiny-norm"\nprobe = "tiny-norm"\ntokens = 3\n')
    path = project / "suites" / "small.toml"
    path.write_text(path.read_text().replace("facts =", 'prompts = "prompts.toml"\nfacts ='))


def another_version(project, monkeypatch):
    monkeypatch.setattr(reference, "version", lambda name: "0.0.1")
    monkeypatch.setattr(resumed, "_own_source", lambda: "as it was")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (another_checkpoint, "another checkpoint"),
        (another_suite, "another input"),
        (another_version, "another version of a library and another version of this program"),
    ],
)
def test_a_part_of_something_else_is_not_used(interrupted, recorded, tmp_path, monkeypatch, change, what):
    change(tmp_path, monkeypatch)
    told = interrupted(*ONE)
    assert told.status == 0, told.err
    assert f"{FIRST}: is of {what}, so it is recorded again\n" in told.err
    assert "resumed: 0 of 1 parts were there" in told.err
    assert recorded == ["tiny-norm"]


def test_neither_is_one_of_other_components_nor_a_damaged_one(interrupted, recorded):
    content, place = bytearray(FIRST.read_bytes()), GoldenFile.open(FIRST).tensors[-1].offset
    content[place] ^= 1
    told = interrupted(*ONE, "--keep", "layers=1")
    assert told.status == 0, told.err
    assert f"{FIRST}: is of another choice of components, so it is recorded again\n" in told.err
    PARTS.mkdir()
    FIRST.write_bytes(content)
    told = interrupted(*ONE)
    assert f"{FIRST}: is damaged, so it is recorded again\n" in told.err
    assert recorded == ["tiny-norm", "tiny-norm"]


def test_two_at_once(interrupted):
    before = FIRST.read_bytes()
    with alone(GOLDEN, print):
        told = interrupted(*RESUME)
    assert told.status == 2
    assert f"small.h5 is being recorded or accepted by process {os.getpid()}" in told.err
    assert FIRST.read_bytes() == before


def test_what_an_interrupted_part_left_is_removed_and_what_somebody_put_there_stays(interrupted, recorded):
    partial = PARTS / f"random-1.bfloat16.part.{DEAD}.partial"
    partial.write_bytes(b"half")
    (PARTS / "notes.txt").write_text("mine")
    told = interrupted(*ONE)
    assert told.status == 0, told.err
    assert f"{partial}: removed, an interrupted recording left it\n" in told.err
    assert recorded == [], "the part was there"
    assert [path.name for path in PARTS.iterdir()] == ["notes.txt"]


def test_without_resume_parts_stay_until_the_recording_is_whole(interrupted, recorded, monkeypatch):
    def full(path):
        raise command.GoldensError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(command.shutil, "disk_usage", full)
        told = interrupted(*RECORD, "--case", "tiny-norm")
    assert told.status == 2
    assert "small.h5.parts: " in told.err
    assert "of an interrupted recording, which --resume goes on with; not used now\n" in told.err
    assert FIRST.exists()
    told = interrupted(*RECORD, "--case", "tiny-norm")
    assert told.status == 0
    assert recorded == ["tiny-norm"]
    assert "small.h5.parts: removed, an interrupted recording left it\n" in told.err
    assert left() == ["small.h5"]


def test_a_golden_file_that_is_there_is_settled_as_always(interrupted, whole):
    shutil.copy(whole.path, GOLDEN)
    before = GOLDEN.read_bytes()
    told = interrupted(*ONE)
    assert told.status == 1
    assert "case gone: random-1" in told.out
    assert GOLDEN.read_bytes() == before
    assert left() == ["small.h5", "small.h5.new"]


def test_room_is_needed_for_the_parts_too(interrupted, monkeypatch):
    """As much again, but for what is there."""
    usage = shutil.disk_usage(".")
    shutil.rmtree(PARTS)
    needed = []
    monkeypatch.setattr(command, "size", lambda nbytes: needed.append(nbytes) or f"{nbytes} bytes")
    monkeypatch.setattr(command.shutil, "disk_usage", lambda path: usage._replace(free=0))
    assert interrupted(*RECORD, "--case", "tiny-norm").status == 2
    assert interrupted(*ONE).status == 2
    assert needed[3] == 2 * needed[0]
