"""`config`: what the port understood of config.json, setting by setting, against what the reference uses.

docs/generation.md lists the settings. A port need not tell all of them: what it does not tell is unmeasured.
"""

import math
from collections.abc import Iterator, Mapping
from numbers import Integral, Real
from typing import Any

from harness.facts.family import PASSED, Context, Family, Found, wrong
from harness.facts.misread import Misread, misread
from harness.model import Fact
from harness.replay.port import Configured, NotOffered

_ROUNDING = 2.0**-24
"""Numbers that float32 does not tell apart are the same: no port computes a norm or an angle in more."""
_SAMPLING = ("generation.temperature", "generation.top_k", "generation.top_p", "generation.min_p")
_NEUTRAL = {
    "generation.repetition_penalty": 1,
    "generation.temperature": 1,
    "generation.top_k": 0,
    "generation.top_p": 1,
    "generation.min_p": 0,
}
_SAME_ACTIVATION = {"swish": "silu"}
_ABSENT = object()


def _ask(port: Any, fact: Fact) -> Any:
    """All that the port tells, since one setting may follow from another."""
    if not isinstance(port, Configured):
        raise NotOffered("the port does not offer `config`")
    settings = port.config()
    if isinstance(settings, Mapping) and _name(fact) not in settings:
        raise NotOffered(f"the port's `config` does not tell {_name(fact)}")
    return settings


def _name(fact: Fact) -> str:
    return fact.component.removeprefix("config.")


def _judge(fact: Fact, answer: Any, context: Context) -> Found:
    if not isinstance(answer, Mapping):
        return wrong(f"the port told a {type(answer).__name__}, where a mapping of settings was expected")
    name = _name(fact)
    told = plain(answer.get(name, _ABSENT))
    difference = _difference(name, told, fact.expected, plain(answer.get("generation.do_sample")))
    if difference is None:
        return PASSED
    found = misread(Misread(name, told, fact.expected, _settings(answer), *_recorded(context)))
    return wrong(difference) if found is None else wrong(difference, *found.names, text=found.text)


def _settings(answer: Mapping[str, Any]) -> dict[str, Any]:
    return {str(name): plain(value) for name, value in answer.items()}


def _recorded(context: Context) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """What the reference uses, setting by setting, and config.json as it was recorded; nothing without a session."""
    if context.session is None:
        return {}, {}
    contents = context.session.file.contents
    return {_name(fact): fact.expected for fact in contents.facts if fact.family == "config"}, contents.config


def plain(value: Any) -> Any:
    """As JSON has it: numbers of numpy as numbers, tuples as lists."""
    if isinstance(value, Mapping):
        return {str(key): plain(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [plain(member) for member in value]
    if isinstance(value, bool) or type(value).__name__ == "bool":  # numpy has a type of its own
        return bool(value)
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else value


def _difference(name: str, told: Any, expected: Any, sampled: Any) -> str | None:
    """What is wrong with what a port tells, in words; None if it is right.

    sampled: whether the port says that it draws; if not, what it says of drawing does nothing
    """
    if name in _SAMPLING and sampled is False and expected is None:
        return None
    if name in _NEUTRAL:
        told, expected = (None if is_neutral(name, value) else value for value in (told, expected))
    if name == "hidden_act":
        told = _SAME_ACTIVATION.get(told, told) if isinstance(told, str) else told
    if name == "eos_token_ids" and isinstance(told, list):
        return _of_ids(told, expected)
    if name == "dtype":
        told = str(told).rpartition(".")[2] if told is not None else None
    return next(_differences(told, expected), None)


def is_neutral(name: str, value: Any) -> bool:
    return value is None or (is_number(value) and value == _NEUTRAL[name])


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_same(told: Any, expected: Any) -> bool:
    return next(_differences(told, expected), None) is None


def _differences(told: Any, expected: Any) -> Iterator[str]:
    if is_number(expected) and is_number(told):
        if not math.isclose(told, expected, rel_tol=_ROUNDING):
            yield _is_not(told, expected)
    elif isinstance(expected, list) and isinstance(told, list):
        yield from _in_lists(told, expected)
    elif isinstance(expected, Mapping) and isinstance(told, Mapping):
        yield from _in_objects(told, expected)
    elif type(told) is not type(expected) or told != expected:
        yield _is_not(told, expected)


def _is_not(told: Any, expected: Any) -> str:
    return f"is {told!r}, where the reference has {expected!r}"


def _in_lists(told: list[Any], expected: list[Any]) -> Iterator[str]:
    if len(told) != len(expected):
        yield f"has {len(told)} entries, where the reference has {len(expected)}: {told!r}, not {expected!r}"
        return
    wrong_ones = [n for n, pair in enumerate(zip(told, expected, strict=True)) if not is_same(*pair)]
    if wrong_ones:
        first = wrong_ones[0]
        several = f"{len(wrong_ones)} entries differ, the first: " if len(wrong_ones) > 1 else ""
        yield f"{several}entry {first} {_is_not(told[first], expected[first])}"


def _in_objects(told: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[str]:
    """A port may tell more than the reference needs, and leave out what is null."""
    for key, value in expected.items():
        for difference in _differences(told.get(key), value):
            yield f"{key} {difference}"


def _of_ids(told: list[Any], expected: list[int]) -> str | None:
    """Ids that end a text. Their order means nothing."""
    if sorted(told, key=repr) == sorted(expected, key=repr):
        return None
    lacking, surplus = [i for i in expected if i not in told], [i for i in told if i not in expected]
    found = [f"lacks {', '.join(map(repr, lacking))}"] if lacking else []
    found += [f"has {', '.join(map(repr, surplus))} too much"] if surplus else []
    return f"{' and '.join(found) or 'has an id twice'}: is {told!r}, where the reference has {expected!r}"


CONFIG = Family("config", _ask, _judge)
