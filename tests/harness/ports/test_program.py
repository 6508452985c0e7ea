from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name

from harness.ports.calls import Marks
from harness.ports.program import compiled, run_operations, signature, sliced, trace

W = np.random.default_rng(0).standard_normal((3, 4, 4)).astype(np.float32)
X = np.random.default_rng(1).standard_normal((2, 4)).astype(np.float32)


def layer(x, w):
    x = checkpoint_name(x, "in")
    return checkpoint_name(x + jax.nn.silu(x @ w), "out")


def plainly(v, i):
    x = i["x"]
    for n in range(3):
        x = layer(x, v["w"][n])
    return x


def scanned(v, i, wrap=lambda f: f):
    return jax.lax.scan(wrap(lambda x, w: (layer(x, w), None)), i["x"], v["w"])[0]


def backwards(v, i):
    return jax.lax.scan(lambda x, w: (layer(x, w), None), i["x"], v["w"], reverse=True)[0]


WAYS = {
    "plainly": plainly,
    "scanned": scanned,
    "remat in scan": partial(scanned, wrap=jax.checkpoint),
    "jit in scan": partial(scanned, wrap=jax.jit),
    "jit": jax.jit(plainly),
    "jit in jit": jax.jit(lambda v, i: jax.jit(plainly)(v, i)),
}


def programs(function):
    return trace(function, {"w": W}, {"x": X}, Marks(lambda *_: True))


def values_of(program, outputs, given):
    part = sliced(program, outputs, list(given))
    values = {**program.constants, program.parameters["w"]: W, **given}
    run_operations(part.before, values)
    return part, compiled(part, {})(*(values[leaf] for leaf in part.leaves))


@pytest.mark.parametrize("way", WAYS)
def test_the_whole_is_what_the_function_gives(way):
    program = programs(WAYS[way])
    _, (whole,) = values_of(program, program.outputs, {program.inputs["x"]: X})
    np.testing.assert_allclose(whole, jax.jit(plainly)({"w": W}, {"x": X}), rtol=1e-6)
    assert len(program.named["out"]) == 3


@pytest.mark.parametrize("way", WAYS)
def test_a_part_is_that_of_one_layer_and_all_layers_are_one_program(way):
    program = programs(WAYS[way])
    found = set()
    for n, (before, after) in enumerate(zip(program.named["in"], program.named["out"], strict=True)):
        part, (value,) = values_of(program, [after], {before: X})
        np.testing.assert_allclose(value, jax.jit(layer)(X, W[n]), rtol=1e-6)
        found.add(signature(program, part))
    assert len(found) == 1


def test_a_scan_from_the_end_counts_as_it_runs():
    program = programs(backwards)
    _, (value,) = values_of(program, program.named["out"][:1], {program.named["in"][0]: X})
    np.testing.assert_allclose(value, jax.jit(layer)(X, W[2]), rtol=1e-6)


def test_a_cut_that_is_not_needed_is_no_leaf():
    program = programs(plainly)
    part = sliced(program, program.named["out"][:1], [program.named["out"][2], program.inputs["x"]])
    assert program.named["out"][2] not in part.leaves
    assert program.inputs["x"] in part.leaves


def test_arrays_that_a_model_holds_itself_are_constants():
    held = np.arange(4, dtype=np.float32)
    program = programs(lambda v, i: checkpoint_name(i["x"] * held, "scaled"))
    _, (value,) = values_of(program, program.named["scaled"], {program.inputs["x"]: X})
    np.testing.assert_array_equal(value, X * held)


def test_a_number_makes_another_program():
    def times(factor):
        program = programs(lambda v, i: i["x"] * factor)
        return signature(program, sliced(program, program.outputs, [program.inputs["x"]]))

    assert times(1 + 2**-20) != times(1.0)
    assert times(2.0) == times(2.0)


def test_an_output_may_be_a_number_or_an_input():
    program = programs(lambda v, i: (i["x"], 3.0, jnp.ones(2)))
    _, values = values_of(program, program.outputs, {program.inputs["x"]: X})
    for value, right in zip(values, (X, 3.0, np.ones(2)), strict=True):
        np.testing.assert_array_equal(value, right)


def test_what_jax_does_not_write_out_is_run_as_it_is():
    def powers(v, i):
        return jax.lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] @ v["w"][0]), (0, i["x"]))[1]

    program = programs(powers)
    _, (value,) = values_of(program, program.outputs, {program.inputs["x"]: X})
    np.testing.assert_allclose(value, jax.jit(powers)({"w": W}, {"x": X}), rtol=1e-6)
