"""Parameters are read when a part of a model needs them, and do not all stay in memory."""

from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from harness.model import Mode
from harness.ports import ModelPort, Param, function_model, linen_model, loaded, nnx_model
from harness.ports.loaded import Loaded
from harness.replay.session import Session
from harness.store.reader import GoldenFile
from qwen_flax import checkpoint, config
from qwen_flax.port import Port
from tests.harness.ports import models

GOLDEN = "goldens/qwen2-tiny.h5"
CHECKPOINT = "goldens/checkpoints/qwen2-tiny"


class Told(Mapping):
    """Parameters that keep in mind which was asked for, in order."""

    def __init__(self, given):
        self.given, self.asked = given, []

    def __getitem__(self, name):
        self.asked.append(name)
        return self.given[name]

    def __iter__(self):
        return iter(self.given)

    def __len__(self):
        return len(self.given)


def of_numbers(**sizes):
    told = Told({name: np.full(size, 1.0, np.float32) for name, size in sizes.items()})
    shapes = {name: jax.ShapeDtypeStruct((size,), np.float32) for name, size in sizes.items()}
    return told, Loaded(told, shapes)


def test_what_is_held_is_asked_for_once():
    told, held = of_numbers(a=1, b=1)
    for names in (["a"], ["a", "b"], ["b"]):
        assert held.of(names).keys() == set(names)
    assert told.asked == ["a", "b"]


def test_what_others_need_the_place_of_is_forgotten_before_they_are_read(monkeypatch):
    monkeypatch.setattr(loaded, "KEPT", 12)
    told, held = of_numbers(a=1, b=2, c=1)
    held.of(["a"]), held.of(["b"]), held.of(["a"])
    assert told.asked == ["a", "b"]
    held.of(["c", "b"])
    assert told.asked == ["a", "b", "c"], "what is needed together with it stays"
    held.of(["a"])
    assert told.asked == ["a", "b", "c", "a"]


def test_a_part_that_needs_more_than_may_be_kept_has_it(monkeypatch):
    monkeypatch.setattr(loaded, "KEPT", 0)
    _, held = of_numbers(a=3, b=3)
    assert [value.sum() for value in held.of(["a", "b"]).values()] == [3, 3]


def test_a_twin_has_other_values_and_shares_the_rest():
    told, held = of_numbers(a=1, b=1)
    held.of(["a", "b"])
    twin = held.replaced({"b": jnp.full(1, 5.0)})
    assert (float(twin["a"][0]), float(twin["b"][0]), float(held["b"][0])) == (1, 5, 1)
    assert told.asked == ["a", "b"]


def test_what_is_read_ahead_is_read_once_and_has_its_place():
    told, held = of_numbers(a=1, b=1)
    held.read_ahead(["a", "b"]), held.read_ahead(["a"])
    assert [float(value[0]) for value in held.of(["b", "a"]).values()] == [1, 1]
    held.read_ahead(["a"])
    held.of(["a"])
    assert told.asked == ["a", "b"]


def test_nothing_is_read_ahead_that_others_would_be_forgotten_for(monkeypatch):
    monkeypatch.setattr(loaded, "KEPT", 8)
    told, held = of_numbers(a=1, b=1, c=1)
    held.of(["a"]), held.read_ahead(["b", "c"]), held.of(["b"])
    assert told.asked == ["a", "b"]


def test_what_cannot_be_read_ahead_is_said_when_it_is_asked_for():
    told, held = of_numbers(a=1)
    told.given = {}
    held.read_ahead(["a"])
    with pytest.raises(KeyError):
        held.of(["a"])


def test_a_replaced_parameter_is_not_taken_from_what_was_read_ahead():
    _, held = of_numbers(a=1)
    held.read_ahead(["a"])
    assert float(held.replaced({"a": np.full(1, 5.0, np.float32)})["a"][0]) == 5


@pytest.fixture
def told():
    settings = config.read(CHECKPOINT)
    model, parameters = checkpoint.opened(CHECKPOINT, settings, dtype="float32")
    return model, settings, Told(parameters)


def replayed(told, modes, *cases, include=()):
    model, settings, parameters = told
    file = GoldenFile.open(GOLDEN)
    goldens = file.select(include=include, cases=cases, dtypes=("float32",))
    port = Port(model, settings, "float32", parameters=parameters)
    session = Session(file, lambda dtype: port, [golden.component for golden in goldens])
    assert {result.verdict for result in session.replay(goldens, modes)} == {"pass"}
    return parameters.asked


def test_isolated_replay_loads_one_layer_after_another(told, monkeypatch):
    """Two cases, and no memory for anything but what a component needs."""
    monkeypatch.setattr(loaded, "KEPT", 0)
    asked = replayed(told, [Mode.ISOLATED], "left-padded", "right-padded")
    assert sorted(asked) == sorted(told[2].given), "each is asked for once"
    layers = [name.split(".")[1] for name in asked if name.startswith("layers.")]
    assert layers == sorted(layers)


def test_only_parameters_of_what_is_included_are_loaded(told):
    asked = replayed(told, [Mode.ISOLATED], "left-padded", include=("layers.1.mlp.up_proj",))
    assert asked == ["layers.1.mlp.up_proj.kernel"]


def test_a_whole_run_computes_what_is_included_and_no_more(told):
    wanted = ("layers.0.self_attn.q_proj",)
    asked = replayed(told, [Mode.END_TO_END], "left-padded", include=wanted)
    first = ["embed_tokens.embedding", "layers.0.input_layernorm.weight", "layers.0.self_attn.q_proj"]
    assert sorted(asked) == [*first[:2], f"{first[2]}.bias", f"{first[2]}.kernel"]


def by_shapes(framework):
    """A model that has arrays, and the same one that has shapes, and is to be asked for."""
    if framework == "nnx":
        own = nnx_model(models.ModelNnx(False))
        told = Told(own.variables)
        return own, nnx_model(nnx.eval_shape(lambda: models.ModelNnx(False)), told), told
    if framework == "linen":
        given, make = models.variables_linen(False), partial(linen_model, models.ModelLinen(False))
    else:
        head, embed = (models.TENSORS[f"{name}.weight"] for name in ("lm_head", "model.embed_tokens"))
        given = {"embed": embed, "layers": models.STACKED, "head": head.T}
        make = partial(function_model, models.plain_function)
    own = make(given)
    told = Told(own.variables)
    return own, make(jax.eval_shape(lambda: given), told), told


@pytest.mark.parametrize("framework", ["nnx", "linen", "function"])
def test_a_model_of_any_framework_may_have_shapes_alone(framework):
    own, shapes, told = by_shapes(framework)
    case = models.reference(np.array([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])).case
    right = ModelPort(own, models.run, {}).trace(case, ["lm_head"])["lm_head"]
    port = ModelPort(shapes, models.run, {})
    assert told.asked == []
    np.testing.assert_array_equal(port.trace(case, ["lm_head"])["lm_head"], right)
    assert sorted(told.asked) == sorted(told)


def test_parameters_are_read_and_replaced_one_by_one():
    _, shapes, told = by_shapes("function")
    port = ModelPort(shapes, models.run, {}, parameters={"lm_head.weight": Param("head", "O I -> I O")})
    assert sorted(port.parameters()) == ["embed", "layers.gate", "layers.norm", "lm_head.weight"]
    assert told.asked == []
    zero = port.with_parameters({"lm_head.weight": np.zeros_like(models.TENSORS["lm_head.weight"])})
    assert told.asked == ["head"]
    assert not zero.parameters()["lm_head.weight"].any()
    assert port.parameters()["lm_head.weight"].any()
