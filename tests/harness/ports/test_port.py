import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from jax.ad_checkpoint import checkpoint_name

from harness.ports import UNDECIDED, ModelPort, Tap, linen_model, nnx_model
from harness.ports.layout import LayoutError
from harness.ports.located import TapError
from harness.ports.parameters import ParameterError
from harness.replay.port import NotOffered
from tests.harness.ports import models

IDS = np.array([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
RIGHT = models.reference(IDS)


@pytest.fixture(params=models.WAYS)
def port(request):
    made = models.WAYS[request.param]()
    made.wire(models.COMPONENTS)
    return made


def inputs_of(name, right=RIGHT):
    values = {**right.values, **{f"case.{key}": value for key, value in right.case.items()}}
    (component,) = (c for c in models.COMPONENTS if c.name == name)
    return {argument: values[source] for argument, source in component.inputs.items()}


def near(a, b):
    np.testing.assert_allclose(np.asarray(a), b, rtol=2e-5, atol=2e-6)


def test_every_value_is_handed_out(port):
    traced = port.trace(RIGHT.case, RIGHT.values)
    assert traced.keys() == RIGHT.values.keys()
    for name, value in RIGHT.values.items():
        near(traced[name], value)


def test_only_what_is_asked_for_is_handed_out(port):
    names = ["layers.1.mlp.act", "spam", "layers.7.mlp.act", "lm_head"]
    assert port.trace(RIGHT.case, names[:2]).keys() == {"layers.1.mlp.act"}


def test_every_component_runs_alone(port):
    for component in models.COMPONENTS:
        # what else would the whole model give: other inputs than it has by itself
        given = {k: v if v.dtype.kind == "i" else 1 - v for k, v in inputs_of(component.name).items()}
        if component.name == "embed_tokens":
            given = {"token_ids": 10 - given["token_ids"]}
        alone = port.apply(component.name, given)
        assert alone.keys() == {component.name}
        near(alone[component.name], by_hand(component, given))


def by_hand(component, given):
    weight = models.TENSORS.get(
        f"{component.name}.weight" if component.name == "lm_head" else f"model.{component.name}.weight"
    )
    match component.step:
        case "embedding":
            return weight[given["token_ids"]]
        case "rms_norm":
            x = given["x"]
            return x / np.sqrt(np.mean(x * x, -1, keepdims=True) + 1e-6) * weight
        case "linear":
            return given["x"] @ weight.T
        case "silu":
            return given["x"] / (1 + np.exp(-given["x"]))
    return given["residual"] + given["branch"]


def test_parameters_are_those_of_the_reference(port):
    found = port.parameters()
    assert found.keys() == models.TENSORS.keys()
    for name, value in models.TENSORS.items():
        np.testing.assert_array_equal(found[name], value)


def test_a_replaced_parameter_changes_its_own_component_and_no_other_layer(port):
    name = "model.layers.1.mlp.gate_proj.weight"
    changed = port.with_parameters({name: 2 * models.TENSORS[name]})
    for layer, factor in (("layers.0", 1), ("layers.1", 2)):
        component = f"{layer}.mlp.gate_proj"
        near(changed.apply(component, inputs_of(component))[component], factor * RIGHT.values[component])
    np.testing.assert_array_equal(changed.parameters()[name], 2 * models.TENSORS[name])
    near(port.apply("layers.1.mlp.gate_proj", inputs_of("layers.1.mlp.gate_proj"))["layers.1.mlp.gate_proj"],
         RIGHT.values["layers.1.mlp.gate_proj"])  # fmt: skip
    assert not np.allclose(changed.trace(RIGHT.case, ["lm_head"])["lm_head"], RIGHT.values["lm_head"])


def test_overrides_that_do_not_fit_are_told_together(port):
    with pytest.raises(ParameterError) as refusal:
        port.with_parameters({"spam": np.ones(1), "lm_head.weight": np.ones((6, 11), np.float32)})
    assert str(refusal.value) == (
        "there is no parameter spam; parameter lm_head.weight has shape (6, 11) instead of (11, 6)"
    )


def test_what_is_not_in_the_table_is_not_offered(port):
    with pytest.raises(NotOffered):
        port.apply("layers.0.mlp.up_proj", {"x": RIGHT.values["embed_tokens"]})


def made(**changes):
    """The NNX model, with other rows in its table. Of each row: Tap(...)."""
    table = {**models.nnx_way(False)._components, **{k.replace("__", "."): v for k, v in changes.items()}}
    port = ModelPort(nnx_model(models.ModelNnx(False)), models.run, table)
    port.wire(models.COMPONENTS)
    return port


ROWS = [
    (Tap("blocks.{n}.spam"), "the model has no value of call of 'blocks.1.spam', where the table has"),
    (Tap("blocks.{n}", function="jax.nn:silu", nth=1), "no value of call 1 of jax.nn:silu in 'blocks.1'"),
    (
        Tap("blocks.{n}", result=2),
        "no result 2 of call of 'blocks.1' (of that call it has argument 'x', result 0)",
    ),
    (Tap("blocks.{n}.norm", argument="y"), "no argument 'y' of call of 'blocks.1.norm' (of that call it has"),
    (Tap("blocks.{n}.norm", argument=3), "no argument '3' of call"),
    (Tap(value="spam"), "the model has no value named 'spam'"),
]


@pytest.mark.parametrize(("tap", "says"), ROWS, ids=[says for _, says in ROWS])
def test_a_row_that_leads_nowhere_fails_by_itself(tap, says):
    port = made(**{"layers.{n}.mlp.act": tap})
    traced = port.trace(RIGHT.case, ["layers.1.mlp.act", "layers.1.mlp_residual"])
    with pytest.raises(TapError) as refusal:
        np.asarray(traced["layers.1.mlp.act"])
    assert says in str(refusal.value)
    assert "layers.1.mlp.act" in str(refusal.value)
    near(traced["layers.1.mlp_residual"], RIGHT.values["layers.1.mlp_residual"])
    with pytest.raises(TapError):
        port.apply("layers.1.mlp.act", inputs_of("layers.1.mlp.act"))


def test_a_function_that_there_is_not_is_named():
    with pytest.raises(LookupError, match=r"there is no function 'jax.nn:spam'"):
        made(**{"layers.{n}.mlp.act": Tap("blocks.{n}", function="jax.nn:spam")}).trace(
            RIGHT.case, ["lm_head"]
        )


def test_a_component_that_the_model_computes_from_something_else_is_refused():
    """The value of another layer: what the component takes in is not what this model makes it of."""
    port = made(**{"layers.{n}.mlp.act": Tap("blocks.0", function="jax.nn:silu")})
    with pytest.raises(TapError, match=r"layers\.1\.mlp\.act"):
        port.apply("layers.1.mlp.act", inputs_of("layers.1.mlp.act"))


def test_an_input_of_another_shape_is_refused():
    port = made(**{"layers.{n}.input_layernorm": Tap("blocks.{n}.norm", layout="B T C -> T B C")})
    with pytest.raises(TapError, match=r"layers.0.mlp.gate_proj takes x as \(2, 5, 6\) in this model"):
        port.apply("layers.0.mlp.gate_proj", inputs_of("layers.0.mlp.gate_proj"))


def test_a_value_that_every_layer_has_is_taken_from_the_one_that_is_named():
    def stream(layer):
        tap = Tap("stack", function="tests.harness.ports.models:add", argument="x", layer=layer)
        port = ModelPort(nnx_model(models.ModelNnx(True)), models.run, {"embed_tokens": tap})
        return port.trace(RIGHT.case, ["embed_tokens"])["embed_tokens"]

    near(stream(0), RIGHT.values["embed_tokens"])
    near(stream(1), RIGHT.values["layers.0.mlp_residual"])
    with pytest.raises(TapError, match="2 times, where embed_tokens is one of them"):
        np.asarray(stream(None))


@pytest.mark.parametrize("way", ["nnx, scanned", "linen, scanned and remat"])
def test_what_is_scanned_over_is_counted_as_it_is_called(way):
    """Whatever else the framework calls it for."""
    port = models.WAYS[way]()
    path = "stack" if way.startswith("nnx") else "layers"
    port._components["layers.{n}.mlp_residual"] = Tap(path, result=0)
    names = [f"layers.{n}.mlp_residual" for n in range(models.LAYERS)]
    traced = port.trace(RIGHT.case, names)
    for name in names:
        near(traced[name], RIGHT.values[name])


def test_a_layout_that_does_not_fit_fails_by_itself():
    port = made(**{"layers.{n}.mlp.act": Tap("blocks.{n}", function="jax.nn:silu", layout=UNDECIDED)})
    traced = port.trace(RIGHT.case, ["layers.0.mlp.act", "lm_head"])
    near(traced["lm_head"], RIGHT.values["lm_head"])
    with pytest.raises(LayoutError, match="undecided"):
        np.asarray(traced["layers.0.mlp.act"])


def test_a_component_whose_inputs_nobody_tells_is_not_offered():
    """Of logits alone, and of a table that grows row by row: no failure, a gap."""
    port = ModelPort(nnx_model(models.ModelNnx(False)), models.run, {})
    port.wire(models.COMPONENTS)
    near(port.trace(RIGHT.case, ["lm_head"])["lm_head"], RIGHT.values["lm_head"])
    with pytest.raises(NotOffered):
        port.apply("lm_head", inputs_of("lm_head"))


class Turning(linen.Module):
    @linen.compact
    def __call__(self, x, angle):
        return x + checkpoint_name(jnp.cos(angle), "turn") * linen.Dense(models.C, name="gate")(x), None


class Turned(linen.Module):
    @linen.compact
    def __call__(self, ids):
        options = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}, "length": models.LAYERS}
        layers = linen.scan(Turning, in_axes=linen.broadcast, **options)(name="layers")
        return layers(linen.Embed(models.V, models.C)(ids), ids[:, :, None] * 0.1)[0]


def test_what_a_framework_runs_once_more_is_not_counted():
    """Linen traces the body of a scan by itself for what is the same in every layer, and uses nothing of it."""
    module = Turned()
    variables = module.init(jax.random.key(0), jnp.asarray(IDS))
    table = {"layers.{n}.turn": Tap(value="turn")}
    port = ModelPort(linen_model(module, variables), models.run, table)
    names = [f"layers.{n}.turn" for n in range(models.LAYERS + 1)]
    traced = port.trace(RIGHT.case, names)
    for name in names[:-1]:
        near(traced[name], np.cos(IDS[:, :, None] * np.float32(0.1)))
    with pytest.raises(TapError, match="for layer 2"):
        np.asarray(traced[names[-1]])
