"""Components that are right, and fed from the wrong place: the edge is named, and what is no edge is not."""

import numpy as np
import pytest

from harness.audit.catalogue.table import OF_PASSES as FAULTS
from harness.audit.fault import Rewired
from harness.diagnose.subject import Subject
from harness.diagnose.wiring import NAME, explain_wiring
from harness.model import Mode, Verdict
from harness.replay.session import Session
from tests.harness.diagnose.places import place

BY_NAME = {fault.name: fault for fault in FAULTS}
CASES = ("left-padded", "far")


class OnTheWay:
    """The port's components run one after another, with inputs changed on the way: `change(name, inputs)`."""

    def __init__(self, port, components, change):
        self._port, self._components, self._change = port, components, change

    def wire(self, components):
        self._port.wire(components)

    def apply(self, name, inputs):
        return self._port.apply(name, inputs)

    def trace(self, inputs, names):
        values = {f"case.{name}": value for name, value in inputs.items()}
        for component in self._components:
            if component.composite_of:
                values[component.name] = values[component.composite_of]
            else:
                taken = {argument: values[source] for argument, source in component.inputs.items()}
                taken = self._change(component.name, taken)
                values[component.name] = self._port.apply(component.name, taken)[component.name]
        return {name: values[name] for name in names}


def changed_on_the_way(change, cases=CASES):
    """What is said of such a port, and the verdicts it has."""
    here = place("qwen2-tiny")
    port = OnTheWay(here.port, here.file.contents.components, change)
    goldens = here.file.select((), (), cases, ("float32",))
    results = list(Session(here.file, lambda dtype: port).replay(goldens, [Mode.ISOLATED, Mode.END_TO_END]))
    explanations = explain_wiring(Subject(here.file, lambda dtype: port, here.weights), results)
    return explanations, {(r.component, r.mode) for r in results if r.verdict is Verdict.FAIL}


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (
            "mlp-from-before-the-norm",
            {
                f"layers.{n}.mlp gets its input from layers.{n}.attn_residual, "
                f"not from layers.{n}.post_attention_layernorm"
                for n in range(1)
            },
        ),
        (
            "values-are-keys",
            {
                "layers.0.self_attn.v_expanded gets x from layers.0.self_attn.k_proj, "
                "not from layers.0.self_attn.v_proj"
            },
        ),
        (
            "queries-turned-by-exchanged-angles",
            {
                "layers.0.self_attn.q_rope gets cos and sin from rotary_emb.sin and rotary_emb.cos, "
                "not from rotary_emb.cos and rotary_emb.sin"
            },
        ),
        ("final-norm-skipped", {"lm_head gets x from layers.2.mlp_residual, not from norm"}),
        ("last-layer-skipped", {"norm gets x from layers.1.mlp_residual, not from layers.2.mlp_residual"}),
    ],
)
def test_the_edge_is_told(fault, said):
    found = place("qwen2-tiny").diagnosed(BY_NAME[fault].planting, cases=CASES)
    texts = {explanation.text for explanation in found.explanations}
    assert {text for text in texts if text in said} == said, texts


REWIRED = [
    (name, fault)
    for name in ("qwen2-tiny", "qwen3-tiny")
    for fault in FAULTS
    if isinstance(fault.planting, Rewired) and (fault.name != "query-norm-bypassed" or name == "qwen3-tiny")
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "fault"), REWIRED, ids=[f"{name}-{fault.name}" for name, fault in REWIRED])
def test_every_wrong_edge_of_the_first_layer_that_has_one_is_told(name, fault):
    """Behind it everything drifts, so that more cannot be asked."""
    here = place(name)
    edges = fault.planting.edges(here.file.contents.components)
    found = here.diagnosed(fault.planting)
    first = next(component for component in here.file.contents.components if component.name in edges)
    argument, source = next(iter(edges[first.name].items()))
    said = found.of(first.name)
    assert said.hypotheses == [NAME]
    assert f"from {source}" in said.text
    assert first.inputs[argument] in said.text


def test_an_input_that_is_scaled_on_the_way_is_told_with_its_factor():
    def scaled(name, inputs):
        return (
            {**inputs, "residual": inputs["residual"] * np.float32(1.5)}
            if name == "layers.1.attn_residual"
            else inputs
        )

    (said,), failed = changed_on_the_way(scaled)
    assert ("layers.1.attn_residual", Mode.ISOLATED) not in failed
    assert (said.component, said.hypotheses) == ("layers.1.attn_residual", ["wiring"])
    assert said.text == "it is right by itself, and takes residual from layers.0.mlp_residual times 1.5"


def test_an_input_that_is_something_else_on_the_way_is_not_said_to_come_from_elsewhere():
    def squared(name, inputs):
        return {**inputs, "x": inputs["x"] ** 2} if name == "layers.1.self_attn.q_proj" else inputs

    (said,), _ = changed_on_the_way(squared)
    assert (said.component, said.hypotheses) == ("layers.1.self_attn.q_proj", ["wiring"])
    assert "something is done to it on the way" in said.text


def test_positions_that_a_port_makes_up_itself():
    def counted(name, inputs):
        if not name.startswith("rotary_emb"):
            return inputs
        columns = np.arange(inputs["positions"].shape[1])
        return {"positions": np.broadcast_to(columns, inputs["positions"].shape)}

    (said,), _ = changed_on_the_way(counted)
    assert said.text == (
        "rotary_emb.cos, rotary_emb.sin get positions from the columns of the batch, not from case.positions"
    )


def test_a_right_port_has_no_wrong_edge():
    said, failed = changed_on_the_way(lambda name, inputs: inputs)
    assert (said, failed) == ([], set())


def test_a_component_that_is_wrong_by_itself_is_no_edge():
    said = place("qwen2-tiny").diagnosed(BY_NAME["gelu"].planting, cases=("left-padded",))
    assert NAME not in said.names
