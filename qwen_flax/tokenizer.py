"""Text to token ids and back, from the files of a checkpoint, as the reference does it and without it.

A checkpoint of Qwen2 is not read as its tokenizer.json says. The reference takes vocabulary, merges and special tokens
from there, and builds the rest itself: it normalises to NFC and splits by its own pattern, whatever the file has. So
does this. Of Qwen3, `tokenizer_class` decides.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen_flax import chat_template

_BUILT_BY_THE_REFERENCE = "Qwen2Tokenizer"
_READ_AS_WRITTEN = ("PreTrainedTokenizer", "TokenizersBackend")

_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""What a word is. A digit is one by itself."""

_END_OF_TEXT = "<|endoftext|>"


@dataclass(frozen=True)
class Tokenizer:
    """What a checkpoint makes of text and of chats.

    backend: a `tokenizers.Tokenizer`; templates: chat templates by name, `default` where there is but one
    named: special tokens by what they are, as templates know them (`eos_token`)
    """

    backend: Any
    templates: Mapping[str, str]
    named: Mapping[str, str]

    @classmethod
    def read(cls, folder: str | Path) -> "Tokenizer":
        """The tokenizer of the checkpoint in `folder`. Raises ValueError for files that are not there or not known."""
        folder = Path(folder)
        written = _read_json(folder / "tokenizer.json")
        settings = _settings(folder)
        kind = _kind(folder, settings)
        named = _named(settings, _default_names(kind, written))
        try:
            backend = _backend(kind, written, settings, named)
        except Exception as error:  # tokenizers raises bare Exceptions for what it cannot read
            raise ValueError(f"{folder / 'tokenizer.json'} is no tokenizer that is known: {error}") from error
        return cls(backend, chat_template.read(folder, settings), named)

    def encode(self, text: str) -> list[int]:
        """Token ids, special tokens in the text recognised, with what the tokenizer puts around a text."""
        return list(self.backend.encode(text).ids)

    def decode(self, token_ids: Iterable[int]) -> str:
        """The text of token ids, special tokens among it."""
        return str(self.backend.decode([int(token) for token in token_ids], skip_special_tokens=False))

    def render_chat(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> str:
        """The text of a chat. options: `tools`, `add_generation_prompt`, variables of the template.

        Raises ValueError where there is no template, and where it refuses the chat.
        """
        template = chat_template.choose(self.templates, options.get("tools"))
        return chat_template.render(template, messages, {**self.named, **options})


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"no file {path}: a checkpoint's tokenizer is read from it") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__} where an object was expected")
    return content


def _settings(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json, and the older file beside it where the newer list of tokens is not there."""
    settings = _read_json_if_there(folder / "tokenizer_config.json")
    if "added_tokens_decoder" in settings:
        return settings
    return {**settings, **_read_json_if_there(folder / "special_tokens_map.json")}


def _read_json_if_there(path: Path) -> dict[str, Any]:
    return _read_json(path) if path.is_file() else {}


def _kind(folder: Path, settings: Mapping[str, Any]) -> str:
    """How the reference makes the tokenizer: by the class that it has for the model, or as the file says."""
    config = _read_json_if_there(folder / "config.json")
    if config.get("model_type") == "qwen2":
        return _BUILT_BY_THE_REFERENCE
    name = settings.get("tokenizer_class") or config.get("tokenizer_class") or _BUILT_BY_THE_REFERENCE
    kind = str(name).removesuffix("Fast")
    if kind != _BUILT_BY_THE_REFERENCE and kind not in _READ_AS_WRITTEN:
        raise ValueError(
            f"tokenizer_class is {name!r}, but only {_BUILT_BY_THE_REFERENCE!r} and 'PreTrainedTokenizerFast' "
            "are implemented"
        )
    return kind


def _default_names(kind: str, written: Mapping[str, Any]) -> dict[str, str]:
    """Special tokens that tokenizer_config.json need not mention; null is a mention."""
    if kind == _BUILT_BY_THE_REFERENCE:
        return dict.fromkeys(("unk_token", "eos_token", "pad_token"), _END_OF_TEXT)
    padding = written.get("padding")
    return {"pad_token": padding["pad_token"]} if padding else {}


def _named(settings: Mapping[str, Any], defaults: Mapping[str, str]) -> dict[str, str]:
    """Special tokens by name. A setting such as `add_bos_token` has the like of a name, and no token."""
    tokens = {name: _content(value) for name, value in settings.items() if name.endswith("_token")}
    extra = settings.get("extra_special_tokens")
    if isinstance(extra, Mapping):
        tokens |= {name: _content(value) for name, value in extra.items()}
    return {name: token for name, token in (dict(defaults) | tokens).items() if token is not None}


def _content(token: Any) -> str | None:
    content = token.get("content") if isinstance(token, Mapping) else token
    return content if isinstance(content, str) else None


def _backend(
    kind: str, written: Mapping[str, Any], settings: Mapping[str, Any], named: Mapping[str, str]
) -> Any:
    import tokenizers

    content = written if kind in _READ_AS_WRITTEN else _built(written, settings)
    backend = tokenizers.Tokenizer.from_str(json.dumps(content))
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = bool(settings.get("split_special_tokens", False))
    for flags in _added_tokens(written, settings):
        backend.add_tokens([tokenizers.AddedToken(**flags)])
    special = [*named.values(), *_unnamed(settings)]
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    if kind in _READ_AS_WRITTEN:
        special = [token for token in special if token not in known]
    backend.add_tokens([tokenizers.AddedToken(token, special=True) for token in special])
    return backend


def _built(written: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The tokenizer.json that says what the reference makes of this one, before tokens are added."""
    split = {"type": "Split", "pattern": {"Regex": _PATTERN}, "behavior": "Isolated", "invert": False}
    byte_level = {"type": "ByteLevel", "trim_offsets": True, "use_regex": False}
    prefix = {"add_prefix_space": bool(settings.get("add_prefix_space"))}
    model = written["model"]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level | prefix]},
        "post_processor": written.get("post_processor"),
        "decoder": byte_level | {"add_prefix_space": True},
        "model": {"type": "BPE", "vocab": model["vocab"], "merges": model["merges"]},
    }


def _added_tokens(written: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The tokens that are no words, least id first, with their flags."""
    listed = settings.get("added_tokens_decoder")
    if listed is None:
        listed = {token["id"]: token for token in written.get("added_tokens", ())}
    for _, token in sorted(listed.items(), key=lambda entry: int(entry[0])):
        yield {name: value for name, value in token.items() if name not in ("id", "__type")}


def _unnamed(settings: Mapping[str, Any]) -> list[str]:
    extra = settings.get("extra_special_tokens") or settings.get("additional_special_tokens") or []
    return [] if isinstance(extra, Mapping) else [token for each in extra if (token := _content(each))]
