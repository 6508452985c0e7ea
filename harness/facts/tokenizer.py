"""`tokenizer`: the token ids that a port makes of a text, bit by bit.

expected: `ids`; `bos`, `eos`, `pad`, `unk`, the ids of these tokens or null; `mistaken`, what ids come of mistakes that
ports make, with the `names` of those that give them. Only the reference's tokenizer can tell these, so it did when it
was recorded.
"""

import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness.facts.family import PASSED, Context, Family, Found, wrong
from harness.model import Fact
from harness.replay.port import NotOffered, Tokenizing

Ids = list[int]

_SAYS = {
    "special_tokens_as_text": "special tokens in the text are read as text",
    "added_tokens_as_text": "added tokens in the text, special or not, are read as text",
    "spaces_at_special_tokens_stripped": "white space beside special tokens is dropped",
    "nothing_put_around": "what the tokenizer puts around a text is left out",
    "not_normalised": "the text is not normalised as the tokenizer does",
    "normalised_nfc": "the text is normalised to NFC",
    "normalised_nfd": "the text is normalised to NFD",
    "normalised_nfkc": "the text is normalised to NFKC",
    "normalised_nfkd": "the text is normalised to NFKD",
    "lower_cased": "the text is put into lower case",
    "accents_dropped": "accents are dropped",
    "text_stripped": "white space at the ends of the text is dropped",
    "end_stripped": "white space at the end of the text is dropped",
    "space_in_front": "a space is put in front of the text",
    "newlines_unified": "CR LF and CR are read as LF",
    "white_space_collapsed": "runs of white space are read as one space",
    "controls_dropped": "control characters are dropped",
    "only_first_line": "only the first line of the text is read",
    "cut_at_nul": "the text is cut at a NUL",
    "format_characters_dropped": "invisible format characters, such as joiners, are dropped",
    "non_ascii_dropped": "characters beyond ASCII are dropped",
    "non_ascii_replaced": "characters beyond ASCII are read as question marks",
    "read_as_latin_1": "the bytes of UTF-8 are read as characters of Latin-1",
    "digits_grouped": "digits are taken together by up to three",
    "split_as_gpt2": "the text is split into words by the pattern of GPT-2",
    "not_split": "the text is not split into words before merging",
    "merges_ignored": "merges are ignored: every byte or character is a token",
}


def _ask(port: Any, fact: Fact) -> Any:
    if not isinstance(port, Tokenizing):
        raise NotOffered("the port does not offer `tokenize`")
    return port.tokenize(fact.given["text"])


def _judge(fact: Fact, answer: Any, context: Context) -> Found:
    expected = fact.expected["ids"]
    try:
        ids = _ids(answer)
    except TypeError as error:
        return wrong(str(error))
    if ids == expected:
        return PASSED
    mistakes = _mistakes(fact.expected, ids)
    return wrong(_difference(expected, ids), *mistakes, text=", or ".join(mistakes.values()))


def _ids(answer: Any) -> Ids:
    """The answer as whole numbers. Raises TypeError with a sentence for what is no list of them."""
    if isinstance(answer, str | bytes | Mapping) or not isinstance(answer, Iterable):
        raise TypeError(f"gave a {type(answer).__name__}, where a list of token ids was expected")
    try:
        entries = list(answer)
    except TypeError:  # an array without an axis
        raise TypeError(
            f"gave a {type(answer).__name__} that cannot be read as a list of token ids"
        ) from None
    for n, entry in enumerate(entries):
        if not _is_id(entry):
            raise TypeError(
                f"gave a {type(answer).__name__} whose entry [{n}] is a {type(entry).__name__}, "
                "where a token id, a whole number, was expected"
            )
    return [operator.index(entry) for entry in entries]


def _is_id(entry: Any) -> bool:
    if isinstance(entry, bool):
        return False
    try:
        operator.index(entry)
    except TypeError:
        return False
    return True


def _difference(expected: Ids, ids: Ids) -> str:
    """Where they part, and how many there are."""
    place = next((n for n, pair in enumerate(zip(ids, expected, strict=False)) if pair[0] != pair[1]), None)
    count = f"{len(ids)} ids, where the reference has {len(expected)}"
    if place is None and len(ids) < len(expected):
        return f"{count}: it ends before id [{len(ids)}], {expected[len(ids)]}"
    if place is None:
        return f"{count}: it goes on with id [{len(expected)}], {ids[len(expected)]}"
    parted = f"id [{place}] is {ids[place]}, where the reference has {expected[place]}"
    return f"{parted}, of {len(ids)}" if len(ids) == len(expected) else f"{parted}; {count}"


def _mistakes(recorded: Mapping[str, Any], ids: Ids) -> dict[str, str]:
    """The mistakes that explain these ids, by name and in words."""
    expected = recorded["ids"]
    for mistaken in recorded["mistaken"]:
        if mistaken["ids"] == ids:
            named = {name: _SAYS.get(name, name) for name in mistaken["names"]}
            return named | (_too_few(expected, ids) if len(ids) < len(expected) else {})
    if len(ids) > len(expected):
        return _too_many(recorded, expected, ids)
    if len(ids) < len(expected):
        return _too_few(expected, ids)
    shifts = {ours - theirs for ours, theirs in zip(ids, expected, strict=True)}
    if len(shifts) == 1 and len(ids) > 1:
        return {"ids_shifted": f"every id is off by {shifts.pop():+d}"}
    return _unknown(recorded, expected, ids)


def _too_many(recorded: Mapping[str, Any], expected: Ids, ids: Ids) -> dict[str, str]:
    added = len(ids) - len(expected)
    if added == 2 and ids[1:-1] == expected and ids[0] == recorded["bos"]:
        return {"bos_and_eos_added": f"a token is put in front, {ids[0]}, and one behind, {ids[-1]}"}
    if not expected and added == 1:
        return _of_nothing(recorded, ids[0])
    if ids[added:] == expected:
        return _filled(recorded, ids[:added], "bos", "bos_prepended", "in front")
    if ids[:-added] == expected:
        return _filled(recorded, ids[-added:], "eos", "eos_appended", "behind")
    return _unknown(recorded, expected, ids)


def _filled(recorded: Mapping[str, Any], filling: Ids, token: str, name: str, where: str) -> dict[str, str]:
    """One id too many begins or ends a text; several of the same fill it up, and so does one of padding's own."""
    first = filling[0]
    if any(each != first for each in filling):
        return {}
    if len(filling) > 1 or (first == recorded["pad"] and first not in (recorded["bos"], recorded["eos"])):
        return {"padded": f"the text is filled up with {len(filling)} x {first} {where}"}
    called = f"the {token.upper()} token" if first == recorded[token] else "a token"
    return {name: f"{called}, {first}, is put {where}"}


def _of_nothing(recorded: Mapping[str, Any], token: int) -> dict[str, str]:
    """Around an empty text there is no in front and no behind."""
    names = {"bos_prepended": "bos", "eos_appended": "eos", "padded": "pad"}
    known = [name for name, what in names.items() if recorded[what] == token]
    return dict.fromkeys(known or ("bos_prepended", "eos_appended"), f"{token} is made of an empty text")


def _too_few(expected: Ids, ids: Ids) -> dict[str, str]:
    if not ids:
        return {"nothing_given": "no ids are given at all"}
    if expected[: len(ids)] == ids:
        return {"truncated": f"the text is cut after {len(ids)} ids"}
    if expected[-len(ids) :] == ids:
        return {"truncated_in_front": f"only the last {len(ids)} ids are kept"}
    return {}


def _unknown(recorded: Mapping[str, Any], expected: Sequence[int], ids: Ids) -> dict[str, str]:
    unknown = recorded["unk"]
    if unknown is None or unknown in expected or unknown not in ids:
        return {}
    return {"unknown_tokens": f"what is in the vocabulary is read as unknown, {unknown}"}


TOKENIZER = Family("tokenizer", _ask, _judge)
