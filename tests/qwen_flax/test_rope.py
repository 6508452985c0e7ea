from pathlib import Path

import jax
import numpy as np
import pytest

from harness.model import Mode, Verdict
from harness.replay.port import load_port
from harness.replay.session import Session
from harness.store.reader import GoldenFile
from qwen_flax.config import RopeScaling
from qwen_flax.rope import RotaryEmbedding, inverse_frequencies

GOLDENS = Path(__file__).parents[2] / "goldens"


@pytest.mark.parametrize("theta", [1e4, 1e6, 5e6])
@pytest.mark.parametrize("head_dim", [10, 64, 128])
def test_frequencies_are_the_reference_s_but_for_the_last_place(theta, head_dim):
    torch = pytest.importorskip("torch")
    reference = 1.0 / (theta ** (torch.arange(0, head_dim, 2, dtype=torch.float) / head_dim))
    np.testing.assert_array_max_ulp(inverse_frequencies(theta, head_dim), reference.numpy(), maxulp=1)


def test_angles_are_float32_in_bfloat16_too():
    rope = RotaryEmbedding(1e6, 64, "bfloat16")
    cos = np.asarray(rope.cos(np.array([[256, 257]])))
    assert cos.dtype == "bfloat16"
    assert abs(float(cos[0, 1, 0]) - np.cos(257)) < 0.01


def test_dynamic_frequencies_follow_the_longest_position_of_a_call():
    rope = RotaryEmbedding(1e4, 16, "float32", RopeScaling("dynamic", 4.0, 32))
    frequencies = jax.jit(rope.frequencies)
    plain = inverse_frequencies(1e4, 16)
    up_to, beyond = np.array([[0, 31], [0, 5]]), np.array([[0, 5], [0, 95]])
    np.testing.assert_array_equal(frequencies(up_to), plain)
    base = 1e4 * (4.0 * 96 / 32 - 3) ** (16 / 14)
    np.testing.assert_allclose(frequencies(beyond), base ** -(np.arange(8) / 8), rtol=1e-6)


def test_yarn_keeps_fast_frequencies_and_divides_slow_ones():
    plain = inverse_frequencies(1e4, 64)
    rope = RotaryEmbedding(1e4, 64, "float32", RopeScaling("yarn", 4.0, 4096, attention_factor=1.25))
    slower = np.asarray(rope.frequencies(np.array([[0]]))) / plain
    np.testing.assert_allclose(slower[:10], 1)
    np.testing.assert_allclose(slower[-8:], 0.25, rtol=1e-6)
    assert (np.diff(slower) <= 0).all()
    assert float(rope.cos(np.array([[0]]))[0, 0, 0]) == 1.25


def test_llama3_divides_waves_that_are_longer_than_the_original_length():
    plain = inverse_frequencies(5e5, 64)
    rope = RotaryEmbedding(5e5, 64, "float32", RopeScaling("llama3", 8.0, 8192))
    slower = np.asarray(rope.frequencies(np.array([[0]]))) / plain
    waves = 2 * np.pi / plain
    np.testing.assert_allclose(slower[waves < 8192 / 4], 1, rtol=1e-6)
    np.testing.assert_allclose(slower[waves > 8192], 1 / 8, rtol=1e-6)
    between = slower[(waves > 8192 / 4) & (waves < 8192)]
    assert len(between) > 0
    assert ((between < 1) & (between > 1 / 8)).all()


@pytest.mark.parametrize("rope_type", ["linear", "dynamic", "yarn", "llama3"])
def test_every_component_of_a_checkpoint_with_a_scaled_rope_passes(rope_type):
    file = GoldenFile.open(GOLDENS / f"qwen2-{rope_type}.h5")
    folder = str(GOLDENS / "checkpoints" / f"qwen2-{rope_type}")
    session = Session(file, lambda dtype: load_port("qwen_flax.port:make", folder, dtype))
    results = list(session.replay(file.select(), [Mode.ISOLATED, Mode.END_TO_END]))
    assert len(results) > 100
    assert [result.component for result in results if result.verdict is not Verdict.PASS] == []
