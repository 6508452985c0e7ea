"""Chats to text: a checkpoint's chat template, found and rendered as the reference does it.

A template is a program that came with a checkpoint, so it runs in Jinja's sandbox, and changes nothing it is given.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

_DEFAULT, _WITH_TOOLS = "default", "tool_use"

_REASONING = ("reasoning_content", "thinking", "reasoning")
"""What a message's reasoning may be called. Templates read the first, or the second."""


def read(folder: Path, settings: Mapping[str, Any]) -> dict[str, str]:
    """The templates by name, of which there may be none. A file of its own goes before tokenizer_config.json."""
    files = {_DEFAULT: folder / "chat_template.jinja"}
    files |= {path.stem: path for path in sorted((folder / "additional_chat_templates").glob("*.jinja"))}
    found = {name: path.read_text(encoding="utf-8") for name, path in files.items() if path.is_file()}
    return found or _by_name(settings.get("chat_template")) or _older(folder / "chat_template.json")


def _by_name(written: Any) -> dict[str, str]:
    if isinstance(written, str):
        return {_DEFAULT: written}
    return {str(entry["name"]): str(entry["template"]) for entry in written or ()}


def _older(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    try:
        return _by_name(json.loads(path.read_text(encoding="utf-8"))["chat_template"])
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path} holds no chat_template") from None


def choose(templates: Mapping[str, str], tools: Any) -> str:
    """The template for a chat, which may have one of its own where tools are offered."""
    if not templates:
        raise ValueError(
            "the checkpoint has no chat template: neither chat_template.jinja nor chat_template in "
            "tokenizer_config.json"
        )
    name = _WITH_TOOLS if tools is not None and _WITH_TOOLS in templates else _DEFAULT
    if name not in templates:
        raise ValueError(f"of the chat templates {', '.join(sorted(templates))} none is called {_DEFAULT!r}")
    return templates[name]


def render(template: str, messages: Sequence[Mapping[str, Any]], variables: Mapping[str, Any]) -> str:
    """The text of a chat. Raises ValueError where the template refuses it."""
    import jinja2

    if not messages:
        raise ValueError("a chat without messages cannot be written: give one at least")
    given = {"tools": None, "documents": None, "add_generation_prompt": False, **variables}
    try:
        return (
            _environment()
            .from_string(template)
            .render(messages=[_message(each) for each in messages], **given)
        )
    except jinja2.TemplateError as error:
        raise ValueError(f"the chat template cannot be applied: {error}") from error


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is null, which templates would write as a word, and with reasoning under both names."""
    kept = {name: value for name, value in message.items() if value is not None}
    reasoning = next((kept[name] for name in _REASONING if name in kept), None)
    if reasoning is None:
        return kept
    return {"thinking": reasoning, **kept, "reasoning_content": reasoning}


def _environment() -> Any:
    from jinja2.ext import Extension, loopcontrols
    from jinja2.nodes import Scope
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}` marks what the assistant wrote, for training; here it is but its content."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            return Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {"raise_exception": _raise, "strftime_now": _now}
    return environment


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: Any = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own would escape for HTML, and sort."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise(message: str) -> None:
    import jinja2

    raise jinja2.TemplateError(message)


def _now(form: str) -> str:
    return datetime.now().strftime(form)
