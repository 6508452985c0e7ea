"""Chats that are written otherwise than by the checkpoint's template: what it is told, or what becomes of it."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.audit.fault import Area, DoesNotApply, Fault, Method

Write = Callable[..., str]
Messages = Sequence[Mapping[str, Any]]

_CHATS = ("chat_template",)

_HELLO = ({"role": "user", "content": "Hello"},)
_TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
_CALL = {"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}


def _told(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Write], Write]:
    """The template is told something else beside the messages."""
    return lambda write: lambda messages, **options: write(messages, **change(options))


def _said(change: Callable[[Messages], Messages]) -> Callable[[Write], Write]:
    """The messages are changed before they are written; where none is left, as they are."""
    return lambda write: lambda messages, **options: write(change(messages) or messages, **options)


def _contents(change: Callable[[str], str]) -> Callable[[Write], Write]:
    return _said(lambda messages: [_with_content(message, change) for message in messages])


def _with_content(message: Mapping[str, Any], change: Callable[[str], str]) -> Mapping[str, Any]:
    content = message.get("content")
    return {**message, "content": change(content)} if isinstance(content, str) else message


def _written(change: Callable[[str], Any]) -> Callable[[Write], Callable[..., Any]]:
    """The text is changed after it was written."""
    return lambda write: lambda messages, **options: change(write(messages, **options))


def _without(*names: str) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    return lambda mapping: {name: value for name, value in mapping.items() if name not in names}


def _where(
    what: str, chat: Messages, options: Mapping[str, Any], change: Callable[[Write], Write]
) -> Callable[[Write], Write]:
    """Only where the template has what is changed, which this chat shows."""

    def planted(write: Write) -> Write:
        changed = change(write)
        try:
            same = changed(chat, **options) == write(chat, **options)
        except Exception:  # a port raises what it likes for a chat that its template refuses
            same = True
        if same:
            raise DoesNotApply(f"the chat template has no {what}")
        return changed

    return planted


def _from_the_first_message(write: Write) -> Write:
    """From the line above its content on, which says whose turn it is."""

    def changed(messages: Messages, **options: Any) -> str:
        text, first = write(messages, **options), messages[0]
        content = first.get("content")
        if first["role"] == "system" or options.get("tools") or not content or content not in text:
            return text
        header_end = max(text.index(content) - 1, 0)
        return text[text.rfind("\n", 0, header_end) + 1 :]

    return changed


def _json_in_ascii(write: Write) -> Write:
    """Strings of tools and of calls are escaped where they stand in quotes."""

    def changed(messages: Messages, **options: Any) -> str:
        text = write(messages, **options)
        calls = [message.get("tool_calls") for message in messages]
        for string in _strings([options.get("tools"), calls]):
            plain = json.dumps(string, ensure_ascii=False)
            text = text.replace(plain, json.dumps(string))
        return text

    return changed


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return [string for each in inner for string in _strings(each)]


def _keys_sorted(write: Write) -> Write:
    return lambda messages, **options: write(_sorted(list(messages)), **_sorted(options))


def _sorted(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _sorted(value[name]) for name in sorted(value)}
    return [_sorted(each) for each in value] if isinstance(value, list) else value


def _first_chat_for_all(write: Write) -> Write:
    known: dict[str, str] = {}
    return lambda messages, **options: known.setdefault("chat", write(messages, **options))


def _turns_exchanged(messages: Messages) -> Messages:
    others = {"user": "assistant", "assistant": "user"}
    return [{**message, "role": others.get(message["role"], message["role"])} for message in messages]


def _with_system_prompt(messages: Messages) -> Messages:
    if any(message["role"] == "system" for message in messages):
        return messages
    return [{"role": "system", "content": "You are a helpful assistant."}, *messages]


def _without_thinking(text: str) -> str:
    return re.sub(r"<think>[^<]*</think>\s*", "", text)


def _without_role(role: str) -> Callable[[Write], Write]:
    return _said(lambda messages: [message for message in messages if message["role"] != role])


def _writing(name: str, says: str, change: Callable[[Write], Callable[..., Any]], *named_by: str) -> Fault:
    return Fault(name, Area.TOKENIZER, says, Method(_CHATS, "render_chat", change), frozenset(named_by))


_CALLED = (
    *_HELLO,
    {"role": "assistant", "content": "", "tool_calls": [_CALL]},
    {"role": "tool", "content": "7"},
)
_WITH_TOOL = {"tools": [_TOOL]}
_PROMPTED = {"add_generation_prompt": True}

FAULTS: tuple[Fault, ...] = (
    _writing(
        "generation-prompt-missing",
        "the beginning of the answer is never written",
        _told(_without("add_generation_prompt")),
        "generation_prompt_missing",
    ),
    _writing(
        "generation-prompt-always",
        "the beginning of the answer is written unasked",
        _told(lambda options: options | _PROMPTED),
        "generation_prompt_added",
    ),
    _writing(
        "default-system-prompt-missing",
        "the template's own system prompt is left out",
        _where("system prompt of its own", _HELLO, {}, _from_the_first_message),
        "default_system_prompt_missing",
    ),
    _writing(
        "system-prompt-of-its-own",
        "a system prompt is put into chats that have none",
        _said(_with_system_prompt),
        "default_system_prompt_added",
        "default_system_prompt_replaced",
    ),
    _writing("system-prompt-ignored", "system prompts are left out", _without_role("system"), "system_prompt_ignored"),
    _writing(
        "tools-ignored",
        "tools are not offered",
        _where("place for tools", _HELLO, _WITH_TOOL, _told(_without("tools"))),
        "tools_ignored",
    ),
    _writing(
        "tool-calls-ignored",
        "calls of tools are left out",
        _where(
            "place for calls of tools",
            _CALLED,
            _WITH_TOOL,
            _said(lambda messages: [_without("tool_calls")(message) for message in messages]),
        ),
        "tool_calls_ignored",
    ),
    _writing(
        "tool-messages-ignored",
        "what tools answer is left out",
        _where("place for what tools answer", _CALLED, _WITH_TOOL, _without_role("tool")),
        "tool_messages_ignored",
    ),
    _writing(
        "tools-with-sorted-keys",
        "JSON has its keys sorted",
        _where("place for tools", _HELLO, _WITH_TOOL, _keys_sorted),
        "json_keys_sorted",
    ),
    _writing(
        "tools-in-ascii",
        "JSON has characters beyond ASCII escaped",
        _where(
            "place for tools", _HELLO, {"tools": [_TOOL | {"description": "水"}]}, _json_in_ascii
        ),
        "json_ascii_escaped",
    ),
    _writing(
        "thinking-switch-ignored",
        "`enable_thinking` is ignored",
        _where(
            "switch for thinking",
            _HELLO,
            _PROMPTED | {"enable_thinking": False},
            _told(_without("enable_thinking")),
        ),
        "enable_thinking_ignored",
    ),
    _writing(
        "thinking-off-by-default",
        "thinking is off where the chat does not say",
        _where(
            "switch for thinking", _HELLO, _PROMPTED, _told(lambda options: {"enable_thinking": False} | options)
        ),
        "thinking_switched_off",
    ),
    _writing(
        "thinking-block-missing",
        "blocks of thinking are left out",
        _where(
            "block of thinking", _HELLO, _PROMPTED | {"enable_thinking": False}, _written(_without_thinking)
        ),
        "thinking_block_missing",
        "enable_thinking_ignored",  # the block is all that the switch puts there
    ),
    _writing("contents-stripped", "messages are stripped of white space", _contents(str.strip), "contents_stripped"),
    _writing(
        "special-tokens-in-messages-dropped",
        "special tokens in messages are dropped",
        _contents(lambda content: re.sub(r"<\|\w+\|>", "", content)),
        "special_tokens_dropped",
    ),
    _writing("chat-stripped", "the whole text is stripped of white space", _written(str.strip), "text_stripped"),
    _writing(
        "newline-behind-chat", "a newline is put behind", _written(lambda text: f"{text}\n"), "white_space_added"
    ),
    _writing("only-last-message", "earlier turns are lost", _said(lambda messages: messages[-1:]), "only_last_message"),
    _writing(
        "last-message-missing", "the last turn is lost", _said(lambda messages: messages[:-1]), "last_message_missing"
    ),
    _writing("turns-exchanged", "user and assistant are exchanged", _said(_turns_exchanged)),
    _writing("chat-as-bytes", "bytes are given, and no text", _written(str.encode)),
    _writing("first-chat-for-all", "every chat is written as the first", _first_chat_for_all),
)  # fmt: skip
