"""A checkpoint's copy holds the edit and nothing else; the original is never written to."""

import json

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from harness.audit.edited import edited
from harness.audit.fault import DoesNotApply, EditedCheckpoint, EditedConfig
from harness.checkpoints import file_digests
from harness.weights import Weights

INDEX = "model.safetensors.index.json"
SHARDS = {"a": "1.safetensors", "b": "1.safetensors", "c": "2.safetensors"}


@pytest.fixture
def folder(tmp_path):
    """Three tensors in two files with an index, and a config.json."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for shard in set(SHARDS.values()):
        held = {
            n: np.arange(6).reshape(2, 3).astype(ml_dtypes.bfloat16) for n in SHARDS if SHARDS[n] == shard
        }
        save_file(held, folder / shard, {"format": "pt"})
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 36}, "weight_map": SHARDS}))
    (folder / "config.json").write_text(json.dumps({"rope_theta": 1e6, "nested": {"depth": 1}}))
    return folder


def checkpoint(edit):
    return EditedCheckpoint(("*",), edit)


def test_a_setting_is_edited_in_the_copy_alone(folder):
    before = file_digests(folder)
    with edited(folder, EditedConfig(("*",), lambda config: config["nested"].update(depth=2))) as copy:
        assert json.loads((copy / "config.json").read_text()) == {"rope_theta": 1e6, "nested": {"depth": 2}}
        linked = {path.name for path in copy.iterdir() if path.is_symlink()}
        assert linked == {*SHARDS.values(), INDEX}
    assert not copy.exists()
    assert file_digests(folder) == before


def test_a_tensor_is_edited_in_the_copy_alone_and_its_file_only(folder):
    before = file_digests(folder)

    def edit(tensors):
        tensors["b"] = -tensors["b"]

    with edited(folder, checkpoint(edit)) as copy:
        linked = {path.name for path in copy.iterdir() if path.is_symlink()}
        assert linked == {"2.safetensors", INDEX, "config.json"}
        found = Weights(copy)
        assert found["b"].dtype == ml_dtypes.bfloat16
        assert (found["b"] == -Weights(folder)["b"]).all()
        assert (found["a"] == Weights(folder)["a"]).all()
    assert file_digests(folder) == before


def test_a_tensor_that_goes_is_gone_from_file_and_index(folder):
    with edited(folder, checkpoint(lambda tensors: tensors.pop("c"))) as copy:
        assert set(load_file(copy / "2.safetensors")) == set()
        assert json.loads((copy / INDEX).read_text())["weight_map"] == {"a": SHARDS["a"], "b": SHARDS["b"]}


def test_a_tensor_that_comes_is_in_file_and_index(folder):
    with edited(folder, checkpoint(lambda tensors: tensors.update(d=tensors["c"]))) as copy:
        assert set(load_file(copy / "1.safetensors")) == {"a", "b", "d"}
        assert json.loads((copy / INDEX).read_text())["weight_map"] == {**SHARDS, "d": "1.safetensors"}


@pytest.mark.parametrize(
    "planting",
    [
        EditedConfig(("*",), lambda config: config.update(rope_theta=1_000_000)),
        checkpoint(lambda tensors: None),
        checkpoint(lambda tensors: tensors.update(a=tensors["a"].copy())),
    ],
    ids=["same setting", "no tensor", "same tensor"],
)
def test_an_edit_that_changes_nothing_does_not_apply(folder, planting):
    with pytest.raises(DoesNotApply, match="that the fault changes"), edited(folder, planting):
        pass


def test_a_tensor_cannot_be_edited_in_place(folder):
    def edit(tensors):
        tensors["a"][0] = 0

    with pytest.raises(ValueError, match="read-only"), edited(folder, checkpoint(edit)):
        pass


def test_the_same_bytes_in_another_dtype_are_another_tensor(folder):
    with edited(folder, checkpoint(lambda tensors: tensors.update(a=tensors["a"].view(np.float16)))) as copy:
        assert Weights(copy)["a"].dtype == np.float16
