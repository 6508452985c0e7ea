"""The score, and which golden file catches what another one misses."""

import json
import math
import subprocess
import sys

import msgspec

from harness.audit.outcome import Audit, Effect, FaultResult, Naming, Verdict, score, unplanted, witness


def result(fault, verdict, planting="answer", **more):
    return FaultResult(fault, "scores", "it is wrong", planting, verdict, **more)


def audit(golden, *results):
    return Audit.from_results(golden, "port:make", "float32", results)


CAUGHT, MISSED, EQUIVALENT, NOT_PLANTED = Verdict


def test_the_score_is_of_what_can_be_planted_and_seen():
    found = audit(
        "a.h5", *(result(str(n), verdict) for n, verdict in enumerate([CAUGHT, CAUGHT, CAUGHT, MISSED]))
    )
    assert found.score == 0.75
    more = audit("a.h5", *found.results, result("e", EQUIVALENT), result("n", NOT_PLANTED))
    assert more.score == 0.75
    assert more.counts == {"caught": 3, "missed": 1, "equivalent": 1, "not planted": 1}


def test_of_several_files_one_that_catches_is_enough():
    one = [result("a", MISSED), result("b", CAUGHT), result("c", MISSED)]
    other = [result("a", CAUGHT), result("b", NOT_PLANTED), result("c", MISSED)]
    assert score(one + other) == score(other + one) == 2 / 3
    assert score([result("a", NOT_PLANTED), result("a", MISSED)]) == 0


def test_nothing_planted_is_no_score():
    assert score([]) == score([result("a", EQUIVALENT), result("b", NOT_PLANTED)]) == 0


def test_what_no_golden_file_has_a_place_for_is_counted_once():
    one = [result("a", NOT_PLANTED), result("b", NOT_PLANTED), result("c", MISSED)]
    other = [result("a", CAUGHT), result("b", NOT_PLANTED), result("c", EQUIVALENT)]
    assert unplanted(one + other) == (3, 1)
    assert unplanted([]) == (0, 0)


def test_only_what_is_caught_by_a_component_ran():
    assert result("a", CAUGHT, mode="isolated").ran
    assert not result("a", CAUGHT, mode="loading").ran
    assert not result("a", MISSED).ran


def test_a_fault_of_the_source_is_another_one_than_that_of_the_catalogue():
    found = [result("a", CAUGHT), result("a", MISSED, "source")]
    assert score(found) == 0.5
    assert witness(found[1], [audit("a.h5", *found)]) == ""


def test_the_witness_names_file_and_case():
    missed = result("a", MISSED)
    audits = [
        audit("one.h5", missed, result("b", CAUGHT, cases=["far"])),
        audit("two.h5", result("a", CAUGHT, cases=["chat", "far"])),
        audit("three.h5", result("a", CAUGHT, mode="loading")),
    ]
    assert witness(missed, audits) == "two.h5 (chat)"
    assert witness(missed, audits[2:]) == "three.h5"
    assert witness(missed, audits[:1]) == ""


def test_the_json_holds_all_and_knows_no_infinity():
    effect = Effect(math.inf, 2.0, "lm_head", "far", False, True)
    found = audit("one.h5", result("a", MISSED, effect=effect), result("b", CAUGHT, naming=Naming.ONE_OF))
    text = found.to_json()
    written = json.loads(text, parse_constant=lambda constant: 1 / 0)
    assert written["results"][0]["effect"]["over_floor"] == "Infinity"
    assert written["results"][1]["naming"] == "one of"
    assert msgspec.json.decode(text, type=Audit, strict=False) == found


def test_it_needs_nothing_heavy():
    heavy = "{'torch', 'jax', 'flax', 'numpy', 'h5py'}"
    check = f"import sys, harness.audit.outcome; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)
