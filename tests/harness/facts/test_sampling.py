"""Processed logits and draws: right ones pass, wrong ones fail with the right name, and nothing makes it crash."""

from fnmatch import fnmatchcase
from functools import cache
from itertools import combinations
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from harness.audit.catalogue.sampling import FAULTS
from harness.diagnose.facts import explain_facts
from harness.facts import mishandled
from harness.facts.draws import DRAWS, FALSE_ALARMS, chance
from harness.facts.family import PASSED
from harness.facts.processing import processed
from harness.facts.sampling import SAMPLING, question
from harness.model import FactIn, Verdict
from harness.replay.port import NotOffered
from qwen_flax import sampling

torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")

SMALL = {
    "vocab_size": 8,
    "hidden_size": 4,
    "intermediate_size": 4,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
}
FAMILIES = {family.name: family for family in (SAMPLING, DRAWS)}
ASKED = {"process_logits": "sampling", "draw": "draws"}


@cache
def recorded(**generation):
    """The facts of a model with this generation_config.json. The model itself plays no part."""
    from harness.record.facts.sampling import sampling_facts

    model = transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**SMALL))
    model.generation_config = transformers.GenerationConfig(**generation)
    return tuple(sampling_facts(model))


def fact(component, case=None, **generation):
    return next(
        f for f in recorded(**generation) if f.component == f"sampling.{component}" and case in (None, f.case)
    )


class Right:
    """A port whose checkpoint has this generation_config.json."""

    def __init__(self, **generation):
        self.own = sampling.parse(generation)

    def process_logits(self, logits, token_ids, settings):
        chosen = self.own if settings is None else sampling.sampled(settings)
        return sampling.process(jnp.asarray(logits), jnp.asarray(token_ids), chosen)

    def draw(self, logits, settings, count, seed):
        row = self.process_logits(logits[None], np.zeros((1, 0), np.int32), settings)
        return sampling.draw(jax.random.key(seed), jnp.broadcast_to(row, (count, row.shape[1])))


def found(port, each):
    family = FAMILIES[each.family]
    return family.judge(each, family.ask(port, each), None)


def judged(each, answer):
    return FAMILIES[each.family].judge(each, answer, None)


SHIPPED = {"do_sample": True, "temperature": 0.7, "top_k": 20, "top_p": 0.8, "repetition_penalty": 1.05}


@pytest.mark.parametrize("generation", [{}, SHIPPED, {"repetition_penalty": 1.2}, {"do_sample": True}])
def test_a_right_port_passes(generation):
    port = Right(**generation)
    assert [what for what in (found(port, f) for f in recorded(**generation)) if what != PASSED] == []
    assert {f.component.removeprefix("sampling.") for f in recorded(**generation)} == {
        *("repetition_penalty", "temperature", "top_k", "top_p", "min_p", "all", "generation_config", "draws")
    }


def test_a_port_without_the_methods_is_unmeasured():
    for each, method in ((fact("top_k"), "process_logits"), (fact("draws"), "draw")):
        with pytest.raises(NotOffered, match=f"does not offer `{method}`"):
            FAMILIES[each.family].ask(SimpleNamespace(), each)


@cache
def failures(fault, withheld=False):
    """(fact, what was found) of every failing fact that asks the method that the fault is in.

    Of a checkpoint that does not sample, and then what one brings in that does.
    """
    name = fault.planting.name
    asked = [(Right(), f) for f in recorded() if f.family == ASKED[name]]
    if name == "process_logits":
        asked.append((Right(**SHIPPED), fact("generation_config", **SHIPPED)))
    with pytest.MonkeyPatch.context() as patch:
        if withheld:
            every = mishandled.mistakes
            patch.setattr(
                mishandled, "mistakes", lambda q: (m for m in every(q) if m.name not in fault.named_by)
            )
        answers = [(f, found(Wrong(port, fault.planting), f)) for port, f in asked]
    return [(f, each) for f, each in answers if each.verdict is Verdict.FAIL]


class Wrong:
    """A port with a fault planted."""

    def __init__(self, port, planting):
        self.process_logits, self.draw = port.process_logits, port.draw
        setattr(self, planting.name, planting.change(getattr(port, planting.name)))


def explained(failed):
    """What components of a checkpoint's are told to be, for each of both checkpoints."""
    return [
        one
        for checkpoint in (recorded(), recorded(**SHIPPED))
        for one in explain_facts((FactIn(f, "float32"), what) for f, what in failed if f in checkpoint)
    ]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_found_where_it_is_and_nowhere_else_and_gets_no_wrong_name(fault):
    failed = failures(fault)
    assert bool(failed) is not bool(fault.equivalent)
    for each, what in failed:
        assert any(fnmatchcase(each.component, glob) for glob in fault.planting.at)
        assert what.reason
        assert what.hypotheses or not what.text
        assert not what.text or set(what.hypotheses) & fault.named_by
    if fault.named_by:
        told = explained(failed)
        assert all(set(each.hypotheses) & fault.named_by for each in told if each.hypotheses)
        assert any(each.hypotheses and set(each.hypotheses) <= fault.named_by for each in told) or (
            fault.name == "draws-of-the-likeliest"
        ), "one draw again and again is the same"


@pytest.mark.parametrize(
    "fault",
    [fault for fault in FAULTS if fault.named_by and fault.planting.name == "process_logits"],
    ids=lambda fault: fault.name,
)
def test_without_the_right_name_there_is_none(fault):
    failed = failures(fault, withheld=True)
    names = {name for _, what in failed if what.text for name in what.hypotheses}
    names |= {name for one in explained(failed) for name in one.hypotheses}
    named_elsewhere = {
        *("filter_value_finite", "sampled_although_greedy", "default_settings", "generation_config_ignored")
    }
    assert names <= named_elsewhere & fault.named_by


def test_every_mistake_makes_a_difference_in_logits_of_its_own_and_no_two_the_same():
    for each in (f for f in recorded() if f.family == "sampling" and f.given["settings"]):
        q = question(each)
        with np.errstate(all="ignore"):
            answers = [("right", processed(q)), *((m.name, m.answer) for m in mishandled.mistakes(q))]
        alike = {
            (one, other)
            for (one, x), (other, y) in combinations(answers, 2)
            if one != other and np.allclose(x, y, rtol=1e-5, atol=1e-5)
        }
        assert alike == set(), f"{each.component} {each.case}"


def test_one_token_too_many_has_no_name_where_it_fits_several_settings():
    each = fact("all", "logits-4")
    q = question(each)
    instead = next(m for m in mishandled.mistakes(q) if m.name == "top_k_plus_one").answer
    assert (np.isfinite(instead) != np.isfinite(processed(q))).sum() == 1
    what = judged(each, instead)
    assert (what.verdict, what.text) == (Verdict.FAIL, "")
    assert "top_k_plus_one" in what.hypotheses
    assert explain_facts([(FactIn(each, "float32"), what)]) == []


# What rounding explains


def test_what_rounding_explains_passes_and_twice_as_much_does_not():
    each = fact("all")
    right = np.nan_to_num(np.asarray(each.expected, float), nan=-np.inf)
    for units, verdict in ((11, Verdict.PASS), (13, Verdict.FAIL)):
        assert judged(each, right * (1 + units * 2.0**-24)).verdict is verdict


@pytest.mark.parametrize("name", ["top_k", "top_p", "min_p"])
def test_what_only_keeps_and_drops_is_compared_bit_by_bit(name):
    each = fact(name)
    right = np.nan_to_num(np.asarray(each.expected, np.float32), nan=-np.inf)
    assert judged(each, right).verdict is Verdict.PASS
    what = judged(each, np.nextafter(right, np.float32(np.inf), where=np.isfinite(right), out=right.copy()))
    assert what.verdict is Verdict.FAIL
    assert what.hypotheses == ()


def test_tokens_too_many_and_too_few_are_told():
    each = fact("top_k")
    answer = np.nan_to_num(np.asarray(each.expected, float), nan=-np.inf)
    kept, dropped = np.flatnonzero(np.isfinite(answer[1])), np.flatnonzero(~np.isfinite(answer[1]))
    answer[1, kept[0]], answer[1, dropped[:2]] = -np.inf, 0.0
    assert judged(each, answer).reason == (
        f"text 1 keeps tokens {dropped[0]}, {dropped[1]} too many and keeps token {kept[0]} too few "
        f"({len(kept)} of 48 are to be kept)"
    )


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (None, "the port gave nothing"),
        ("logits", "the port gave a str that is no array of numbers"),
        ([[1.0], [2.0, 3.0]], "the port gave a list that is no array of numbers"),
        ({"logits": 1}, "the port gave a dict that is no array of numbers"),
        (np.zeros((2, 47)), "has shape [2, 47], where [2, 48] was expected"),
        (np.zeros(()), "has shape [], where [2, 48] was expected"),
        (np.full((2, 48), np.nan), "96 of 96 numbers are NaN or positive infinity, the first at [0, 0]"),
        (np.full((2, 48), np.inf), "96 of 96 numbers are NaN or positive infinity, the first at [0, 0]"),
    ],
)
def test_an_answer_that_is_none_fails_in_one_sentence(answer, reason):
    assert judged(fact("top_p"), answer).reason == reason
    assert judged(fact("top_p"), answer).verdict is Verdict.FAIL


def test_nothing_kept_fails_and_has_no_name():
    what = judged(fact("all"), np.full(np.shape(fact("all").expected), -np.inf))
    assert (what.verdict, what.hypotheses) == (Verdict.FAIL, ())


# What the checkpoint brings in


@pytest.mark.parametrize(
    ("generation", "used", "names"),
    [
        (SHIPPED, {}, {"generation_config_ignored"}),
        (SHIPPED, {**SHIPPED, "do_sample": False}, {"greedy_although_sampled"}),
        (SHIPPED, {**SHIPPED, "top_k": 0}, {"top_k_ignored"}),
        (SHIPPED, {**SHIPPED, "repetition_penalty": 1.0}, {"repetition_penalty_ignored"}),
        ({"do_sample": True}, {}, {"top_k_ignored"}),
        ({"repetition_penalty": 1.2}, {}, {"repetition_penalty_ignored"}),
        ({"temperature": 0.5}, {"temperature": 0.5, "do_sample": True}, {"sampled_although_greedy"}),
        ({}, {"do_sample": True}, {"sampled_although_greedy"}),
        ({}, {"repetition_penalty": 1.1}, set()),
    ],
)
def test_generation_settings_that_are_not_used_as_the_checkpoint_has_them_are_named(generation, used, names):
    what = found(Right(**used), fact("generation_config", **generation))
    assert what.verdict is Verdict.FAIL
    assert set(what.hypotheses) == names


def test_a_checkpoint_whose_settings_the_reference_refuses_has_no_fact_of_them():
    generation = {"do_sample": True, "temperature": -1.0}
    assert "sampling.generation_config" not in {f.component for f in recorded(**generation)}
    assert len(recorded(**generation)) == len(recorded()) - 1


# Draws


def test_a_right_draw_passes_whatever_the_seed_and_the_generator():
    for each in (f for f in recorded() if f.family == "draws"):
        for seed in range(200):
            drawn = np.random.default_rng(seed).choice(48, each.given["count"], p=each.expected)
            assert judged(each, drawn).verdict is Verdict.PASS


MANY_RARE = np.append(np.full(200, 1.5 / 20_000), 1 - 300 / 20_000)


@pytest.mark.parametrize("case", ["logits-5", "logits-6", None])
def test_false_alarms_are_as_rare_as_said(case):
    """At a rate that can be measured: a hundredth, within five standard deviations."""
    probs = np.asarray(fact("draws", case).expected) if case else MANY_RARE
    counts = np.random.default_rng(1).multinomial(20_000, probs, size=4_000)
    rare = sum(chance(each, probs) < 1e-2 for each in counts)
    assert rare < 40 + 5 * 40**0.5


def moved(probs, distance, generator):
    """Probabilities this far away in total variation, moved from some tokens to the others in proportion."""
    giving = generator.random(len(probs)) < 0.5
    taken, given = probs[giving & (probs > 0)].sum(), probs[~giving].sum()
    scale = np.where(giving, 1 - distance / taken, 1 + distance / given)
    return probs * scale


def test_a_twentieth_moved_elsewhere_is_found_for_sure_and_a_hundredth_is_not():
    generator = np.random.default_rng(2)
    probs = np.asarray(fact("draws", "logits-5").expected)
    found_at = {}
    for distance in (0.05, 0.01):
        other = [moved(probs, distance, generator) for _ in range(300)]
        other = [each / each.sum() for each in other if each.min() >= 0]
        found_at[distance] = np.mean(
            [chance(generator.multinomial(20_000, each), probs) < FALSE_ALARMS for each in other]
        )
        assert len(other) > 200
    assert found_at[0.05] == 1
    assert found_at[0.01] < 0.1


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (None, "the port gave nothing"),
        ([[1], [1, 2]], "the port gave a list that is no array of token ids"),
        (np.zeros(7, int), "has shape [7], where 20000 draws were asked for"),
        (np.zeros((20_000, 1), int), "has shape [20000, 1], where 20000 draws were asked for"),
        (np.zeros(20_000), "holds float64, where token ids are whole numbers"),
        (np.full(20_000, -1), "token -1 was drawn, but there are 48 logits"),
        (np.full(20_000, 48), "token 48 was drawn, but there are 48 logits"),
    ],
)
def test_draws_that_are_none_fail_in_one_sentence(answer, reason):
    assert judged(fact("draws"), answer).reason == reason


def test_one_draw_of_a_token_that_may_not_be_chosen_is_found():
    each = fact("draws", "logits-5")
    drawn = np.random.default_rng(0).choice(48, each.given["count"], p=each.expected)
    outside = int(np.flatnonzero(np.asarray(each.expected) == 0)[0])
    drawn[17] = outside
    assert judged(each, drawn).reason == f"1 of 20000 draws are token {outside}, which may not be chosen"
