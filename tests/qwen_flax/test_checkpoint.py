import json
import re
import struct

import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from harness.ports import nnx_model
from harness.ports.loaded import Loaded
from harness.ports.parameters import Read
from qwen_flax import config
from qwen_flax.checkpoint import TABLE, CheckpointError, assignments, load
from qwen_flax.model import Model
from qwen_flax.port import PARAMETERS
from tests.qwen_flax import tiny


def loaded(folder, dtype="float32"):
    return load(folder, config.read(folder), dtype=dtype)


def parameters(model):
    held = nnx_model(model)
    return Read(PARAMETERS, Loaded(held.variables, held.shapes), {})


def test_every_row_of_the_table_names_one_parameter_of_some_model():
    assert len({row.reference for row in TABLE}) == len({row.path for row in TABLE}) == len(TABLE)
    used = set()
    for raw in (tiny.QWEN2, tiny.QWEN3):
        shapes = nnx.state(nnx.eval_shape(lambda raw=raw: Model(config.parse(raw), dtype="float32")))
        names = assignments(shapes)
        assert len({a.path for a in names.values()}) == len(names) == len(nnx.to_flat_state(shapes))
        used |= {re.sub(r"\.\d+\.", ".{n}.", name) for name in names}
    assert used == {row.reference for row in TABLE}


@pytest.mark.parametrize("raw", [tiny.QWEN2, tiny.QWEN3])
def test_the_names_are_those_of_the_reference(raw):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    kind = {"qwen2": transformers.Qwen2Config, "qwen3": transformers.Qwen3Config}[raw["model_type"]]
    with torch.device("meta"):
        reference = transformers.AutoModelForCausalLM.from_config(kind(**raw))
    shapes = {name: tuple(p.shape) for name, p in reference.named_parameters()}
    assert {name: array.shape for name, array in tiny.tensors(raw).items()} == shapes


def test_what_is_loaded_is_what_is_stored(folder, raw):
    found, stored = parameters(loaded(folder)), tiny.tensors(raw)
    assert found.keys() == stored.keys()
    for name, value in stored.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_projections_lie_as_they_are_stored_even_where_they_are_square(tmp_path):
    model, stored = loaded(tiny.write(tmp_path, tiny.QWEN2)), tiny.tensors(tiny.QWEN2)
    attention = model.layers[2].self_attn
    for projection in ("q_proj", "o_proj", "k_proj"):
        kernel = np.asarray(getattr(attention, projection).kernel[...])
        np.testing.assert_array_equal(kernel, stored[f"model.layers.2.self_attn.{projection}.weight"])


@pytest.mark.parametrize("stored_as", [np.float64, np.float32, ml_dtypes.bfloat16, np.float16])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_any_float_dtype_is_loaded_in_any_other(tmp_path, stored_as, dtype):
    arrays = {name: value.astype(stored_as) for name, value in tiny.tensors(tiny.QWEN2).items()}
    found = parameters(loaded(tiny.write(tmp_path, tiny.QWEN2, arrays), dtype))
    for name, value in arrays.items():
        assert found[name].dtype == dtype
        np.testing.assert_array_equal(found[name], value.astype(np.float32).astype(dtype), err_msg=name)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_tensor_that_is_read_in_blocks_is_whole(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr("qwen_flax.tensor_file._BLOCK", 7)
    arrays = {name: value.astype(ml_dtypes.bfloat16) for name, value in tiny.tensors(tiny.QWEN2).items()}
    found = parameters(loaded(tiny.write(tmp_path, tiny.QWEN2, arrays), dtype))
    for name, value in arrays.items():
        np.testing.assert_array_equal(found[name], value.astype(dtype), err_msg=name)


def shard(folder, arrays, files=2):
    """The arrays as `files` shards with an index, in place of the one file."""
    (folder / "model.safetensors").unlink()
    weight_map = {name: f"model-{i % files}.safetensors" for i, name in enumerate(arrays)}
    for file in set(weight_map.values()):
        save_file({name: arrays[name] for name, where in weight_map.items() if where == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map})
    )


def test_shards_are_loaded_as_one_file_is(folder, raw):
    whole = parameters(loaded(folder))
    shard(folder, tiny.tensors(raw))
    parts = parameters(loaded(folder))
    assert whole.keys() == parts.keys()
    assert all(np.array_equal(whole[name], parts[name]) for name in whole)


def test_all_that_is_wrong_is_listed_at_once(tmp_path):
    arrays = tiny.tensors(tiny.QWEN2)
    del arrays["model.norm.weight"], arrays["model.layers.1.self_attn.q_proj.bias"]
    arrays["model.layers.0.self_attn.q_norm.weight"] = np.ones(8, np.float32)
    arrays["model.layers.0.mlp.up_proj.weight"] = arrays["model.layers.0.mlp.up_proj.weight"].T.copy()
    arrays["lm_head.weight"] = arrays["lm_head.weight"][:-1].copy()
    with pytest.raises(CheckpointError) as caught:
        loaded(tiny.write(tmp_path, tiny.QWEN2, arrays))
    message = str(caught.value)
    assert "2 missing: model.layers.1.self_attn.q_proj.bias, model.norm.weight" in message
    assert "1 surplus: model.layers.0.self_attn.q_norm.weight" in message
    assert "2 of another shape" in message
    assert "model.layers.0.mlp.up_proj.weight [48, 64] instead of [64, 48]" in message
    assert "lm_head.weight [96, 48] instead of [97, 48]" in message


def test_a_head_beside_tied_embeddings_is_fine_only_as_their_copy(tmp_path):
    arrays = tiny.tensors(tiny.QWEN3)
    copied = {**arrays, "lm_head.weight": arrays["model.embed_tokens.weight"]}
    assert "lm_head.weight" not in parameters(loaded(tiny.write(tmp_path / "copied", tiny.QWEN3, copied)))
    copied["lm_head.weight"] = copied["lm_head.weight"] + 1
    with pytest.raises(CheckpointError, match=r"lm_head\.weight is not equal.*tie_word_embeddings"):
        loaded(tiny.write(tmp_path / "differs", tiny.QWEN3, copied))


def test_an_untied_model_needs_its_head(tmp_path):
    arrays = tiny.tensors(tiny.QWEN2)
    del arrays["lm_head.weight"]
    with pytest.raises(CheckpointError, match=r"1 missing: lm_head\.weight"):
        loaded(tiny.write(tmp_path, tiny.QWEN2, arrays))


def test_frequencies_that_old_checkpoints_hold_are_passed_over(tmp_path):
    arrays = {
        **tiny.tensors(tiny.QWEN2),
        "model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(4, np.float32),
        "model.rotary_emb.inv_freq": np.ones(4, np.float32),
    }
    assert "model.rotary_emb.inv_freq" not in parameters(loaded(tiny.write(tmp_path, tiny.QWEN2, arrays)))


def cut(file, to):
    file.write_bytes(file.read_bytes()[:to])


def with_header(file, change):
    """The file with its header as `change` leaves it."""
    content = file.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


DAMAGE = {
    "empty": lambda file: cut(file, 0),
    "header cut": lambda file: cut(file, 100),
    "payload cut": lambda file: cut(file, -1),
    "longer": lambda file: file.write_bytes(file.read_bytes() + b"0"),
    "no json": lambda file: file.write_bytes(struct.pack("<Q", 4) + b"spam"),
    "no object": lambda file: file.write_bytes(struct.pack("<Q", 2) + b"[]"),
    "gap": lambda file: with_header(file, lambda h: h.pop("model.norm.weight")),
    "bytes do not fit": lambda file: with_header(file, lambda h: h["model.norm.weight"].update(shape=[47])),
    "integers": lambda file: with_header(file, lambda h: h["model.norm.weight"].update(dtype="I32")),
    "no offsets": lambda file: with_header(file, lambda h: h["model.norm.weight"].pop("data_offsets")),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_named_in_one_sentence(tmp_path, damage):
    file = tiny.write(tmp_path, tiny.QWEN2) / "model.safetensors"
    DAMAGE[damage](file)
    with pytest.raises(CheckpointError, match=r"model\.safetensors") as caught:
        loaded(tmp_path)
    assert "\n" not in str(caught.value)


def remap(folder, change):
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    change(content["weight_map"])
    index.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (
            lambda f: (f / "model-1.safetensors").unlink(),
            "lists model-1.safetensors, which is not in the folder",
        ),
        (lambda f: (f / "model.safetensors.index.json").write_text("{}"), "no index of tensors"),
        (lambda f: remap(f, lambda m: m.update(spam="model-0.safetensors")), "do not hold: spam"),
        (
            lambda f: remap(f, lambda m: m.pop("model.norm.weight")),
            "model.norm.weight, which .* lists in no file",
        ),
        (lambda f: (f / "model.safetensors.index.json").unlink(), "holds neither model.safetensors nor"),
    ],
)
def test_an_index_must_agree_with_its_files(tmp_path, break_it, message):
    folder = tiny.write(tmp_path, tiny.QWEN2)
    shard(folder, tiny.tensors(tiny.QWEN2))
    break_it(folder)
    with pytest.raises(CheckpointError, match=message):
        loaded(folder)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint folder"):
        load(tmp_path / "nowhere", config.parse(tiny.QWEN2), dtype="float32")
