"""`goldens audit`: faults are caught where they are planted and named, and what is missed says why."""

import json
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from harness.audit import command
from harness.audit.run import Auditor
from qwen_flax import port as qwen_flax
from tests import fakes
from tests.commandline import tell

ROOT = Path(__file__).parents[2]
GOLDEN = str(ROOT / "goldens" / "qwen2-tiny.h5")
SOURCES = str(ROOT / "goldens" / "faults" / "qwen_flax.toml")
ONE_TOKEN = """
checkpoint = "../checkpoint"
dtypes = ["float32"]

[[randomized]]
name = "random-1"
seed = 3
length = 1
"""


def of_this_file(factory):
    return f"tests.commands.test_audit:{factory}"


def options(name, *values):
    return [part for value in values for part in (name, value)]


def results(told):
    """Of each golden file, its faults by planting and name."""
    assert told.status in (0, 1), told.err
    audits = [json.loads(line) for line in told.out.splitlines()]
    return [{(each["planting"], each["fault"]): each for each in one["results"]} for one in audits]


def refused(told):
    assert (told.status, told.out) == (2, "")
    assert told.err.startswith("goldens: ")
    assert told.err.count("\n") == 1, told.err
    return told.err


# One fault of each planting: how it is caught, where first, and what it is named.
CAUGHT = {
    ("answer", "scale-missing"): ("isolated", "layers.0.self_attn.scores", ["scale_missing"]),
    ("overrides", "one-key-bias-missing"): ("isolated", "layers.1.self_attn.k_proj", ["bias_missing"]),
    ("rewired", "final-norm-skipped"): ("end-to-end", "lm_head", ["wiring"]),
    ("config", "config-theta-default"): ("isolated", "rotary_emb.cos", ["theta_10000"]),
    ("checkpoint", "file-one-projection-of-another-layer"): (
        *("isolated", "layers.1.mlp.down_proj", ["parameters_of_another_layer"]),
    ),
    ("checkpoint", "file-norm-left-out"): ("loading", "", []),
    ("source", "scale-missing"): ("isolated", "layers.0.self_attn.scores", ["scale_missing"]),
    ("source", "final-norm-skipped"): ("end-to-end", "lm_head", ["wiring"]),
    ("source", "written-one-slot-late"): (
        *("decode", "layers.0.self_attn.v_proj", ["cache_slot_off_by_one"]),
    ),
}
EQUIVALENT = ("answer", "ids-in-32-bits")
EXACT = ("config", "config-window-on")
NOT_PLANTED = ("answer", "head-norms-skipped")


@pytest.fixture(scope="module", autouse=True)
def programs_are_kept():
    """Those of other tests serve these, too: an audit has a folder of its own (tests/conftest.py)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "compiled_once", nullcontext)
        yield


@pytest.fixture(scope="module")
def whole():
    """The project's own port in its own folder, as JSON and on the terminal."""
    names = {name for _, name in (*CAUGHT, EQUIVALENT, EXACT, NOT_PLANTED)}
    asked = ("--case", "left-padded", "--json", "--every", *options("--fault", *sorted(names)))
    return tell(ROOT, "audit", "goldens/qwen2-tiny.h5", *asked)


@pytest.mark.parametrize("key", CAUGHT, ids=" ".join)
def test_a_fault_is_caught_where_it_is_planted_and_named(whole, key):
    mode, first, hypotheses = CAUGHT[key]
    [found] = results(whole)
    one = found[key]
    assert one["verdict"] == "caught"
    assert (one["mode"], one["first"], one["planted"]) == (mode, first, mode != "loading")
    assert one["hypotheses"] == hypotheses
    assert one["naming"] == ("named" if hypotheses else "" if mode == "loading" else "not named")
    assert one["cases"] == ([] if mode == "loading" else ["left-padded"])
    assert one["text"] or mode == "decode"
    assert (one["reason"], one["effect"], one["misnamed"]) == ("", None, "")


def test_what_is_not_caught_says_why(whole):
    [found] = results(whole)
    equivalent, exact, not_planted = (found[key] for key in (EQUIVALENT, EXACT, NOT_PLANTED))
    assert (equivalent["verdict"], equivalent["naming"]) == ("equivalent", "")
    assert equivalent["reason"].startswith("A token id is less than the size of the vocabulary")
    assert equivalent["effect"]["exact"]
    assert (exact["verdict"], exact["effect"]["exact"], exact["effect"]["float64"]) == ("missed", True, False)
    assert exact["reason"].endswith("every answer is bit by bit the same")
    assert not_planted["verdict"] == "not planted"
    assert not_planted["reason"] == "the golden file has no component or fact that the fault is in"


def test_the_json_contract(whole):
    [line] = whole.out.splitlines()
    audit = json.loads(line)
    assert list(audit) == ["format", "golden", "port", "dtype", "score", "counts", "results"]
    assert audit["format"] == 1
    assert (audit["golden"], audit["port"]) == ("goldens/qwen2-tiny.h5", "qwen_flax.port:make")
    assert audit["dtype"] == "float32"
    assert audit["counts"] == {"caught": len(CAUGHT), "missed": 1, "equivalent": 1, "not planted": 1}
    assert audit["score"] == len(CAUGHT) / (len(CAUGHT) + 1)
    assert {tuple(each) for each in audit["results"]} == {
        (
            *("fault", "area", "says", "planting", "verdict", "mode", "first", "planted", "cases", "naming"),
            *("namable", "hypotheses", "text", "misnamed", "reason", "effect"),
        )
    }
    effect = next(each["effect"] for each in audit["results"] if each["effect"])
    assert list(effect) == ["over_floor", "over_limit", "component", "case", "exact", "float64", "modes"]


def test_beside_json_the_table_goes_to_stderr(whole):
    assert whole.status == 0
    assert "first wrong component right for 8 of 8; score 90.0%" in whole.err
    assert (
        "caught  scale-missing: isolated at layers.0.self_attn.scores; scale_missing: not scaled" in whole.err
    )
    assert "missed  config-window-on: " in whole.err
    assert "equivalent  ids-in-32-bits: " in whole.err
    assert "not planted  head-norms-skipped: " in whole.err
    assert whole.err.rstrip().endswith("\n12 faults, 1 not planted: score 90.0%")


HIDDEN_BY_ONE_TOKEN = ("RoPE", "mask", "scores", "softmax")


@pytest.mark.slow
def test_one_token_misses_what_attention_does_and_another_file_catches_it(goldens):
    """Each miss says by how little it changes anything, and which file and case catch it."""
    pytest.importorskip("torch")
    Path("suites/one.toml").write_text(ONE_TOKEN)
    assert goldens("record", "suites/one.toml", "-o", "one.h5").status == 0
    asked = ("--case", "random-1", "--json", "--require", "100")  # both files have a case of this name
    told = goldens("audit", "one.h5", GOLDEN, *asked, *options("--fault", *HIDDEN_BY_ONE_TOKEN))
    assert told.status == 0, told.err
    one, other = results(told)
    missed = {key for key, each in one.items() if each["verdict"] == "missed"}
    planted = [each for each in one.values() if each["verdict"] in ("caught", "missed")]
    share = {
        area: np.mean([each["verdict"] == "missed" for each in planted if each["area"] == area])
        for area in HIDDEN_BY_ONE_TOKEN
    }
    assert share["mask"] == 1
    assert share["RoPE"] > 0.8
    assert share["softmax"] >= 0.5
    assert 0 < share["scores"] < 0.5  # by itself, a wrong scale shows in one score as in many
    for key in missed:
        effect = one[key]["effect"]
        assert effect["float64"]
        assert effect["exact"] or effect["over_limit"] <= 1
        assert other[key]["verdict"] == "caught"
    assert told.err.count(f"; caught with {GOLDEN} (random-1)") == len(missed)
    assert told.err.rstrip().endswith("score 100.0%, 100 % required")
    alone = goldens("audit", "one.h5", *asked, "--fault", "mask")
    assert alone.status == 1
    assert "caught with" not in alone.err
    assert alone.err.rstrip().endswith("score 0.0%, 100 % required")


def test_what_changes_less_than_rounding_cannot_be_seen(goldens):
    """A wrong eps, with inputs that are much larger than eps."""
    [found] = results(
        goldens("audit", GOLDEN, "--case", "far", "--fault", "eps-1e-8", "--dtype", "bfloat16", "--json")
    )
    one = found["answer", "eps-1e-8"]
    assert one["verdict"] == "missed"
    assert not one["effect"]["exact"]
    assert 0 < one["effect"]["over_floor"] < one["effect"]["over_limit"] * 10
    assert one["effect"]["over_limit"] <= 1
    assert one["reason"].startswith("cannot be seen with these inputs or weights: it changes ")
    assert "x noise floor" in one["reason"]


def test_a_recording_without_all_components_has_no_wiring_to_get_wrong(goldens):
    pytest.importorskip("torch")
    told = goldens(
        *("record", "suites/small.toml", "-o", "kept.h5", "--case", "tiny-norm", "--keep", "layers=0")
    )
    assert told.status == 0, told.err
    faults = ("mlp-from-before-the-norm", "relu", "norm-weight-plus-one", "ids-in-32-bits")
    [found] = results(goldens("audit", "kept.h5", "--json", *options("--fault", *faults)))
    wiring = found["rewired", "mlp-from-before-the-norm"]
    assert wiring["verdict"] == "not planted"
    assert "norm takes in layers.2.mlp_residual, which is not in the golden file" in wiring["reason"]
    for key, first in (
        (("answer", "relu"), "layers.0.mlp.act"),
        (("overrides", "norm-weight-plus-one"), "layers.0.input_layernorm"),
    ):
        assert (found[key]["verdict"], found[key]["mode"]) == ("caught", "isolated")
        assert found[key]["first"] == first
    assert found[EQUIVALENT]["verdict"] == "equivalent"


class Logits:
    """A port that hands out logits and nothing else."""

    def __init__(self, checkpoint, dtype):
        self._port = qwen_flax.make(checkpoint, dtype=dtype)

    def trace(self, inputs, names):
        return self._port.trace(inputs, {"lm_head"})


def make_logits(checkpoint, *, dtype):
    return Logits(checkpoint, dtype)


def test_another_port_of_logits_shows_faults_in_files_only(goldens, monkeypatch):
    """And the faults in the source of this project's port are not planted into it."""
    monkeypatch.syspath_prepend(str(ROOT))
    Path("pyproject.toml").write_text(
        f'[tool.goldens]\nport = "qwen_flax.port:make"\nfaults = ["{SOURCES}"]\n'
    )
    faults = ("config-theta-default", "scale-missing", "gate-not-activated", "norm-weight-plus-one")
    told = goldens(
        *("audit", GOLDEN, "--port", of_this_file("make_logits"), "--case", "left-padded", "--json"),
        *options("--fault", *faults),
    )
    [found] = results(told)
    theta = found["config", "config-theta-default"]
    assert (theta["verdict"], theta["mode"], theta["first"]) == ("caught", "end-to-end", "lm_head")
    assert not theta["planted"]
    lacking = {
        ("answer", "scale-missing"): "`apply`",
        ("rewired", "gate-not-activated"): "`apply`",
        ("overrides", "norm-weight-plus-one"): "`with_parameters`",
    }
    assert found.keys() == {("config", "config-theta-default"), *lacking}
    for key, method in lacking.items():
        assert (found[key]["verdict"], found[key]["effect"]) == ("missed", None)
        assert f"the port does not offer {method}" in found[key]["reason"]
    assert "4 faults, 0 not planted: score 25.0%" in told.err


# A model of five components: enough for what does not depend on the model.


class Weighted(fakes.NumpyPort):
    """Its parameters can be replaced."""

    def parameters(self):
        return dict(zip(fakes.NAMES, self.weights.values(), strict=True))

    def with_parameters(self, overrides):
        port = type(self)()
        given = zip(self.weights, fakes.NAMES, strict=True)
        port.weights = {own: np.asarray(overrides.get(name, self.weights[own])) for own, name in given}
        return port


class Hiding(Weighted):
    """It says that it has other parameters, and goes on with its own."""

    def with_parameters(self, overrides):
        return self


def make_weighted(checkpoint, *, dtype):
    return Weighted(dtype)


def make_hiding(checkpoint, *, dtype):
    return Hiding(dtype)


@pytest.fixture
def tiny(goldens, monkeypatch):
    """Audit `tiny.h5` with a port of `tests.fakes`, or of this file."""
    monkeypatch.syspath_prepend(str(ROOT))
    fakes.write_golden(Path("tiny.h5"), checkpoint=fakes.write_checkpoint(Path("fake")))

    def audit(*more, port="tests.fakes:make"):
        return goldens("audit", "tiny.h5", "--port", port, *more)

    return audit


HEAD = ("overrides", "head-holds-the-embedding")


def test_without_parameters_none_can_be_replaced(tiny):
    [found] = results(tiny("--fault", HEAD[1], "--json"))
    assert found[HEAD]["verdict"] == "missed"
    assert found[HEAD]["reason"].startswith("the port does not offer `with_parameters`")
    [found] = results(tiny("--fault", HEAD[1], "--json", port=of_this_file("make_weighted")))
    assert (found[HEAD]["verdict"], found[HEAD]["first"]) == ("caught", "lm_head")


def test_a_fault_that_the_port_hides_could_have_been_seen(tiny):
    told = tiny("--fault", HEAD[1], "--json", "--require", "1", port=of_this_file("make_hiding"))
    [found] = results(told)
    assert told.status == 1
    assert found[HEAD]["verdict"] == "missed"
    assert found[HEAD]["effect"]["over_limit"] > 1e3
    assert found[HEAD]["reason"].startswith(
        "missed although it could be seen: it changes lm_head (hello) by "
    )
    assert "missed although it could be seen" in told.err


def test_what_the_port_does_not_offer_counts_against_it(tiny):
    told = tiny("--fault", HEAD[1], "--require", "1")
    assert told.status == 1
    assert "0 caught, 1 missed, 0 equivalent, 0 not planted" in told.out
    assert "1 fault, 0 not planted: score 0.0%, 1 % required" in told.out


def test_what_the_golden_file_has_no_place_for_does_not(tiny):
    told = tiny("--fault", "head-norms-skipped", "--fault", "ids-shifted-up", "--require", "100")
    assert told.status == 0
    assert "2 faults, 1 not planted: score 100.0%, 100 % required" in told.out


def test_all_files_are_opened_and_looked_into_before_the_first_audit(tiny, monkeypatch):
    monkeypatch.setattr(Auditor, "refuse_wrong", lambda *_: pytest.fail("an audit began"))
    fakes.write_golden(Path("other.h5"), cases=("bye",), checkpoint=fakes.write_checkpoint(Path("second")))
    assert "no.h5" in refused(tiny("no.h5"))
    assert "case 'hello' was not recorded in other.h5" in refused(tiny("other.h5", "--case", "hello"))


def test_a_port_that_fails_without_any_fault_is_refused(tiny):
    told = refused(tiny("--fault", "logits", port="tests.fakes:make_faulty"))
    assert (
        "the port tests.fakes:make_faulty fails without any fault, first at layers.0.q_proj (isolated)"
        in told
    )


def test_a_component_that_is_not_offered_breaks_no_fault(tiny):
    """What cannot be followed through the port is judged by itself alone; nothing is caught for want of it."""
    faults = ("ids-in-32-bits", "ids-shifted-up", "ids-in-8-bits")
    [found] = results(tiny(*options("--fault", *faults), "--json", port="tests.fakes:make_partial"))
    assert {name: each["verdict"] for (_, name), each in found.items()} == {
        "ids-in-32-bits": "equivalent",
        "ids-shifted-up": "caught",
        "ids-in-8-bits": "missed",
    }


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (
            ("--fault", "scale-mising"),
            "no fault, and no area of faults, matches 'scale-mising'; nearest: scale-missing, ",
        ),
        (("--fault", "maks"), "matches 'maks'; nearest: mask\n"),
        (("--case", "goodbye"), "case 'goodbye' was not recorded in tiny.h5; recorded: hello"),
        (("--dtype", "float16"), "dtype 'float16' was not recorded in tiny.h5; recorded: float32"),
        (("--faults", "no.toml"), "no.toml"),
        (
            ("--faults", SOURCES, "--faults", SOURCES),
            "is in two files of faults: give one of them another name",
        ),
    ],
)
def test_what_cannot_be_asked_gets_one_sentence(tiny, asked, sentence):
    assert sentence in refused(tiny(*asked))


def test_a_fault_that_is_behind_its_source_gets_one_sentence_before_the_first_audit(tiny, monkeypatch):
    monkeypatch.setattr(Auditor, "refuse_wrong", lambda *_: pytest.fail("an audit began"))
    Path("faults.toml").write_text(
        '[[fault]]\nname = "old"\narea = "logits"\nsays = "it is old"\nat = ["lm_head"]\n'
        'replace = [{ file = "fakes.py", find = "no such text", with = "x" }]\n'
    )
    assert "holds 'no such text' 0 times where once was expected" in refused(
        tiny("--faults", "faults.toml", "--fault", "old")
    )


def test_faults_are_chosen_by_name_and_by_area(tiny):
    told = results(tiny("--fault", "logits", "--fault", "*-shifted-*", "--json"))[0]
    assert {each["area"] for each in told.values()} == {"logits", "embedding"}
    assert {name for _, name in told} >= {"ids-shifted-up", "ids-shifted-down", "logits-softcapped"}
    assert ("answer", "ids-in-8-bits") not in told


def test_shards_are_all_faults_and_none_twice():
    def names(shard):
        asked = command.Question("qwen_flax.port:make", None, (), None, ("config*", "sampling"), (), shard)
        return [fault.name for fault in command.chosen_faults(asked)]

    shards = [names(command.Shard(number, 3)) for number in (1, 2, 3)]
    assert sorted(name for shard in shards for name in shard) == sorted(names(None))
    assert len(names(None)) > 30
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


@pytest.mark.parametrize("shard", ["0/7", "8/7", "2", "two/7", "1/0", "-1/7", "1/7/2"])
def test_a_shard_that_is_none_is_refused(shard):
    told = tell(ROOT, "audit", "goldens/qwen2-tiny.h5", f"--shard={shard}")
    assert "a shard is K/N with K from 1 to N" in refused(told)
