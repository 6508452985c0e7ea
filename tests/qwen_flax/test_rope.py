import numpy as np
import pytest

from qwen_flax.rope import RotaryEmbedding, inverse_frequencies


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
