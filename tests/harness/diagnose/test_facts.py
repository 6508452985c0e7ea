"""What explains facts that are wrong: the mistake that explains most of those of a component."""

from harness.diagnose.facts import explain_facts
from harness.facts.family import PASSED, wrong
from harness.model import Fact, FactIn


def told(*found, component="tokenizer"):
    facts = [FactIn(Fact(component, "tokenizer", str(n), None, None), "float32") for n in range(len(found))]
    return explain_facts(zip(facts, found, strict=True))


CUT = wrong("it ends", "truncated", text="the text is cut")
STRIPPED = wrong("it ends", "text_stripped", "end_stripped", text="white space is dropped")
EITHER = wrong("it ends", "truncated", "text_stripped", text="the text is cut, or white space is dropped")
UNNAMED = wrong("it is another one")
UNSURE = wrong("it is another one", "truncated", "upper_case")


def test_what_passes_and_what_has_no_explanation_is_not_explained():
    assert told(PASSED, PASSED) == []
    assert told(UNNAMED, UNNAMED) == []


def test_what_explains_most_of_it_is_the_name():
    (said,) = told(CUT, EITHER, CUT, STRIPPED, PASSED)
    assert (said.component, said.hypotheses, said.text) == ("tokenizer", ["truncated"], "the text is cut")


def test_what_explains_half_of_it_or_less_is_no_name():
    (said,) = told(CUT, CUT, UNNAMED, UNNAMED)
    assert said.hypotheses == []
    assert said.text == "unexplained: some of what is wrong would be explained by: the text is cut"
    (said,) = told(CUT, STRIPPED)
    assert (said.hypotheses, "white space is dropped" in said.text) == ([], True)


def test_what_shows_nothing_by_itself_agrees_with_what_it_fits_and_no_more():
    assert told(UNSURE) == told(UNSURE, UNSURE) == []
    (said,) = told(UNSURE, CUT)
    assert (said.hypotheses, said.text) == (["truncated"], "the text is cut")
    (said,) = told(UNSURE, STRIPPED)
    assert said.hypotheses == []
    (said,) = told(UNSURE, UNSURE, wrong("it is shouted", "low_case", text="it is in lower case"))
    assert said.hypotheses == []
    (said,) = told(UNSURE, wrong("it is another one", "upper_case", "cut_twice"), CUT)
    assert (said.hypotheses, said.text) == (["truncated"], "the text is cut")


def test_what_cannot_be_told_apart_stays_so():
    (said,) = told(STRIPPED, STRIPPED)
    assert said.hypotheses == ["text_stripped", "end_stripped"]


def test_a_text_without_a_name_stays_a_description():
    (said,) = told(wrong("it is another one", text="rounded, or trained on"))
    assert (said.hypotheses, said.text) == ([], "rounded, or trained on")


def test_each_component_has_its_own():
    facts = [FactIn(Fact(f"config.{n}", "config", "checkpoint", None, None), "float32") for n in "ab"]
    said = explain_facts(zip(facts, (CUT, STRIPPED), strict=True))
    assert [(each.component, each.hypotheses[0]) for each in said] == [
        ("config.a", "truncated"),
        ("config.b", "text_stripped"),
    ]
