"""Texts that are read otherwise than by the checkpoint's tokenizer: what a mistake does to a text, or to ids."""

import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any, Literal

from harness.audit.fault import Area, DoesNotApply, Fault, Method

Ids = list[int]
Read = Callable[[str], Sequence[int]]

_TEXTS = ("tokenizer",)

_LENGTH = 16
_MARKED = re.compile(r"\s*(<\|\w+\|>)\s*")
"""A special token, as the checkpoints of many families write them, and the white space beside it."""


def _text(change: Callable[[str], str]) -> Callable[[Read], Read]:
    """The text is changed before it is read."""
    return lambda read: lambda text: read(change(text))


def _ids(change: Callable[[Ids], Any]) -> Callable[[Read], Callable[[str], Any]]:
    """The ids are changed after it was read."""
    return lambda read: lambda text: change(list(read(text)))


def _in_normal_form(form: Literal["NFC", "NFD", "NFKC"]) -> Callable[[Read], Read]:
    """Not where the tokenizer does the same, or as much."""

    def change(read: Read) -> Read:
        probe = "e\u0301 \u00e9 \ufb01 \u00b2"
        try:
            same = list(read(unicodedata.normalize(form, probe))) == list(read(probe))
        except Exception:  # a port without a tokenizer raises what it likes
            same = True
        if same:
            raise DoesNotApply(f"the tokenizer reads a text as it reads its {form}")
        return lambda text: read(unicodedata.normalize(form, text))

    return change


def _special_tokens_as_text(read: Read) -> Read:
    """Read in pieces that end in the middle of every special token, where words end, too."""
    return lambda text: [token for piece in re.split(r"(?<=<\|)", text) if piece for token in read(piece)]


def _words_apart(read: Read) -> Read:
    return lambda text: [token for word in text.split(" ") if word for token in read(word)]


def _first_text_for_all(read: Read) -> Read:
    known: dict[str, Sequence[int]] = {}
    return lambda text: known.setdefault("text", read(text))


def _without_accents(text: str) -> str:
    parts = unicodedata.normalize("NFD", text)
    return "".join(part for part in parts if not unicodedata.combining(part))


def _without_repeats(ids: Ids) -> Ids:
    return [token for n, token in enumerate(ids) if n == 0 or token != ids[n - 1]]


def _reading(name: str, says: str, change: Callable[[Read], Callable[[str], Any]], *named_by: str) -> Fault:
    return Fault(name, Area.TOKENIZER, says, Method(_TEXTS, "tokenize", change), frozenset(named_by))


FAULTS: tuple[Fault, ...] = (
    _reading("bos-prepended", "a token that begins texts is put in", _ids(lambda ids: [0, *ids]), "bos_prepended"),
    _reading("eos-appended", "a token that ends texts is put behind", _ids(lambda ids: [*ids, 0]), "eos_appended"),
    _reading(
        "special-tokens-as-text",
        "special tokens in the text are read letter by letter",
        _special_tokens_as_text,
        "special_tokens_as_text",
    ),
    _reading(
        "space-beside-special-tokens-dropped",
        "white space beside special tokens is dropped",
        _text(lambda text: _MARKED.sub(r"\1", text)),
        "spaces_at_special_tokens_stripped",
    ),
    _reading("text-stripped", "texts are stripped of white space", _text(str.strip), "text_stripped"),
    _reading("text-end-stripped", "texts are stripped of white space at the end", _text(str.rstrip), "end_stripped"),
    _reading("text-lower-cased", "texts are put into lower case", _text(str.lower), "lower_cased"),
    _reading("text-in-nfc", "texts are normalised to NFC", _in_normal_form("NFC"), "normalised_nfc"),
    _reading("text-in-nfd", "texts are normalised to NFD", _in_normal_form("NFD"), "normalised_nfd"),
    # Of a tokenizer that composes again, NFKD is NFKC.
    _reading(
        "text-in-nfkc", "texts are normalised to NFKC", _in_normal_form("NFKC"), "normalised_nfkc", "normalised_nfkd"
    ),
    _reading("accents-dropped", "accents are dropped", _text(_without_accents), "accents_dropped"),
    _reading("space-put-in-front", "texts begin with a space", _text(lambda text: f" {text}"), "space_in_front"),
    _reading(
        "white-space-collapsed",
        "runs of white space are one space",
        _text(lambda text: re.sub(r"\s+", " ", text)),
        "white_space_collapsed",
    ),
    _reading(
        "line-ends-unified",
        "lines that end in CR LF or CR end in LF",
        _text(lambda text: re.sub(r"\r\n?", "\n", text)),
        "newlines_unified",
    ),
    _reading("only-first-line", "further lines are lost", _text(lambda text: text.split("\n")[0]), "only_first_line"),
    _reading("cut-at-nul", "texts end at a NUL", _text(lambda text: text.split("\0")[0]), "cut_at_nul"),
    _reading(
        "non-ascii-replaced",
        "characters beyond ASCII are question marks",
        _text(lambda text: re.sub(r"[^\x00-\x7f]", "?", text)),
        "non_ascii_replaced",
    ),
    _reading(
        "non-ascii-dropped",
        "characters beyond ASCII are dropped",
        _text(lambda text: re.sub(r"[^\x00-\x7f]", "", text)),
        "non_ascii_dropped",
    ),
    _reading(
        "utf-8-as-latin-1",
        "every byte of UTF-8 is a character",
        _text(lambda text: "".join(map(chr, text.encode()))),
        "read_as_latin_1",
    ),
    _reading(
        "beyond-the-first-plane-replaced",
        "emoji and rare characters are two unknown ones, as halves of UTF-16",
        _text(lambda text: re.sub("[\U00010000-\U0010ffff]", "\ufffd\ufffd", text)),
    ),
    _reading(
        "joiners-dropped",
        "zero-width characters are dropped",
        _text(lambda text: re.sub("[\u200b-\u200f\u2060\ufeff]", "", text)),
        "format_characters_dropped",
    ),
    _reading("words-read-apart", "every word is read by itself, and spaces are lost", _words_apart),
    _reading("texts-truncated", "texts are cut after 16 tokens", _ids(lambda ids: ids[:_LENGTH]), "truncated"),
    _reading(
        "texts-truncated-in-front",
        "only the last 16 tokens of texts are kept",
        _ids(lambda ids: ids[-_LENGTH:]),
        "truncated_in_front",
    ),
    _reading("last-token-dropped", "the last token is lost", _ids(lambda ids: ids[:-1]), "truncated"),
    _reading(
        "padded-behind", "short texts are filled up behind", _ids(lambda ids: ids + [0] * (64 - len(ids))), "padded"
    ),
    _reading(
        "padded-in-front",
        "short texts are filled up in front",
        _ids(lambda ids: [0] * (64 - len(ids)) + ids),
        "padded",
    ),
    _reading("ids-one-up", "every id is one too large", _ids(lambda ids: [token + 1 for token in ids]), "ids_shifted"),
    _reading("repeated-tokens-dropped", "a token that repeats the one before is lost", _ids(_without_repeats)),
    _reading("ids-in-a-batch", "ids are given as a batch of one text", _ids(lambda ids: [ids])),
    _reading("first-text-for-all", "every text has the ids of the first", _first_text_for_all),
)  # fmt: skip
