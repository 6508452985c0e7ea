import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh

from harness.ports.parameters import ParameterError
from harness.replay.port import NotOffered
from qwen_flax.port import make as make_unwired
from tests.qwen_flax import tiny
from tests.qwen_flax.wiring import arguments, make

COMPOSITES = ["", ".self_attn", ".mlp"]


def composites(raw):
    return [f"layers.{n}{part}" for n in range(raw["num_hidden_layers"]) for part in COMPOSITES]


def wide(x):
    return np.asarray(x).astype(np.float64)


@pytest.mark.parametrize(
    ("raw", "dtype"),
    [(tiny.QWEN2, "float32"), (tiny.QWEN3, "float32"), (tiny.QWEN3, "bfloat16"), (tiny.QWEN3, "float16")],
)
def test_apply_gives_what_trace_gave_for_every_component_of_the_table(folder, raw, dtype):
    """Of padded rows, too: they see nothing, but stay finite."""
    port, table, case = make(str(folder), dtype=dtype, raw=raw), arguments(raw), tiny.padded_batch()
    traced = port.trace(case, [*table, *composites(raw)])
    assert traced.keys() == table.keys() | set(composites(raw))
    values = {**traced, **{f"case.{name}": value for name, value in case.items()}}
    for name, takes in table.items():
        (alone,) = port.apply(name, {argument: values[source] for argument, source in takes.items()}).values()
        assert alone.dtype == traced[name].dtype == dtype
        assert alone.shape == traced[name].shape
        assert np.isfinite(wide(alone)).all(), name
        scale = np.abs(wide(traced[name])).max()
        unit = float(jax.numpy.finfo(dtype).eps)
        np.testing.assert_allclose(
            wide(alone), wide(traced[name]), atol=2 * unit * scale, rtol=0, err_msg=name
        )


def test_composites_and_unknown_names_are_not_offered(folder, raw):
    port = make(str(folder), dtype="float32", raw=raw)
    unknown = ["", "spam", "layers", "layers.3.norm", "layers.0.self_attn.head_dim", "hidden", "norm.weight"]
    for name in [*composites(raw), *unknown]:
        with pytest.raises(NotOffered):
            port.apply(name, {"x": np.zeros((1, 1, 48), np.float32)})
    assert port.trace(tiny.padded_batch(), ["spam", "lm_head"]).keys() == {"lm_head"}


def test_a_port_that_was_told_nothing_runs_no_component(folder):
    with pytest.raises(
        ValueError, match=r"was not told what its components take in: a port around it hands on `wire"
    ):
        make_unwired(str(folder), dtype="float32").apply("norm", {"x": np.zeros((1, 1, 48), np.float32)})


def test_layers_share_a_compilation_and_so_do_modules_of_a_kind(tmp_path, caplog):
    port = make(str(tiny.write(tmp_path, tiny.QWEN2)), dtype="float32")
    x = np.ones((1, 29, 48), np.float32)  # a length that no other test compiles for
    q = np.ones((1, 6, 29, 8), np.float32)

    def compilations(calls):
        caplog.clear()
        with jax.log_compiles():
            for name, inputs in calls:
                port.apply(name, inputs)
        return sum("Compiling jit(component)" in record.getMessage() for record in caplog.records)

    assert compilations([(f"layers.{n}.self_attn.k_proj", {"x": x}) for n in range(3)]) == 1
    assert compilations([(f"layers.{n}.self_attn.v_proj", {"x": x}) for n in range(3)]) == 0
    assert compilations([(f"layers.{n}.input_layernorm", {"x": x}) for n in range(3)]) == 1
    assert compilations([("norm", {"x": x}), ("layers.1.post_attention_layernorm", {"x": x})]) == 0
    assert compilations([(f"layers.{n}.self_attn.scores", {"q": q, "k": q}) for n in range(3)]) == 1
    # layer 0 has no window, layers 1 and 2 have
    scores, mask, index = np.ones((1, 6, 29, 29), np.float32), np.ones((1, 29), int), np.arange(29)
    given = {"scores": scores, "attention_mask": mask, "query_index": index}
    assert compilations([(f"layers.{n}.self_attn.probs", given) for n in range(3)]) == 2


def test_parameters_come_back_as_the_checkpoint_has_them(folder, raw):
    found = make(str(folder), dtype="float32").parameters()
    assert found.keys() == tiny.tensors(raw).keys()
    assert all(np.array_equal(found[name], value) for name, value in tiny.tensors(raw).items())


def test_a_parameter_that_is_replaced_makes_another_port(folder, raw):
    port, case = make(str(folder), dtype="float32", raw=raw), tiny.padded_batch()
    before = wide(port.trace(case, ["lm_head"])["lm_head"])
    name = "model.layers.1.mlp.down_proj.weight"
    value = port.parameters()[name] * 2
    changed = port.with_parameters({name: value})
    np.testing.assert_array_equal(changed.parameters()[name], value)
    x = np.ones((1, 2, 64), np.float32)
    ours, theirs = (
        p.apply("layers.1.mlp.down_proj", {"x": x})["layers.1.mlp.down_proj"] for p in (port, changed)
    )
    np.testing.assert_allclose(wide(theirs), 2 * wide(ours), rtol=1e-5)
    assert not np.allclose(before, wide(changed.trace(case, ["lm_head"])["lm_head"]))
    np.testing.assert_array_equal(before, wide(port.trace(case, ["lm_head"])["lm_head"]))


def test_a_port_keeps_its_own_copy_of_what_it_is_given(folder):
    memory = np.ones(97 * 48 + 16, np.float32)
    start = -memory.ctypes.data % 64 // 4  # where XLA could use the memory as it is
    value = memory[start : start + 97 * 48].reshape(97, 48)
    name = "model.embed_tokens.weight"
    port = make(str(folder), dtype="float32").with_parameters({name: value})
    value[:] = 0
    assert (port.parameters()[name] == 1).all()


def test_a_tied_embedding_that_is_replaced_changes_the_head(tmp_path):
    port = make(str(tiny.write(tmp_path, tiny.QWEN3)), dtype="float32", raw=tiny.QWEN3)
    name = "model.embed_tokens.weight"
    changed = port.with_parameters({name: port.parameters()[name] * 2})
    x = np.ones((1, 2, 48), np.float32)
    ours, theirs = (p.apply("lm_head", {"x": x})["lm_head"] for p in (port, changed))
    np.testing.assert_allclose(wide(theirs), 2 * wide(ours), rtol=1e-5)


def test_overrides_that_do_not_fit_are_refused_together(folder):
    port = make(str(folder), dtype="float32")
    with pytest.raises(
        ParameterError, match=r"no parameter spam; parameter model.norm.weight has shape \(3,\) instead of"
    ):
        port.with_parameters({"spam": np.ones(1), "model.norm.weight": np.ones(3)})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float64"}, "dtype is 'float64'"),
        ({"dtype": "float32", "mesh": AbstractMesh((3,), ("tp",))}, "tp=3 does not divide"),
        ({"dtype": "float32", "mesh": AbstractMesh((2,), ("pp",))}, "the mesh has an axis pp"),
    ],
)
def test_what_a_port_cannot_be_made_with_is_refused(folder, options, message):
    with pytest.raises(ValueError, match=message):
        make(str(folder), **options)
