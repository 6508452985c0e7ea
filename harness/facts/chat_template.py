"""`chat_template`: the text that a port makes of a chat, character by character.

given: `chat`, an object of `messages` and `options` as JSON in a string: a golden file sorts keys, and templates write
them in the order of the chat.
expected: `text`; `mistaken`, what texts come of mistakes that ports make, with the `names` of those that give them, as
the reference's template wrote them when it was recorded.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from harness.facts.family import PASSED, Context, Family, Found, wrong
from harness.model import Fact
from harness.replay.port import NotOffered, Templated

_SAYS = {
    "generation_prompt_missing": "the beginning of the assistant's answer is not written, although it was asked for",
    "generation_prompt_added": "the beginning of the assistant's answer is written, although it was not asked for",
    "default_system_prompt_missing": "the template's own system prompt is left out",
    "default_system_prompt_emptied": "an empty system prompt stands in the place of the template's own",
    "system_prompt_ignored": "the chat's system prompt is left out",
    "tools_ignored": "tools are ignored",
    "tool_calls_ignored": "tool calls are ignored",
    "tool_messages_ignored": "what tools answered is left out",
    "enable_thinking_ignored": "`enable_thinking` is ignored",
    "thinking_switched_off": "thinking is switched off, although the chat does not say so",
    "thinking_switched_on": "thinking is switched on, although the chat does not say so",
    "reasoning_ignored": "the reasoning beside an answer is ignored",
    "thinking_dropped": "thinking is dropped from what the assistant said",
    "contents_stripped": "white space at the ends of messages is dropped",
    "special_tokens_dropped": "special tokens in messages are dropped",
    "only_last_message": "only the last message is written",
    "last_message_missing": "the last message is left out",
    "blocks_not_trimmed": "the template is run without trim_blocks and lstrip_blocks",
    "jinja_tojson": "JSON is written by Jinja's own `tojson`, which sorts and escapes for HTML",
    "json_ascii_escaped": "JSON is written with characters beyond ASCII escaped",
    "json_keys_sorted": "JSON is written with keys sorted",
    "json_compact": "JSON is written without spaces",
    "json_as_python": "what should be JSON is written as Python writes it",
}

_THINKING = re.compile(r"<think>.*?</think>\s*", re.DOTALL)
_BEFORE, _BEHIND = 16, 24
"""Characters that are shown around the place where two texts part."""


def _ask(port: Any, fact: Fact) -> Any:
    if not isinstance(port, Templated):
        raise NotOffered("the port does not offer `render_chat`")
    chat = json.loads(fact.given["chat"])
    return port.render_chat(chat["messages"], **chat["options"])


def _judge(fact: Fact, answer: Any, context: Context) -> Found:
    expected = fact.expected["text"]
    if not isinstance(answer, str):
        return wrong(f"gave a {type(answer).__name__}, where a text was expected")
    if answer == expected:
        return PASSED
    mistaken = fact.expected["mistaken"]
    mistakes = _recorded(mistaken, answer) or _seen(expected, answer) or _system_prompt(mistaken, answer)
    return wrong(_difference(expected, answer), *mistakes, text=", or ".join(mistakes.values()))


def _difference(expected: str, answer: str) -> str:
    """Where they part, with what stands there."""
    shorter = min(len(answer), len(expected))
    place = next((n for n in range(shorter) if answer[n] != expected[n]), shorter)
    before = repr(expected[max(0, place - _BEFORE) : place])
    if place == len(answer):
        return f"ends at character {place} after {before}, where the reference goes on with {_shown(expected, place)}"
    if place == len(expected):
        return f"goes on with {_shown(answer, place)}, where the reference ends at character {place} after {before}"
    return (
        f"at character {place} after {before} is {_shown(answer, place)}, "
        f"where the reference has {_shown(expected, place)}"
    )


def _shown(text: str, place: int) -> str:
    """As a literal, so that what does not print can be seen."""
    return repr(text[place : place + _BEHIND])


def _recorded(mistaken: Sequence[Mapping[str, Any]], answer: str) -> dict[str, str]:
    for each in mistaken:
        if each["text"] == answer:
            return {name: _SAYS.get(name, name) for name in each["names"]}
    return {}


def _seen(expected: str, answer: str) -> dict[str, str]:
    """Mistakes that can be told by comparing the texts."""
    if expected.strip() == answer.strip():
        if len(answer) < len(expected):
            return {"text_stripped": "white space at the ends of the whole text is dropped"}
        return {"white_space_added": "white space is put at an end of the whole text"}
    if _THINKING.sub("", expected) == _THINKING.sub("", answer):
        more = len(_THINKING.findall(answer)) > len(_THINKING.findall(expected))
        name, verb = ("thinking_block_added", "added") if more else ("thinking_block_missing", "left out")
        return {name: f"a block of thinking is {verb}"}
    if expected and answer.endswith(expected):
        front = answer.removesuffix(expected)
        if "system" in front:
            return {
                "default_system_prompt_added": "a system prompt is put in front that the template has not"
            }
        return {"text_in_front": f"{_shown(front, 0)} is put in front"}
    if "".join(expected.split()) == "".join(answer.split()):
        return {"white_space_differs": "nothing but white space differs"}
    return {}


def _system_prompt(mistaken: Sequence[Mapping[str, Any]], answer: str) -> dict[str, str]:
    """The text with an empty system prompt, and one put in at some place, has another than the template's own."""
    for each in mistaken:
        text, added = each["text"], len(answer) - len(each["text"])
        if "default_system_prompt_emptied" in each["names"] and added > 0:
            place = next(
                (n for n, pair in enumerate(zip(text, answer, strict=False)) if pair[0] != pair[1]), 0
            )
            if place and answer[place + added :] == text[place:]:
                return {"default_system_prompt_replaced": "the template's own system prompt is another"}
    return {}


CHAT_TEMPLATE = Family("chat_template", _ask, _judge)
