"""`goldens explain`: what it says, what it writes for other tools, and what it refuses."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GOLDEN = str(ROOT / "goldens" / "qwen2-tiny.h5")
ASKED = (GOLDEN, "--checkpoint", "checkpoint", "--dtype", "float32")
LEFT_PADDED = ("explain", *ASKED, "--case", "left-padded")

PORTS = '''
from qwen_flax import port as qwen_flax


class Whole:
    """Hands out what its forward pass has, and runs no component by itself."""

    def __init__(self, port):
        self._port = port

    def wire(self, components):
        self._port.wire(components)

    def trace(self, inputs, names):
        return self._port.trace(inputs, names)


class WithPadding(Whole):
    def apply(self, name, inputs):
        if "attention_mask" in inputs:
            inputs = {**inputs, "attention_mask": 0 * inputs["attention_mask"] + 1}
        return self._port.apply(name, inputs)


def whole(checkpoint, *, dtype):
    return Whole(qwen_flax.make(checkpoint, dtype=dtype))


def with_padding(checkpoint, *, dtype):
    return WithPadding(qwen_flax.make(checkpoint, dtype=dtype))
'''


@pytest.fixture
def explained(goldens):
    """The JSON of an explanation that is expected to find failures."""

    def run(*arguments):
        told = goldens(*LEFT_PADDED, "--json", *arguments)
        assert told.status == 1, told.err
        return json.loads(told.out)

    return run


@pytest.fixture
def own_ports(tmp_path):
    (tmp_path / "own_ports.py").write_text(PORTS)


def test_what_one_mistake_explains_is_said_once(goldens):
    told = goldens(*LEFT_PADDED, "--port", "tests.ports:seed_rule")
    assert told.status == 1
    words = " ".join(told.out.split())
    for part in ("q_proj", "o_proj"):
        names = ", ".join(f"layers.{n}.self_attn.{part}" for n in range(3))
        assert f"{names} explained by: weight used without transposing" in words
    assert words.count("explained by") == 2
    assert words.startswith(f"{GOLDEN}: 65 of 74 components fail")


def test_nothing_fails(goldens):
    told = goldens(*LEFT_PADDED)
    assert told.status == 0, told.err
    assert " ".join(told.out.split()) == f"{GOLDEN}: 0 of 74 components fail"


def test_what_is_written_for_other_tools(explained):
    run = explained("--port", "tests.ports:without_key_bias")
    assert run["verdict"] == "fail"
    assert run["notes"] == []
    (explanation,) = run["explanations"]
    assert explanation.keys() == {"component", "hypotheses", "text", "left"}
    assert explanation["component"] == "layers.1.self_attn.k_proj"
    assert explanation["hypotheses"] == ["bias_missing"]
    assert explanation["text"] == "bias not added"
    assert 0 <= explanation["left"] < 4


def test_what_is_only_described_has_no_hypotheses(explained):
    (explanation,) = explained("--port", "tests.ports:one_wrong_element")["explanations"]
    text = explanation.pop("text")
    assert text.startswith("only channel 5 of 112 is wrong; as if weight[5, 7] were larger by 0.01")
    assert explanation == {"component": "layers.2.mlp.down_proj", "hypotheses": [], "left": None}


def test_what_a_case_cannot_tell_apart_is_named_together(explained, own_ports):
    """The first text is the longer one, and has no padding."""
    explanations = explained("--port", "own_ports:with_padding")["explanations"]
    assert len(explanations) == 3
    for explanation in explanations:
        assert explanation["hypotheses"] == ["padding_ignored", "first_row_for_all"]
        assert explanation["text"].startswith("one of: padding is seen as if it were text; ")
        assert explanation["left"] is None


def test_another_case_that_passes_tells_them_apart(explained, own_ports):
    """Padding behind a text is never seen; the first text's mask would hide what is."""
    run = explained("--case", "right-padded", "--port", "own_ports:with_padding")
    assert {result["case"] for result in run["results"] if result["verdict"] == "fail"} == {"left-padded"}
    assert [e["hypotheses"] for e in run["explanations"]] == [["padding_ignored"]] * 3


@pytest.mark.parametrize(
    ("selection", "components"),
    [
        (("--include", "layers.1.self_attn.q_proj"), {"layers.1.self_attn.q_proj"}),
        (
            ("--include", "layers.[01].*", "--exclude", "*.q_proj"),
            {f"layers.{n}.self_attn.o_proj" for n in (0, 1)},
        ),
    ],
)
def test_a_selection(explained, selection, components):
    run = explained("--port", "tests.ports:seed_rule", *selection)
    assert {explanation["component"] for explanation in run["explanations"]} == components
    assert {explanation["hypotheses"][0] for explanation in run["explanations"]} == {"weight_not_transposed"}


def test_a_failure_in_several_dtypes_is_explained_once(goldens):
    told = goldens(
        "explain", GOLDEN, "--checkpoint", "checkpoint", "--case", "left-padded", "--json",
        "--port", "tests.ports:seed_rule", "--include", "layers.0.self_attn.q_proj",
    )  # fmt: skip
    run = json.loads(told.out)
    assert {result["dtype"] for result in run["results"]} == {"float32", "bfloat16"}
    assert len(run["explanations"]) == 1


def test_json_leaves_the_text_to_stderr_and_is_one_document_a_line(goldens):
    told = goldens("explain", GOLDEN, *LEFT_PADDED[1:], "--json", "--port", "tests.ports:seed_rule")
    assert len([json.loads(line) for line in told.out.splitlines()]) == 2
    assert told.err.count("components fail") == 2


def test_a_port_that_runs_no_component_by_itself_is_unmeasured_and_not_explained(goldens, own_ports):
    told = goldens(*LEFT_PADDED, "--port", "own_ports:whole", "--json")
    run = json.loads(told.out)
    assert told.status == 1
    assert run["counts"] == {"pass": 74, "fail": 0, "unmeasured": 65}
    assert run["explanations"] == run["notes"] == []


def test_orders_of_roundings_are_told_where_nothing_fails(goldens):
    told = goldens(
        "explain", GOLDEN, "--checkpoint", "checkpoint", "--case", "tiny-norm", "--dtype", "bfloat16",
        "--port", "tests.linen_port:make", "--include", "*layernorm",
    )  # fmt: skip
    assert told.status == 0, told.err
    words = " ".join(told.out.split())
    assert (
        "rounds in another order than the reference: weight multiplied in float32, and rounded once" in words
    )
    assert "It is inside the noise floor, and no failure" in words


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--case", "left-paddde"), "left-padded"),
        (("--include", "layers.1.self_attn.q_prog"), "nearest: layers.1.self_attn.q_proj"),
        (("--dtype", "float16"), "dtype 'float16' was not recorded"),
        (("--port", "tests.ports:there_is_none"), "there_is_none"),
        (("--checkpoint", "suites"), "config.json"),
        (("missing.h5",), "missing.h5"),
    ],
)
def test_misuse_is_one_sentence(goldens, arguments, sentence):
    told = goldens("explain", *ASKED, *arguments)
    assert told.status == 2
    assert told.out == ""
    assert told.err.count("\n") == 1, told.err
    assert sentence in told.err
