"""Built-in texts and chats: what tokenizers and chat templates are asked about beside the prompts of a suite."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec

from harness import toml
from harness.prompts import Name

BUILT_IN = Path(__file__).with_name("texts.toml")

_PLACES = ("{0}", "{1}", "{2}")


class Text(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A text, `repeat` times over."""

    name: Name
    text: str
    repeat: Annotated[int, msgspec.Meta(ge=1)] = 1


class Chat(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A chat and what its template is told besides. tools: whether it is offered the file's tools."""

    name: Name
    messages: Annotated[tuple[dict[str, Any], ...], msgspec.Meta(min_length=1)]
    options: dict[str, Any] = {}
    tools: bool = False


class _TextsFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    text: tuple[Text, ...]
    chat: tuple[Chat, ...]
    tool: tuple[dict[str, Any], ...]


def load_texts(special: Sequence[str], path: Path = BUILT_IN) -> dict[str, str]:
    """Texts by name. special: the tokenizer's special tokens, which take the places that the file leaves for them."""
    texts = toml.read(path, _TextsFile).text
    return {text.name: _filled(text.text * text.repeat, special) for text in texts}


def load_chats(special: Sequence[str], path: Path = BUILT_IN) -> dict[str, dict[str, Any]]:
    """Chats by name: `messages`, and `options` with the tools among them."""
    file = toml.read(path, _TextsFile)
    return {
        chat.name: {
            "messages": _filled(list(chat.messages), special),
            "options": chat.options | ({"tools": list(file.tool)} if chat.tools else {}),
        }
        for chat in file.chat
    }


def _filled(value: Any, special: Sequence[str]) -> Any:
    """With special tokens in their places, as many as there are, in turn; a tokenizer may have none."""
    if isinstance(value, str):
        for n, place in enumerate(_PLACES):
            value = value.replace(place, special[n % len(special)] if special else "")
        return value
    if isinstance(value, list):
        return [_filled(entry, special) for entry in value]
    if isinstance(value, dict):
        return {name: _filled(entry, special) for name, entry in value.items()}
    return value
