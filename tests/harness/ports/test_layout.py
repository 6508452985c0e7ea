import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.ports.layout import LayoutError, layers_axis, of_one_layer, to_port, to_reference
from harness.ports.tap import Param, Part, Tap

SIZES = {"K": 2, "G": 3, "D": 4}
LAYOUTS = (
    "B T (K G D) -> B T K G D",
    "B T (K G D) -> T B (K G) D",
    "B T (K G D) -> B K G D T",
    "B T (K G D) -> B T (K G D)",
    "B T (K G D) -> (B T) (D G K)",
)


@given(st.sampled_from(LAYOUTS), st.integers(1, 3), st.integers(1, 4))
def test_there_and_back_is_the_same(layout, batch, tokens):
    value = np.random.default_rng(0).standard_normal((batch, tokens, 24)).astype(np.float32)
    sizes = {**SIZES, "B": batch}
    there = to_port(value, Tap(layout=layout), sizes)
    np.testing.assert_array_equal(to_reference(jnp.asarray(there), Tap(layout=layout), sizes), value)


def test_a_letter_that_only_the_reference_has_is_copies():
    held = np.arange(2 * 5 * 2 * 4).reshape(2, 5, 2, 4)
    repeated = to_reference(held, Tap(layout="B (K G) T D -> B T K D"), SIZES)
    np.testing.assert_array_equal(repeated, np.repeat(held.swapaxes(1, 2), 3, axis=1))
    np.testing.assert_array_equal(to_port(repeated, Tap(layout="B (K G) T D -> B T K D"), SIZES), held)


def test_interleaved_pairs_are_a_permutation():
    halves = np.arange(8).reshape(1, 1, 8)
    pairs = Tap(layout="B T (E F) -> B T (F E)")
    np.testing.assert_array_equal(to_port(halves, pairs, {"E": 2})[0, 0], [0, 4, 1, 5, 2, 6, 3, 7])


def test_one_of_several_parts():
    fused = np.arange(40.0).reshape(1, 1, 40)
    query, key = (Tap(part=Part(index, ("K G D", "K D", "K D"))) for index in (0, 1))
    np.testing.assert_array_equal(to_reference(fused, query, SIZES), fused[..., :24])
    np.testing.assert_array_equal(to_reference(fused, key, SIZES), fused[..., 24:32])
    whole = to_port(fused[..., :24], query, SIZES)
    assert np.isnan(whole[..., 24:]).all()
    both = to_port(fused[..., 24:32], key, SIZES, into=whole)
    np.testing.assert_array_equal(both[..., :32], fused[..., :32])
    assert np.isnan(both[..., 32:]).all()


def test_parts_along_another_axis_and_of_a_number():
    padded = np.arange(14).reshape(7, 2)
    np.testing.assert_array_equal(
        to_reference(padded, Param("x", part=Part(0, (5, 2), axis=0)), {}), padded[:5]
    )


def test_layers_are_along_an_axis_of_their_own():
    where = Param("layers.q", "(K D) C -> C L K D")
    assert layers_axis(where) == 1
    assert of_one_layer(where) == Param("layers.q", "(K D) C -> C K D")
    assert layers_axis(Param("q", "O I -> I O")) is None
    assert layers_axis(Param("q")) is None


@pytest.mark.parametrize(
    ("where", "shape", "says"),
    [
        (Tap(layout="B T C"), (1, 1, 1), "is not written as REFERENCE'S AXES -> PORT'S AXES"),
        (
            Tap(layout="B T (K D) -> B T K D"),
            (1, 1, 7),
            "'B T (K D) -> B T K D' does not fit a value of shape (1, 1, 7)",
        ),
        (Tap(layout="B T C -> B T"), (1, 1, 7, 1), "does not fit a value of shape (1, 1, 7, 1)"),
        (Tap(part=Part(0, ("K", "X"))), (1,), "the size of X in the part 'X' is not among the sizes given"),
        (Tap(part=Part(0, ("K", "D"))), (5,), "1 along axis -1"),
    ],
)
def test_what_does_not_fit_is_refused(where, shape, says):
    value = np.zeros(shape)
    with pytest.raises(LayoutError) as refusal:
        to_port(value[..., :1] if where.part else value, where, SIZES)
    assert says in str(refusal.value) or where.part
    assert "\n" not in str(refusal.value)
