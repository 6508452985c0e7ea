"""Texts of chats: every difference fails and shows itself; mistakes have their names."""

import json

import pytest

from harness.facts.chat_template import CHAT_TEMPLATE
from harness.facts.family import Context
from harness.model import Fact, Verdict
from harness.replay.port import NotOffered

TEXT = "<user>Where is snow made?\n<assistant><think>\nhigh\n</think>\n\nUp.\n"
CHAT = {"messages": [{"role": "user", "content": "Where?"}], "options": {"tools": [{"b": 1, "a": 2}]}}


def judged(answer, text=TEXT, mistaken=()):
    expected = {"text": text, "mistaken": list(mistaken)}
    fact = Fact("chat_template", "chat_template", "it", {"chat": json.dumps(CHAT)}, expected)
    return CHAT_TEMPLATE.judge(fact, answer, Context("float32", None))


def test_a_port_is_asked_with_messages_and_options_in_their_order():
    class Port:
        def render_chat(self, messages, **options):
            return [messages, options]

    fact = Fact("chat_template", "chat_template", "it", {"chat": json.dumps(CHAT)}, {})
    answer = CHAT_TEMPLATE.ask(Port(), fact)
    assert json.dumps(answer) == json.dumps([CHAT["messages"], CHAT["options"]])
    with pytest.raises(NotOffered, match="does not offer `render_chat`"):
        CHAT_TEMPLATE.ask(object(), fact)


def test_the_same_text_passes():
    assert judged(TEXT).verdict is Verdict.PASS


@pytest.mark.parametrize("answer", [None, [1, 2], TEXT.encode(), {"text": TEXT}, 3.5])
def test_what_is_no_text_is_a_clear_failure(answer):
    found = judged(answer)
    assert found.verdict is Verdict.FAIL
    assert found.reason == f"gave a {type(answer).__name__}, where a text was expected"


@pytest.mark.parametrize(
    ("answer", "expected", "reason"),
    [
        ("abX\ncd", "abY\tcd", r"at character 2 after 'ab' is 'X\ncd', where the reference has 'Y\tcd'"),
        ("a", "a\n", r"ends at character 1 after 'a', where the reference goes on with '\n'"),
        ("a\u200b", "a", r"goes on with '\u200b', where the reference ends at character 1 after 'a'"),
        ("", "a", "ends at character 0 after '', where the reference goes on with 'a'"),
        (
            f"{'-' * 30}X{'+' * 40}",
            f"{'-' * 30}Y{'+' * 40}",
            f"at character 30 after '{'-' * 16}' is 'X{'+' * 23}', where the reference has 'Y{'+' * 23}'",
        ),
    ],
)
def test_it_shows_where_texts_part(answer, expected, reason):
    found = judged(answer, expected)
    assert (found.verdict, found.reason) == (Verdict.FAIL, reason)


@pytest.mark.parametrize(
    ("answer", "names"),
    [
        (TEXT.strip(), ["text_stripped"]),
        (f"{TEXT}\n", ["white_space_added"]),
        (TEXT.replace("<think>\nhigh\n</think>\n\n", ""), ["thinking_block_missing"]),
        (f"{TEXT}<think>\n\n</think>\n\n", ["thinking_block_added"]),
        (f"<system>Be nice.\n{TEXT}", ["default_system_prompt_added"]),
        (f"<s>{TEXT}", ["text_in_front"]),
        (TEXT.replace("\n<assistant>", " <assistant>"), ["white_space_differs"]),
        (TEXT.upper(), []),
        ("", []),
    ],
)
def test_mistakes_are_named(answer, names):
    found = judged(answer)
    assert found.verdict is Verdict.FAIL
    assert list(found.hypotheses) == names
    assert bool(found.text) == bool(names)


def test_recorded_mistakes_come_first_with_all_that_give_the_same():
    mistaken = ({"names": ["generation_prompt_missing", "tools_ignored"], "text": TEXT.strip()},)
    found = judged(TEXT.strip(), mistaken=mistaken)
    assert found.hypotheses == ("generation_prompt_missing", "tools_ignored")
    assert found.text.endswith("although it was asked for, or tools are ignored")
