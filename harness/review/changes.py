"""What differs between two golden files beside numbers: where they came from, and what was recorded of what."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from harness.checkpoints import meaningful
from harness.errors import GoldensError, nearest
from harness.model import Fact, Golden
from harness.store.layout import UNTIMED
from harness.store.reader import GoldenFile

ABSENT = "absent"
_UNCOUNTED = frozenset({"version", "provenance"})
"""What may change while a golden file stays what it is, if its numbers agree: who recorded it, and on what."""


class Change(msgspec.Struct, frozen=True):
    """Something that is in one of two golden files only, or is not the same in both.

    what: `version`, `checkpoint file`, `provenance`, `setting`, `parameter`, `component`, `case`, `dtype`, `golden`
        or `fact`; name: of the one
    change: `gone`, `new` or `changed`
    before, after: of one that changed, the parts of it that did
    """

    what: str
    name: str
    change: str
    before: Any = None
    after: Any = None

    @property
    def counts(self) -> bool:
        """Whether it makes the files differ. config.json is compared setting by setting, so its bytes do not."""
        return self.what not in _UNCOUNTED and (self.what, self.name) != ("checkpoint file", "config.json")


@dataclass(frozen=True)
class Scope:
    """What of two golden files is compared. What is empty leaves nothing out.

    include, exclude: globs of component names, facts' too
    dtypes: pairs of a dtype of the one file and a dtype of the other
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    cases: tuple[str, ...] = ()
    dtypes: tuple[tuple[str, str], ...] = ()

    def takes(self, component: str, case: str | None = None) -> bool:
        named = not self.include or any(fnmatchcase(component, glob) for glob in self.include)
        return (
            named
            and not any(fnmatchcase(component, glob) for glob in self.exclude)
            and (case is None or not self.cases or case in self.cases)
        )


EVERYTHING = Scope()
Key = tuple[str, str, str]
"""component, case, and the dtype, or both dtypes as `float32:bfloat16`."""


def refuse_unknown(old: GoldenFile, new: GoldenFile, scope: Scope) -> None:
    """Raises GoldensError for what neither file has: compared with nothing, it would agree."""
    names = dict.fromkeys([*old.order, *new.order])
    for glob in (*scope.include, *scope.exclude):
        if not any(fnmatchcase(name, glob) for name in names):
            raise GoldensError(
                f"no component of {old.path} and {new.path} matches {glob!r}{nearest(glob, names)}"
            )
    cases = dict.fromkeys(
        entry for file in (old, new) for entry in (*_names(file.contents.cases), *_fact_cases(file))
    )
    for case in scope.cases:
        if case not in cases:
            raise GoldensError(
                f"{old.path} and {new.path} have no case {case!r}; they have {', '.join(cases)}"
            )
    for pair in scope.dtypes:
        for file, dtype in zip((old, new), pair, strict=True):
            if dtype not in file.dtypes:
                raise GoldensError(
                    f"dtype {dtype!r} was not recorded in {file.path}; recorded: {', '.join(file.dtypes)}"
                )


def goldens_in(file: GoldenFile, scope: Scope, side: int) -> dict[Key, Golden]:
    """What is compared of a file. side: 0 for the first of each pair of dtypes, 1 for the second.

    Of a text that the reference wrote in a dtype, nothing is compared with another dtype: it may be another text.
    """
    pairs = scope.dtypes or tuple((dtype, dtype) for dtype in file.dtypes)
    return {
        (golden.component, golden.case, pair[0] if pair[0] == pair[1] else ":".join(pair)): golden
        for pair in pairs
        for golden in file.contents.goldens
        if golden.dtype == pair[side]
        and scope.takes(golden.component, golden.case)
        and (pair[0] == pair[1] or not file.case(golden.case).parts)
    }


def changes(old: GoldenFile, new: GoldenFile, scope: Scope = EVERYTHING) -> Iterator[Change]:
    """Everything that differs, from what was recorded to what came of it."""
    for what, of in (*_PROVENANCE, ("setting", lambda file: meaningful(file.contents.config))):
        yield from _changed(what, of(old), of(new))
    yield from _changed("parameter", *(_by_name(file.contents.parameters) for file in (old, new)))
    goldens = [goldens_in(file, scope, side) for side, file in enumerate((old, new))]
    parts: list[frozenset[str]] = []
    for what, place, of_file in (("component", 0, _components), ("case", 1, _cases), ("dtype", 2, _dtypes)):
        used = [list(dict.fromkeys(key[place] for key in keys)) for keys in goldens]
        parts.append(frozenset(used[0]) & frozenset(used[1]))
        before, after = (of_file(file, names) for file, names in zip((old, new), used, strict=True))
        yield from _changed(what, before, after)
    yield from _changed("golden", *({key: None for key in keys if _in(key, parts)} for keys in goldens))
    yield from _changed("fact", *(facts_in(file, scope, side) for side, file in enumerate((old, new))))


def _in(key: Key, parts: list[frozenset[str]]) -> bool:
    """Whether component, case and dtype are in both files by themselves: what is not is told once, not by golden."""
    return all(name in names for name, names in zip(key, parts, strict=True))


def comparable(old: GoldenFile, new: GoldenFile, case: str) -> bool:
    """Whether both files recorded the same tokens of a case, so that numbers of it can be compared."""
    return _inputs(old, case) == _inputs(new, case)


def _inputs(file: GoldenFile, case: str) -> dict[str, str]:
    """Inputs as what they hash to: where they lie in the file is no part of them."""
    return {name: file.tensors[row].sha256 for name, row in file.case(case).inputs.items()}


def _provenance(file: GoldenFile) -> dict[str, Any]:
    own = {*UNTIMED, "versions", "checkpoint_files"}
    return {name: value for name, value in file.contents.provenance.items() if name not in own}


_PROVENANCE: tuple[tuple[str, Callable[[GoldenFile], Mapping[str, Any]]], ...] = (
    ("version", lambda file: file.contents.provenance.get("versions", {})),
    ("checkpoint file", lambda file: file.contents.provenance.get("checkpoint_files", {})),
    ("provenance", _provenance),
)


def _names(entries: Collection[Any]) -> list[str]:
    return [entry.name for entry in entries]


def _by_name(entries: Collection[Any]) -> dict[str, Any]:
    return {entry.name: msgspec.to_builtins(entry) for entry in entries}


def _components(file: GoldenFile, names: Collection[str]) -> dict[str, Any]:
    return {name: msgspec.to_builtins(file.component(name)) for name in names}


def _cases(file: GoldenFile, names: Collection[str]) -> dict[str, Any]:
    return {
        name: {argument: array.tolist() for argument, array in file.case_inputs(name).items()}
        for name in names
    }


def _dtypes(file: GoldenFile, names: Collection[str]) -> dict[str, None]:
    return dict.fromkeys(names)


def _fact_cases(file: GoldenFile) -> list[str]:
    return [fact.case for fact in file.contents.facts]


def facts_in(file: GoldenFile, scope: Scope, side: int) -> dict[tuple[str, ...], Any]:
    """The facts that are compared. What the reference did in one dtype is no fact of another."""
    dtypes = {pair[side] for pair in scope.dtypes if pair[0] == pair[1]}

    def asked(fact: Fact) -> bool:
        inside = not scope.dtypes or not fact.dtype or fact.dtype in dtypes
        return inside and scope.takes(fact.component, fact.case)

    return {
        (fact.component, fact.case, *([fact.dtype] if fact.dtype else [])): msgspec.to_builtins(fact)
        for fact in file.contents.facts
        if asked(fact)
    }


def _changed(what: str, before: Mapping[Any, Any], after: Mapping[Any, Any]) -> Iterator[Change]:
    for name in dict.fromkeys([*before, *after]):
        told = "/".join(name) if isinstance(name, tuple) else str(name)
        if name not in after:
            yield Change(what, told, "gone")
        elif name not in before:
            yield Change(what, told, "new")
        elif before[name] != after[name]:
            yield Change(what, told, "changed", *_parts(before[name], after[name]))


def _parts(before: Any, after: Any) -> tuple[Any, Any]:
    """Of something with named parts, those that are not the same."""
    if not isinstance(before, dict) or not isinstance(after, dict):
        return before, after
    names = [
        name
        for name in dict.fromkeys([*before, *after])
        if before.get(name, ABSENT) != after.get(name, ABSENT)
    ]
    return tuple({name: side[name] for name in names if name in side} for side in (before, after))  # type: ignore[return-value]
