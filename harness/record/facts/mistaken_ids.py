"""The token ids that mistaken tokenizers give: the reference's own, with a mistake in it.

A port is replayed where there is no tokenizer, so these are recorded beside the right ids.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

Ids = list[int]
Encode = Callable[[str], Ids]
Change = Callable[[str], str]

_WIDER = {"added_tokens_as_text": "special_tokens_as_text"}


def mistaken_ids(
    tokenizer: Any, texts: Mapping[str, str], special: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    """Of each text, by name, the ids that differ from the right ones, with the `names` of the mistakes giving them."""
    encode = partial(_encode, tokenizer)
    mistaken = _of_text(encode, special) | _of_tokenizer(tokenizer)
    return {name: _of_one(text, encode(text), mistaken) for name, text in texts.items()}


def _of_one(text: str, right: Ids, mistaken: Mapping[str, Encode]) -> list[dict[str, Any]]:
    found: dict[tuple[int, ...], list[str]] = {}
    for name, encode in mistaken.items():
        ids = encode(text)
        if ids != right:
            found.setdefault(tuple(ids), []).append(name)
    return [{"names": _narrowed(names), "ids": list(ids)} for ids, names in found.items()]


def _narrowed(names: list[str]) -> list[str]:
    """Without a mistake that is another one and more, where the more is not there."""
    return [name for name in names if _WIDER.get(name) not in names]


def _encode(tokenizer: Any, text: str, **settings: Any) -> Ids:
    return list(tokenizer(text, **settings)["input_ids"])


def _of_text(encode: Encode, special: Sequence[str]) -> dict[str, Encode]:
    """Mistakes in what is done to the text beforehand."""
    changes: dict[str, Change] = {
        "normalised_nfc": lambda text: unicodedata.normalize("NFC", text),
        "normalised_nfd": lambda text: unicodedata.normalize("NFD", text),
        "normalised_nfkc": lambda text: unicodedata.normalize("NFKC", text),
        "normalised_nfkd": lambda text: unicodedata.normalize("NFKD", text),
        "lower_cased": str.lower,
        "accents_dropped": _without_accents,
        "text_stripped": str.strip,
        "end_stripped": str.rstrip,
        "space_in_front": lambda text: f" {text}",
        "newlines_unified": lambda text: text.replace("\r\n", "\n").replace("\r", "\n"),
        "white_space_collapsed": lambda text: re.sub(r"\s+", " ", text),
        "controls_dropped": lambda text: _without(text, "Cc", keep="\t\n\r"),
        "only_first_line": lambda text: text.partition("\n")[0],
        "cut_at_nul": lambda text: text.partition("\0")[0],
        "format_characters_dropped": lambda text: _without(text, "Cf"),
        "non_ascii_dropped": lambda text: text.encode("ascii", "ignore").decode(),
        "non_ascii_replaced": lambda text: text.encode("ascii", "replace").decode(),
        "read_as_latin_1": lambda text: text.encode().decode("latin-1"),
    }
    if special:
        beside = re.compile(rf"\s*({'|'.join(map(re.escape, special))})\s*")
        changes["spaces_at_special_tokens_stripped"] = lambda text: beside.sub(r"\1", text)
    return {name: partial(_encode_changed, encode, change) for name, change in changes.items()}


def _encode_changed(encode: Encode, change: Change, text: str) -> Ids:
    return encode(change(text))


def _without_accents(text: str) -> str:
    return _without(unicodedata.normalize("NFD", text), "Mn")


def _without(text: str, category: str, keep: str = "") -> str:
    return "".join(each for each in text if each in keep or unicodedata.category(each) != category)


def _of_tokenizer(tokenizer: Any) -> dict[str, Encode]:
    """Mistakes in the tokenizer itself, where it is one of the library `tokenizers`."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return {}
    written = json.loads(backend.to_str())
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    changes: dict[str, dict[str, Any]] = {
        "added_tokens_as_text": {"added_tokens": []},
        "not_normalised": {"normalizer": None},
        "digits_grouped": {"pre_tokenizer": _with_digits_grouped(written["pre_tokenizer"])},
    }
    if "ByteLevel" in json.dumps(written["pre_tokenizer"]):
        changes["split_as_gpt2"] = {"pre_tokenizer": byte_level | {"use_regex": True}}
        changes["not_split"] = {"pre_tokenizer": byte_level | {"use_regex": False}}
    if written["model"]["type"] == "BPE":
        changes["merges_ignored"] = {"model": written["model"] | {"merges": [], "ignore_merges": False}}
    encoders = {
        name: _encoder(written | change)
        for name, change in changes.items()
        if any(written[part] != value for part, value in change.items())
    }
    return {
        "special_tokens_as_text": partial(_encode, tokenizer, split_special_tokens=True),
        "nothing_put_around": partial(_encode, tokenizer, add_special_tokens=False),
        **encoders,
    }


def _with_digits_grouped(part: Any) -> Any:
    """A pre-tokenizer that takes a digit by itself, taking up to three."""
    return json.loads(json.dumps(part).replace(r"|\\p{N}|", r"|\\p{N}{1,3}|"))


def _encoder(written: dict[str, Any]) -> Encode:
    from tokenizers import Tokenizer

    backend = Tokenizer.from_str(json.dumps(written | {"truncation": None, "padding": None}))
    return lambda text: list(backend.encode(text).ids)
