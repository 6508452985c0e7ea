"""What of the model is split over which axis of a mesh."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

from qwen_flax import config as configs
from qwen_flax.checkpoint import TABLE
from qwen_flax.sharding import PARAMETERS, MeshError, check, spec_of

ROOT = Path(__file__).parents[2]
CONFIG = configs.read(ROOT / "goldens" / "checkpoints" / "qwen2-tiny")  # 14 and 2 heads
K_PROJ = ("layers", 0, "self_attn", "k_proj", "kernel")


def mesh(**sizes):
    return AbstractMesh(tuple(sizes.values()), tuple(sizes))


def test_every_parameter_of_the_table_has_its_place():
    assert sorted(PARAMETERS) == sorted(row.path for row in TABLE)


def test_an_axis_that_the_mesh_lacks_splits_nothing():
    assert spec_of(K_PROJ, mesh(tp=2), CONFIG) == P("tp", None)
    assert spec_of(K_PROJ, mesh(dp=2), CONFIG) == P(None, None)


def test_key_value_heads_are_whole_where_they_cannot_be_split():
    assert spec_of(K_PROJ, mesh(tp=7), CONFIG) == P()
    assert spec_of((*K_PROJ[:3], "q_proj", "kernel"), mesh(tp=7), CONFIG) == P("tp", None)


@pytest.mark.parametrize(
    ("sizes", "sentence"),
    [
        ({"tp": 4}, "tp=4 does not divide 14 query heads of this checkpoint"),
        ({"tp": 7}, "tp=7 does not divide 160 channels of the MLP and 512 tokens of the vocabulary"),
        ({"fsdp": 2}, "has an axis fsdp"),
    ],
)
def test_what_cannot_be_split_evenly_is_refused(sizes, sentence):
    with pytest.raises(MeshError, match=sentence):
        check(mesh(**sizes), CONFIG)


def test_a_mesh_that_divides_all_is_accepted():
    check(mesh(dp=3, tp=8), replace(CONFIG, num_attention_heads=16))


ON_FOUR_DEVICES = """
import jax
jax.config.update("jax_num_cpu_devices", 4)
import numpy as np
from qwen_flax import cache, checkpoint, config, sharding
from qwen_flax.generate import generate

folder = "goldens/checkpoints/qwen2-tiny"
read = config.read(folder)
mesh = jax.make_mesh((2, 2), ("dp", "tp"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
whole = checkpoint.load(folder, read, dtype="float32")
split = checkpoint.load(folder, read, dtype="float32", mesh=mesh)
for model in (whole, split):
    kernel = model.layers[0].mlp.down_proj.kernel[...]
    print([shard.data.shape for shard in kernel.addressable_shards])
ids = np.arange(12).reshape(2, 6)
one = generate(whole, read, ids, np.ones_like(ids), max_new_tokens=6)
with sharding.on(mesh):
    four = generate(split, read, ids, np.ones_like(ids), max_new_tokens=6)
print((one.tokens == four.tokens).all())
"""


def test_each_device_holds_its_part_and_the_text_that_is_written_stays():
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", ON_FOUR_DEVICES]
    told = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert told.returncode == 0, told.stderr
    assert told.stdout.splitlines() == ["[(112, 160)]", str([(112, 80)] * 4), "True"]
