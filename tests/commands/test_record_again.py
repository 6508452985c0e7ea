"""Recording again, with another transformers or from another checkpoint: goldens are never replaced unseen."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from harness.store.reader import GoldenFile
from tests.rewritten import rewrite

RECORD = ("record", "suites/small.toml", "--case", "random-1", "--keep", "layers=1")
GOLDEN, PENDING = Path("small.h5"), Path("small.h5.new")
UP_PROJ = "model.layers.1.mlp.up_proj.weight"


def as_if_by(version, **changed):
    """The golden file as another version of transformers recorded it."""
    versions = GoldenFile.open(GOLDEN).contents.provenance["versions"] | {"transformers": version}
    rewrite(GOLDEN, GOLDEN, provenance={"versions": versions}, **changed)
    return GOLDEN.read_bytes()


def one_element_otherwise(array):
    array = np.array(array)
    array[1, 4, 7] *= 1.001
    return array


@pytest.fixture
def recorded(goldens):
    told = goldens(*RECORD)
    assert told.status == 0, told.err
    return goldens


def test_another_version_that_gives_the_same_is_told(recorded):
    before = as_if_by("4.99.0")
    told = recorded(*RECORD)
    assert told.status == 0
    now = GoldenFile.open(GOLDEN).contents.provenance["versions"]["torch"]
    assert "small.h5: recorded again, bit by bit the same, with transformers 4.99.0 -> " in told.out
    assert told.out.rstrip().endswith("; left as it is")
    assert f"torch {now}" not in told.out, "it is the same"
    assert GOLDEN.read_bytes() == before
    assert not PENDING.exists()


def test_another_version_that_gives_other_numbers_waits_to_be_accepted(recorded):
    path = "goldens/float32/random-1/layers.1.mlp.act/output"
    before = as_if_by("4.99.0", arrays={path: one_element_otherwise})
    told = recorded(*RECORD)
    assert told.status == 1
    assert "small.h5: recorded again, and it differs; left as it is" in told.out
    assert "version changed: transformers   4.99.0 -> " in told.out
    assert "layers.1.mlp.act" in told.out
    assert "`goldens accept` takes it" in told.out
    assert GOLDEN.read_bytes() == before
    shown = recorded("diff", "small.h5")
    assert shown.status == 1
    assert "version changed: transformers   4.99.0 -> " in shown.out
    assert [line.split()[0] for line in shown.out.splitlines() if line.startswith("layers")] == [
        "layers.1.mlp.act"
    ]
    new = PENDING.read_bytes()
    assert recorded("accept", "small.h5").status == 0
    assert GOLDEN.read_bytes() == new


def test_another_checkpoint_waits_and_can_be_rejected(recorded, change_tensors):
    before = GOLDEN.read_bytes()

    def scale(tensors):
        tensors[UP_PROJ] *= 2

    change_tensors(scale)
    told = recorded(*RECORD)
    assert told.status == 1
    shown = recorded("diff", "small.h5")
    assert shown.status == 1
    for said in (told.out, shown.out):
        assert "checkpoint file changed: model.safetensors" in said
        assert f"parameter changed: {UP_PROJ}   sha256 " in said
        assert "layers.1.mlp.up_proj" in said
    assert GOLDEN.read_bytes() == before
    assert recorded("reject", "small.h5").status == 0
    assert GOLDEN.read_bytes() == before
    assert not PENDING.exists()


def test_the_same_tensors_in_another_file_wait_too(recorded, tmp_path):
    """Replay refuses a checkpoint whose files are not the recorded ones: agreeing would leave nothing to replay."""
    from safetensors.numpy import load_file, save_file

    path = tmp_path / "checkpoint" / "model.safetensors"
    save_file(load_file(path), path, metadata={"format": "pt", "saved": "again"})
    told = recorded(*RECORD)
    assert told.status == 1
    assert "checkpoint file changed: model.safetensors" in told.out
    assert recorded("replay", "small.h5", "--include", "*.act", "--mode", "isolated").status == 2
    assert recorded("accept", "small.h5").status == 0
    assert recorded("replay", "small.h5", "--include", "*.act", "--mode", "isolated").status == 0


def test_neither_is_a_port_recorded_over_the_reference_nor_the_reference_over_a_port(recorded):
    before = GOLDEN.read_bytes()
    told = recorded("record", "--from-port", "--like", "small.h5", "-o", "small.h5")
    assert told.status == 2
    assert "small.h5 was recorded from the reference, and this recording is from a port" in told.err
    assert GOLDEN.read_bytes() == before
    assert recorded("record", "--from-port", "--like", "small.h5", "-o", "port.h5").status == 0
    told = recorded(*RECORD, "-o", "port.h5")
    assert told.status == 2
    assert "port.h5 was recorded from a port, and this recording is from the reference" in told.err


def test_a_port_is_recorded_where_the_reference_kept_a_part(recorded):
    """What a component takes in at every key is written whole, though it is no output of the file."""
    told = recorded(*RECORD[:4], "--keep", "tokens=0,-1", "--keep", "layers=1", "-o", "part.h5")
    assert told.status == 0, told.err
    assert recorded("record", "--from-port", "--like", "part.h5", "-o", "port.h5").status == 0
    assert recorded("verify", "port.h5").status == 0
    told = recorded("replay", "port.h5")
    assert told.status == 0, told.out
    ours, theirs = (GoldenFile.open(name) for name in ("port.h5", "part.h5"))
    assert len(ours.contents.goldens) == len(theirs.contents.goldens)
    shapes = [
        {
            (g.component, a): file.tensors[row].shape
            for g in file.contents.goldens
            for a, row in g.inputs.items()
        }
        for file in (ours, theirs)
    ]
    assert shapes[0] == shapes[1]
