"""A planted fault is where it is planted and nowhere else, and without a change nothing changes."""

import weakref
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from harness.audit.fault import Answer, DoesNotApply, EditedConfig, Lacking, Overrides, Rewired
from harness.audit.planted import Planted, Remembering, planted
from harness.audit.reference import Reference
from harness.errors import GoldensError
from harness.model import Mode, Verdict
from harness.replay.port import NotOffered, load_port, wired
from harness.replay.session import Session
from harness.store.reader import GoldenFile
from harness.weights import Weights
from tests import fakes

GOLDENS = Path(__file__).parents[3] / "goldens"
NAME = "layers.1.self_attn.q_proj"
UNCHANGED = Answer(("*",), lambda call: call.output)


class Place:
    """A golden file, its checkpoint, and the right port of it."""

    def __init__(self, name, dtype="float32"):
        self.file = GoldenFile.open(GOLDENS / f"{name}.h5")
        folder = GOLDENS / "checkpoints" / name
        self.components = self.file.contents.components
        self.weights = Weights(folder)
        self.port = wired(load_port("qwen_flax.port:make", str(folder), dtype), self.components)
        self.remembering = Remembering(self.port)
        self.dtype = dtype

    def plant(self, planting):
        return Planted(self.remembering, self.components, planting, self.weights)

    def failures(self, planting, mode, case="left-padded"):
        goldens = self.file.select(cases=[case], dtypes=[self.dtype])
        session = Session(self.file, lambda dtype: self.plant(planting))
        results = list(session.replay(goldens, [mode]))
        assert results
        return [result.component for result in results if result.verdict is not Verdict.PASS]

    def golden(self, name, case="left-padded"):
        return self.file.select(include=[name], cases=[case], dtypes=[self.dtype])[0]

    def trace_inputs(self, case="left-padded"):
        inputs = self.file.case_inputs(case)
        return {name: inputs[name] for name in ("token_ids", "attention_mask", "positions", "query_index")}


@pytest.fixture(scope="module")
def place():
    return Place("qwen2-tiny")


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("qwen2-tiny", "float32"), ("qwen3-tiny", "bfloat16")],
)
def test_nothing_changed_answers_bit_for_bit(name, dtype):
    place = Place(name, dtype)
    port = place.plant(UNCHANGED)
    steps = [component for component in place.components if component.step]
    assert len(port.names) == len(steps)
    for component in steps:
        inputs = place.file.inputs(place.golden(component.name))
        answer = port.apply(component.name, inputs)[component.name]
        right = np.asarray(place.port.apply(component.name, inputs)[component.name])
        assert answer.dtype == right.dtype
        assert answer.tobytes() == right.tobytes(), component.name


@pytest.mark.parametrize("name", ["qwen2-tiny", "qwen3-tiny"])
def test_nothing_changed_the_chain_passes_end_to_end_as_the_ports_own_trace_does(name):
    place = Place(name)
    names = [component.name for component in place.components]
    assert place.plant(UNCHANGED).trace(place.trace_inputs(), names).keys() == set(names)
    assert place.failures(UNCHANGED, Mode.END_TO_END) == []


ANSWER = Answer(("layers.1.self_attn.q_*",), lambda call: 1.01 * call.output)
OVERRIDES = Overrides(
    lambda parameters, components: {
        name: 1.01 * parameters[name] for name in parameters if "layers.1.self_attn.q_" in name
    }
)
REWIRED = Rewired(lambda components: {NAME: {"x": "layers.0.input_layernorm"}})


def test_an_answer_shows_in_its_components_and_nowhere_else(place):
    assert place.plant(ANSWER).names == (NAME, "layers.1.self_attn.q_rope")
    assert place.failures(ANSWER, Mode.ISOLATED) == [NAME, "layers.1.self_attn.q_rope"]


def test_overrides_show_in_what_holds_the_parameters_and_nowhere_else(place):
    assert place.plant(OVERRIDES).names == (NAME,)
    assert place.failures(OVERRIDES, Mode.ISOLATED) == [NAME]


def test_what_overrides_do_not_change_is_not_run_again(place):
    golden = place.golden("layers.1.self_attn.k_proj")
    inputs = place.file.inputs(golden)
    right = place.remembering.apply(golden.component, inputs)[golden.component]
    assert place.plant(OVERRIDES).apply(golden.component, inputs)[golden.component] is right


def test_a_rewired_component_passes_by_itself(place):
    assert place.plant(REWIRED).names == (NAME,)
    assert place.failures(REWIRED, Mode.ISOLATED) == []


@pytest.mark.parametrize("planting", [ANSWER, OVERRIDES, REWIRED], ids=["answer", "overrides", "rewired"])
def test_end_to_end_a_fault_shows_first_where_it_is_and_spreads(place, planting):
    wrong = place.failures(planting, Mode.END_TO_END)
    assert wrong[0] == NAME
    assert {"layers.1", "layers.2.input_layernorm", "lm_head"} <= set(wrong)


def test_an_exact_component_can_be_planted(place):
    change = Answer(("layers.0.self_attn.k_expanded",), lambda call: call.output[:, ::-1])
    assert place.failures(change, Mode.ISOLATED) == ["layers.0.self_attn.k_expanded"]


def test_an_answer_is_rounded_to_the_dtype_of_the_port():
    place = Place("qwen2-tiny", "bfloat16")
    port = place.plant(Answer((NAME,), lambda call: call.output + 0.001))
    golden = place.golden(NAME)
    answer = port.apply(NAME, place.file.inputs(golden))[NAME]
    right = np.asarray(place.port.apply(NAME, place.file.inputs(golden))[NAME])
    assert answer.dtype == ml_dtypes.bfloat16
    assert (answer == (right.astype(np.float64) + 0.001).astype(ml_dtypes.bfloat16)).all()


def test_replaced_inputs_reach_the_port_in_the_dtype_of_those_they_replace():
    """RoPE rounds twice in bfloat16, and once if it is given wider numbers."""
    place, name = Place("qwen2-tiny", "bfloat16"), "layers.1.self_attn.q_rope"
    inputs = place.file.inputs(place.golden(name))
    change = Answer((name,), lambda call: call.run(**call.inputs))
    right = np.asarray(place.port.apply(name, inputs)[name])
    assert place.plant(change).apply(name, inputs)[name].tobytes() == right.tobytes()


def test_a_call_gives_wide_inputs_and_parameters_and_runs_the_ports_own_code(place):
    seen = []

    def change(call):
        seen.append(call)
        return call.run(x=2 * call.inputs["x"]) - call.parameters["bias"]

    golden = place.golden(NAME)
    answer = place.plant(Answer((NAME,), change)).apply(NAME, place.file.inputs(golden))[NAME]
    (call,) = seen
    assert call.component.name == NAME
    assert call.inputs["x"].dtype == call.output.dtype == call.parameters["weight"].dtype == np.float64
    assert set(call.parameters) == {"weight", "bias"}
    x, weight = call.inputs["x"], call.parameters["weight"]
    np.testing.assert_allclose(answer, 2 * x @ weight.T, rtol=1e-4, atol=1e-4)


def test_whole_numbers_stay_whole(place):
    dtypes = []

    def change(call):
        dtypes.append(call.inputs["token_ids"].dtype.kind)
        return call.run(token_ids=call.inputs["token_ids"] + 0)

    golden = place.golden("embed_tokens")
    place.plant(Answer(("embed_tokens",), change)).apply("embed_tokens", place.file.inputs(golden))
    assert dtypes == ["i"]


def test_layers_may_run_in_another_order(place):
    def edges(components):
        return {
            "layers.2.input_layernorm": {"x": "layers.0.mlp_residual"},
            "layers.2.attn_residual": {"residual": "layers.0.mlp_residual"},
            "layers.1.input_layernorm": {"x": "layers.2.mlp_residual"},
            "layers.1.attn_residual": {"residual": "layers.2.mlp_residual"},
            "norm": {"x": "layers.1.mlp_residual"},
        }

    wrong = place.failures(Rewired(edges), Mode.END_TO_END)
    assert wrong[0] == "layers.1.input_layernorm"
    assert wrong[-1] == "lm_head"


def test_what_a_fault_is_in_is_known_of_every_planting(place):
    config = EditedConfig(("*.cos", "layers.0"), lambda config: None)
    assert planted(config, place.components) == ("rotary_emb.cos",)
    assert planted(OVERRIDES, place.components, place.port.parameters()) == (NAME,)
    assert planted(REWIRED, place.components) == (NAME,)


@pytest.mark.parametrize(
    "planting",
    [
        Answer(("*.q_norm",), lambda call: call.output),
        Answer(("*.probs",), lambda call: call.output, lambda component: bool(component.settings["window"])),
        Overrides(lambda parameters, components: {}),
        Rewired(lambda components: {}),
    ],
    ids=["no such component", "no such setting", "no such parameter", "no such wire"],
)
def test_a_fault_that_is_nowhere_does_not_apply(place, planting):
    with pytest.raises(DoesNotApply, match="has no"):
        place.plant(planting)


def test_a_port_that_cannot_replace_its_parameters_takes_no_overrides():
    halved = Overrides(lambda parameters, components: {name: parameters[name] / 2 for name in fakes.NAMES})
    parameters = dict(zip(fakes.NAMES, fakes.weights("float32").values(), strict=True))
    with pytest.raises(Lacking, match="does not offer `with_parameters`"):
        Planted(fakes.NumpyPort(), fakes.COMPONENTS, halved, parameters)
    with pytest.raises(DoesNotApply, match="has no parameters"):
        Planted(fakes.NumpyPort(), fakes.COMPONENTS, OVERRIDES, parameters)


def test_a_port_that_runs_as_a_whole_only_takes_no_answers():
    class Whole:
        def trace(self, inputs, names):
            return {}

    with pytest.raises(Lacking, match="does not offer `apply`"):
        Planted(Whole(), fakes.COMPONENTS, UNCHANGED, {})
    with pytest.raises(DoesNotApply, match="has no component"):
        Planted(Whole(), fakes.COMPONENTS, Answer(("*.q_norm",), lambda call: call.output), {})


def test_only_the_parameters_that_a_fault_looks_at_are_read():
    read = []

    class Watched(dict):
        def __getitem__(self, name):
            read.append(name)
            return super().__getitem__(name)

    class Weighted(fakes.NumpyPort):
        def parameters(self):
            return Watched(zip(fakes.NAMES, self.weights.values(), strict=True))

        def with_parameters(self, overrides):
            return self

    halved = Overrides(lambda parameters, components: {fakes.NAMES[1]: parameters[fakes.NAMES[1]] / 2})
    Planted(Weighted(), fakes.COMPONENTS, halved, {})
    assert set(read) == {fakes.NAMES[1]}
    read.clear()
    Planted(Reference(fakes.COMPONENTS, Watched(Weighted().parameters())), fakes.COMPONENTS, halved, {})
    assert set(read) == {fakes.NAMES[1]}


def test_parameters_that_the_port_refuses_are_told(place):
    wrong = Overrides(lambda parameters, components: {"model.norm.weight": np.zeros(3)})
    with pytest.raises(GoldensError, match=r"refused other parameters: .*model\.norm\.weight"):
        place.plant(wrong)


KEPT = [component for component in fakes.COMPONENTS if component.name != "layers.0.q_proj"]


def test_a_golden_file_with_gaps_can_be_replayed_isolated_only():
    port = Planted(fakes.NumpyPort(), KEPT, Answer(("lm_head",), lambda call: -call.output), {})
    assert not port.traces
    x = np.ones((1, 2, fakes.HIDDEN), np.float32)
    right = fakes.NumpyPort().apply("lm_head", {"x": x})["lm_head"]
    assert (port.apply("lm_head", {"x": x})["lm_head"] == -right).all()
    with pytest.raises(
        GoldensError, match=r"layers\.0\.act takes in layers\.0\.q_proj, which is not in the golden"
    ):
        port.trace(fakes.case_inputs(0), ["lm_head"])


def test_a_golden_file_with_gaps_takes_no_other_wiring():
    rewired = Rewired(lambda components: {"lm_head": {"x": "embed_tokens"}})
    assert Planted(fakes.NumpyPort(), fakes.COMPONENTS, rewired, {}).traces
    with pytest.raises(DoesNotApply, match=r"layers\.0\.q_proj, which is not in the golden file"):
        Planted(fakes.NumpyPort(), KEPT, rewired, {})


def test_a_component_that_the_port_does_not_run_breaks_the_chain():
    port = Planted(fakes.NumpyPort(missing={"layers.0.act"}), fakes.COMPONENTS, UNCHANGED, {})
    with pytest.raises(NotOffered):
        port.apply("layers.0.act", {"x": np.ones((1, 1, 4), np.float32)})
    with pytest.raises(GoldensError, match=r"does not run layers\.0\.act by itself"):
        port.trace(fakes.case_inputs(0), ["lm_head"])
    assert port.trace(fakes.case_inputs(0), ["layers.0.q_proj"]).keys() == {"layers.0.q_proj"}


def test_the_same_arrays_are_run_once_and_others_again():
    inner = fakes.NumpyPort()
    port = Remembering(inner)
    x = np.ones((1, 2, fakes.HIDDEN), np.float32)
    first = port.apply("lm_head", {"x": x})["lm_head"]
    assert port.apply("lm_head", {"x": x})["lm_head"] is first
    assert inner.applied == ["lm_head"]
    port.apply("layers.0.q_proj", {"x": x})
    port.apply("lm_head", {"x": x.copy()})
    assert inner.applied == ["lm_head", "layers.0.q_proj", "lm_head"]


def test_what_is_remembered_keeps_its_inputs_so_that_no_other_array_gets_their_identity():
    port = Remembering(fakes.NumpyPort())
    x = np.ones((1, 2, fakes.HIDDEN), np.float32)
    port.apply("lm_head", {"x": x})
    held = weakref.ref(x)
    del x
    assert held() is not None


def test_what_is_remembered_cannot_be_written_to():
    answer = Remembering(fakes.NumpyPort()).apply("lm_head", {"x": np.ones((1, 1, 4), np.float32)})
    with pytest.raises(ValueError, match="read-only"):
        answer["lm_head"][0] = 0


def test_what_was_not_asked_for_longest_is_forgotten_first():
    inner = fakes.NumpyPort()
    xs = [np.ones((1, 1, fakes.HIDDEN), np.float32) for _ in range(3)]
    size = xs[0].nbytes + fakes.VOCABULARY * 4
    port = Remembering(inner, limit=2 * size)
    for which in (0, 1, 0, 2, 0):
        port.apply("lm_head", {"x": xs[which]})
    assert len(inner.applied) == 3
    port.apply("lm_head", {"x": xs[1]})
    assert len(inner.applied) == 4
