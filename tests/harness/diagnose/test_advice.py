"""Which component to offer next: followed, the advice leads to the wrong one in about log2(N) steps."""

import json
import math
import re
from functools import cache
from pathlib import Path

import pytest

from harness.diagnose.advice import advise
from harness.model import Mode, Verdict
from harness.replay.session import NOT_OFFERED, Session
from harness.report.result import Result
from harness.store.reader import GoldenFile
from qwen_flax import port as qwen_flax
from tests.commandline import runner

GOLDENS = Path(__file__).parents[3] / "goldens"
LINEAR = str(GOLDENS / "qwen2-linear.h5")


@cache
def components(name):
    return [c for c in GoldenFile.open(GOLDENS / f"{name}.h5").contents.components if not c.cached]


@cache
def ancestors(name):
    """What each component is made of, itself included."""
    found = {}
    for component in components(name):
        sources = component.inputs.values() if component.composite_of is None else [component.composite_of]
        found[component.name] = {component.name}.union(*(found[s] for s in sources if s in found))
    return found


def result(component, verdict, mode=Mode.END_TO_END, case="a", reason=NOT_OFFERED, **more):
    reason = reason if verdict is Verdict.UNMEASURED else ""
    return Result(component.name, component.kind, case, "float32", mode, verdict, reason=reason, **more)


def replayed(name, wrong, offered):
    """The verdicts of a port that is wrong in one component, and hands out some."""
    made_of = ancestors(name)
    return [
        result(
            component,
            Verdict.UNMEASURED
            if component.name not in offered
            else Verdict.FAIL
            if wrong in made_of[component.name]
            else Verdict.PASS,
        )
        for component in components(name)
    ]


def followed(results_of, name):
    """Hand out what is advised until nothing is. Returns what was handed out, and the last results."""
    offered = ["lm_head"]
    while True:
        results = results_of(offered)
        advice = list(advise(components(name), results))
        if not advice:
            return offered, results
        (sentence,) = advice
        match = re.fullmatch(
            r"offer (\S+) next: it halves the (\d+) components in which the mistake may be "
            r"\((\d+) if it fails, (\d+) if it passes\)",
            sentence,
        )
        assert match is not None, sentence
        assert int(match[2]) == int(match[3]) + int(match[4])
        assert match[1] not in offered
        offered.append(match[1])


def first_to_fail(results):
    return next(each.component for each in results if each.verdict is Verdict.FAIL)


@pytest.mark.parametrize("name", ["qwen2-linear", "qwen2-tiny", "qwen3-tiny", "qwen2-deep"])
def test_any_mistake_is_found_in_about_log2_steps(name):
    suspects = ancestors(name)["lm_head"]
    for wrong in suspects if name != "qwen2-deep" else sorted(suspects)[::7]:
        offered, results = followed(lambda offered, wrong=wrong: replayed(name, wrong, offered), name)
        assert first_to_fail(results) == wrong
        assert len(offered) - 1 <= math.log2(len(suspects)) + 2


def test_where_the_model_narrows_is_offered_first():
    (sentence,) = advise(components("qwen2-deep"), replayed("qwen2-deep", "norm", ["lm_head"]))
    assert sentence.startswith("offer layers.5.mlp_residual next: it halves the 245 components")


def test_a_mistake_in_a_real_port_is_found():
    """The replay itself, of a forward pass that shows more and more of itself."""
    port = qwen_flax.make(str(GOLDENS / "checkpoints" / "qwen2-tiny"), dtype="float32")
    name = "model.layers.1.mlp.up_proj.weight"
    port = port.with_parameters({name: 1.05 * port.parameters()[name]})
    file = GoldenFile.open(GOLDENS / "qwen2-tiny.h5")
    goldens = file.select(cases=["left-padded"], dtypes=["float32"])
    whole = list(Session(file, lambda _: port).replay(goldens, [Mode.END_TO_END]))
    kinds = {component.name: component for component in components("qwen2-tiny")}

    def shown(offered):
        hidden = Verdict.UNMEASURED
        return [r if r.component in offered else result(kinds[r.component], hidden) for r in whole]

    offered, results = followed(shown, "qwen2-tiny")
    assert first_to_fail(results) == "layers.1.mlp.up_proj"
    assert len(offered) - 1 <= 7


def test_a_composite_is_what_it_hands_out():
    name = "qwen2-deep"
    (sentence,) = advise(components(name), replayed(name, "layers.9.mlp.act", ["lm_head", "layers.8"]))
    assert sentence.startswith("offer layers.10.attn_residual next: it halves the 62 components")


def test_the_case_that_hides_least_is_followed():
    name = "qwen2-deep"
    wide = replayed(name, "layers.9.mlp.act", ["lm_head"])
    narrow = replayed(name, "layers.9.mlp.act", ["lm_head", "layers.8.mlp_residual"])
    found = list(advise(components(name), [*narrow, *[_of_case(r, "b") for r in wide]]))
    assert found == list(advise(components(name), narrow))


def _of_case(each, case):
    return Result(each.component, each.kind, case, each.dtype, each.mode, each.verdict, reason=each.reason)


def test_no_advice_where_nobody_needs_any():
    name = "qwen2-linear"
    own = components(name)
    everything = [component.name for component in own]
    assert list(advise(own, replayed(name, "norm", everything))) == []
    assert list(advise(own, replayed(name, "", everything))) == []
    by_itself = result(own[3], Verdict.FAIL, Mode.ISOLATED)
    assert list(advise(own, [by_itself, *replayed(name, "norm", ["lm_head"])])) == []
    expected = [result(c, Verdict.FAIL, expected="known") for c in own if c.name == "lm_head"]
    assert list(advise(own, [*expected, *replayed(name, "norm", [])])) == []


def test_what_was_not_replayed_is_not_advised():
    """With --include, nobody knows whether the port has it."""
    name = "qwen2-linear"
    asked = [r for r in replayed(name, "norm", ["lm_head"]) if r.component in ("norm", "lm_head")]
    (sentence,) = advise(components(name), asked)
    assert sentence.startswith("offer norm next")


class Logits:
    def __init__(self, port):
        self._port = port

    def trace(self, inputs, names):
        return self._port.trace(inputs, ["lm_head"])


def logits(checkpoint, *, dtype):
    return Logits(qwen_flax.make(checkpoint, dtype=dtype))


def wrong_logits(checkpoint, *, dtype):
    port = qwen_flax.make(checkpoint, dtype=dtype)
    return Logits(port.with_parameters({"model.norm.weight": 1.1 * port.parameters()["model.norm.weight"]}))


@pytest.fixture
def replay(monkeypatch, capsys):
    run = runner(monkeypatch, capsys)
    return lambda port, *more: run("replay", LINEAR, "--port", f"{__name__}:{port}", *more)


def test_it_is_told_in_every_face(replay, tmp_path):
    reports = [tmp_path / f"run.{suffix}" for suffix in ("md", "html", "xml", "json")]
    told = replay("wrong_logits", *(f"--report={path}" for path in reports))
    assert told.status == 1
    advice = "offer layers.0.attn_residual next: it halves the 25 components in which the mistake may be"
    assert f"  {advice}" in told.out
    for path in reports:
        assert advice in path.read_text().replace("\\_", "_"), path.name


def test_right_logits_are_a_hint_and_a_verdict(replay):
    told = replay("logits", "--json")
    run = json.loads(told.out)
    assert told.status == 1
    assert {r["component"] for r in run["results"] if r["verdict"] == "pass"} == {"lm_head"}
    (note,) = run["notes"]
    assert note.startswith("the logits are right, so nothing has to be looked for")
    assert note in told.err
    assert replay("logits", "--unmeasured", "*=the logits are all that is asked").status == 0
