"""The texts that mistaken renderings of a chat give: by the reference's own template, told something else.

A port is replayed where there may be no template, so these are recorded beside the right text.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

Messages = Sequence[Mapping[str, Any]]
Options = Mapping[str, Any]

_THINKING = re.compile(r"<think>.*?</think>\s*", re.DOTALL)


class Chats:
    """Chats as the reference's template writes them, and as it would with another Jinja around it."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        sources = {self._source(None), self._source([])}
        self._with_other_jinja = {
            (name, source): compiled
            for source in sources
            for name, environment in _other_environments().items()
            if (compiled := _compiled(environment, source)) is not None
        }

    @property
    def bos(self) -> str:
        return self._tokenizer.bos_token or ""

    @property
    def special(self) -> list[str]:
        return [token.content for token in self._tokenizer.added_tokens_decoder.values() if token.special]

    def render(self, messages: Messages, options: Options) -> str | None:
        """None where the template refuses the chat, or asks for the day, which no golden can hold."""
        return _text_or_none(
            self._tokenizer.apply_chat_template, list(messages), tokenize=False, strftime_now=None, **options
        )

    def render_with_other_jinja(
        self, messages: Messages, options: Options
    ) -> Iterator[tuple[str, str | None]]:
        given = {"tools": None, "documents": None, "add_generation_prompt": False, **options}
        variables = {**self._tokenizer.special_tokens_map, **given, "messages": list(messages)}
        for (name, source), compiled in self._with_other_jinja.items():
            if source == self._source(options.get("tools")):
                yield name, _text_or_none(compiled.render, **variables)

    def _source(self, tools: Any) -> str | None:
        """The template for a chat, which may have one of its own where tools are offered."""
        return _text_or_none(self._tokenizer.get_chat_template, tools=tools)


def _text_or_none(make: Callable[..., Any], *arguments: Any, **named: Any) -> str | None:
    try:
        return str(make(*arguments, **named))
    except Exception:  # a template can raise anything, its own refusals included
        return None


def _compiled(environment: Any, source: str | None) -> Any:
    from jinja2 import TemplateSyntaxError

    try:
        return None if source is None else environment.from_string(source)
    except TemplateSyntaxError:  # of tags that the reference has added
        return None


def mistaken_chats(chats: Chats, right: str, messages: Messages, options: Options) -> list[dict[str, Any]]:
    """The texts that differ from the right one, with the `names` of the mistakes giving them."""
    found: dict[str, list[str]] = {}
    for name, text in _renderings(chats, right, messages, options):
        if text is not None and text != right:
            found.setdefault(text, []).append(name)
    return [{"names": names, "text": text} for text, names in found.items()]


def _renderings(
    chats: Chats, right: str, messages: Messages, options: Options
) -> Iterator[tuple[str, str | None]]:
    for name, changed in _other_options(options).items():
        yield name, chats.render(messages, changed)
    for name, others in _other_messages(chats, messages).items():
        yield name, chats.render(others, options) if others else None
    yield "default_system_prompt_missing", _without_default_system_prompt(chats, right, messages, options)
    yield from chats.render_with_other_jinja(messages, options)


def _other_options(options: Options) -> dict[str, Options]:
    asked = bool(options.get("add_generation_prompt"))
    changed = {
        "generation_prompt_missing" if asked else "generation_prompt_added": {
            **options,
            "add_generation_prompt": not asked,
        },
        "tools_ignored": _without(options, "tools"),
    }
    if "enable_thinking" in options:
        return changed | {"enable_thinking_ignored": _without(options, "enable_thinking")}
    return changed | {
        "thinking_switched_off": {**options, "enable_thinking": False},
        "thinking_switched_on": {**options, "enable_thinking": True},
    }


def _other_messages(chats: Chats, messages: Messages) -> dict[str, Messages]:
    without_system = [each for each in messages if each["role"] != "system"]
    changed: dict[str, Messages] = {
        "system_prompt_ignored": without_system,
        "tool_calls_ignored": [_without(each, "tool_calls") for each in messages],
        "tool_messages_ignored": [each for each in messages if each["role"] != "tool"],
        "reasoning_ignored": [_without(each, "reasoning_content") for each in messages],
        "thinking_dropped": _with_contents(messages, lambda content: _THINKING.sub("", content)),
        "contents_stripped": _with_contents(messages, str.strip),
        "only_last_message": messages[-1:],
        "last_message_missing": messages[:-1],
    }
    if special := "|".join(map(re.escape, chats.special)):
        changed["special_tokens_dropped"] = _with_contents(messages, lambda text: re.sub(special, "", text))
    if len(without_system) == len(messages):
        changed["default_system_prompt_emptied"] = [{"role": "system", "content": ""}, *messages]
    return changed


def _without(mapping: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in mapping.items() if key != name}


def _with_contents(messages: Messages, change: Callable[[str], str]) -> Messages:
    return [
        {**each, "content": change(each["content"])} if isinstance(each.get("content"), str) else each
        for each in messages
    ]


def _without_default_system_prompt(
    chats: Chats, right: str, messages: Messages, options: Options
) -> str | None:
    """What stands before the first turn, where no message put it there, is the template's own.

    A turn is what a chat has more when its only message is there twice.
    """
    if messages[0]["role"] == "system" or options.get("tools"):
        return None
    once, twice = (chats.render(list(messages[:1]) * times, {}) for times in (1, 2))
    if once is None or twice is None or not twice.startswith(once):
        return None
    turn = twice.removeprefix(once)
    own = once.removesuffix(turn).removeprefix(chats.bos)
    if not own or not once.endswith(turn):
        return None
    return right.replace(own, "", 1)


def _other_environments() -> dict[str, Any]:
    """Jinja as it is, without what the reference sets or puts into it, one thing at a time."""
    return {
        "blocks_not_trimmed": _environment(trimmed=False),
        "jinja_tojson": _environment(to_json=None),
        "json_ascii_escaped": _environment(to_json=_json(ensure_ascii=True)),
        "json_keys_sorted": _environment(to_json=_json(sort_keys=True)),
        "json_compact": _environment(to_json=_json(separators=(",", ":"))),
        "json_as_python": _environment(to_json=lambda value, **_: str(value)),
    }


def _json(**settings: Any) -> Callable[..., str]:
    return lambda value, **given: json.dumps(value, **{"ensure_ascii": False, **given, **settings})


_AS_THE_REFERENCE = _json()


def _environment(*, trimmed: bool = True, to_json: Callable[..., str] | None = _AS_THE_REFERENCE) -> Any:
    """to_json: what writes JSON; None for Jinja's own."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=trimmed, lstrip_blocks=trimmed, extensions=["jinja2.ext.loopcontrols"]
    )
    if to_json is not None:
        environment.filters["tojson"] = to_json
    return environment
