"""TOML files read strictly into frozen structs: an unknown field is an error, not something passed over."""

import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec.inspect import EnumType, NoneType, UnionType, type_info

from harness.errors import GoldensError, nearest

T = TypeVar("T")

_PLACE = re.compile(r"(?P<reason>.*?)(?: - at `\$\.?(?P<place>[^`]*)`)?$", re.DOTALL)
_UNKNOWN = re.compile(r"unknown field `(?P<field>[^`]*)`")


def read(path: Path, kind: type[T]) -> T:
    """The file at `path` as a `kind`, a msgspec.Struct. Raises GoldensError naming the file and the field."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8, where TOML was expected"
        raise GoldensError(f"cannot read {path}: {reason}") from error
    except tomllib.TOMLDecodeError as error:
        raise GoldensError(f"{path} is not TOML: {error}") from error
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        raise GoldensError(f"{path}: {_told(str(error), content, kind)}") from error


def _told(message: str, content: dict[str, Any], kind: type) -> str:
    """msgspec's message with the place in front, and with the nearest fields to an unknown one."""
    match = _PLACE.fullmatch(message)
    assert match is not None, message
    reason, place = match["reason"], match["place"] or ""
    if unknown := _UNKNOWN.search(reason):
        reason += nearest(unknown["field"], _fields_at(kind, place))
    if reason.startswith("Invalid enum value"):
        reason += f", expected one of {', '.join(map(str, _choices_at(kind, place)))}"
    reason = reason[:1].lower() + reason[1:]
    return f"{_entry(place, content)}: {reason}" if place else reason


def _entry(place: str, content: dict[str, Any]) -> str:
    """`case[3]` with the entry's name, when it has one: `case[3] (english)`."""
    entry: Any = content
    table = re.match(r"(\w+)\[(\d+)\]", place)
    if table:
        entry = entry[table[1]][int(table[2])]
        name = entry.get("name") if isinstance(entry, dict) else None
        if isinstance(name, str) and name:
            return f"{place} ({name})"
    return place


def _fields_at(kind: type, place: str) -> list[str]:
    """The fields of the struct that `place` stands in."""
    return [field.encode_name for field in _type_at(kind, place).fields]


def _choices_at(kind: type, place: str) -> list[Any]:
    """What may stand at `place`, which is one of several words."""
    found = _type_at(kind, place)
    return [each.value for each in found.cls] if isinstance(found, EnumType) else list(found.values)


def _type_at(kind: type, place: str) -> Any:
    """What msgspec expects at `place`, as `case[3].chat[0].role` in a struct."""
    found: Any = type_info(kind)
    for field in re.findall(r"(\w+)|\[[^]]*\]", place):
        found = found.item_type if not field else _field(found, field).type
        if isinstance(found, UnionType):
            found = next(each for each in found.types if not isinstance(each, NoneType))
    return found


def _field(struct: Any, name: str) -> Any:
    return next(field for field in struct.fields if field.encode_name == name)
