import jax.numpy as jnp
import numpy as np
import pytest

from qwen_flax.layers import product


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_token_by_itself_is_multiplied_as_it_is_among_others(dtype):
    draw = np.random.default_rng(0).standard_normal
    x, rows = jnp.asarray(draw((1, 3, 32)), dtype), jnp.asarray(draw((8, 32)), dtype)
    whole, alone = product(x, rows), product(x[:, 1:2], rows)
    assert alone.shape == (1, 1, 8)
    assert alone.dtype == whole.dtype == jnp.float32
    exact = np.asarray(x[0, 1], np.float64) @ np.asarray(rows, np.float64).T
    np.testing.assert_allclose(alone[0, 0], exact, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(alone, whole[:, 1:2], rtol=1e-5, atol=1e-5)
