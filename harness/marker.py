"""What `@pytest.mark.goldens(...)` asks for, and the comparisons that come of it. Imports nothing heavy."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from harness.compare.tolerance import Allowed
from harness.errors import GoldensError, nearest
from harness.model import BY_DEFAULT, FactIn, Golden, Mode
from harness.remote.pins import pin_of
from harness.replay.modes import modes_of
from harness.store.reader import GoldenFile
from harness.tolerances import NOTHING_SAID, Tolerances, refuse_sizes, rounded

_KEYWORDS = (
    "include", "exclude", "cases", "dtypes", "modes", "unmeasured", "rtol", "atol", "reason", "checkpoint",
)  # fmt: skip
FACE = f"goldens(file, ..., {', '.join(f'{name}=' for name in _KEYWORDS)})"


@dataclass(frozen=True)
class Asked:
    """A marker, read. Empty selections leave nothing out.

    files: name in test ids -> path
    unmeasured: glob of component names -> why these may stay unmeasured
    allowed: what passes, by rtol=, atol= and reason=; None for what the tolerance file and noise floors say
    checkpoint: where the recorded checkpoint is here; None for where it was recorded from
    """

    files: Mapping[str, Path]
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    cases: tuple[str, ...]
    dtypes: tuple[str, ...]
    modes: tuple[Mode, ...]
    unmeasured: Mapping[str, str]
    allowed: Allowed | None
    checkpoint: str | None


@dataclass(frozen=True)
class Comparison:
    """One test: one golden, or one fact, in one mode.

    name: what stands for the file in the test's id; tolerances: of the tolerance file, and of the marker
    """

    name: str
    file: GoldenFile
    recorded: Golden | FactIn
    mode: Mode
    asked: Asked
    tolerances: Tolerances

    @property
    def id(self) -> str:
        recorded = self.recorded
        return "/".join([self.name, recorded.case, recorded.dtype, self.mode, recorded.component])

    @property
    def place(self) -> int:
        """Where the component stands in forward order."""
        return self.file.order.index(self.recorded.component)


@dataclass(frozen=True)
class Missing:
    """One test: a golden file that is not there. name: what stands for it in the test's id; says: so, in a sentence"""

    name: str
    path: Path
    says: str


def read_marker(files: Sequence[Any], keywords: Mapping[str, Any], root: Path, folder: Path) -> Asked:
    """A marker's arguments. Paths are relative to `root`, those of golden files to `folder`.

    Raises GoldensError for what a marker does not know.
    """
    for name in keywords:
        if name not in _KEYWORDS:
            raise GoldensError(
                f"the marker goldens knows no {name!r}{nearest(name, _KEYWORDS)}: write {FACE}"
            )
    if not files:
        raise GoldensError(f"the marker goldens names no golden file: write {FACE}")
    return Asked(
        files=_named(files, folder),
        include=_several(keywords, "include"),
        exclude=_several(keywords, "exclude"),
        cases=_several(keywords, "cases"),
        dtypes=_several(keywords, "dtypes"),
        modes=tuple(_mode(name) for name in _several(keywords, "modes")) or BY_DEFAULT,
        unmeasured=_reasons(keywords.get("unmeasured", {})),
        allowed=_allowed(keywords),
        checkpoint=_checkpoint(keywords.get("checkpoint"), root),
    )


def _named(files: Sequence[Any], folder: Path) -> dict[str, Path]:
    """Name in test ids -> path: the stems, or, if two are the same, the paths as the marker gives them."""
    for file in files:
        if not isinstance(file, str | os.PathLike):
            raise GoldensError(f"the marker goldens takes names of golden files, not {file!r}: write {FACE}")
    paths = list(dict.fromkeys(Path(file) for file in files))
    by_stem = {path.stem: folder / path for path in paths}
    return by_stem if len(by_stem) == len(paths) else {path.as_posix(): folder / path for path in paths}


def _several(keywords: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """Empty when the keyword is left out, and only then."""
    if name not in keywords:
        return ()
    value = keywords[name]
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list | tuple | set | frozenset) or not all(isinstance(v, str) for v in values):
        raise GoldensError(f"the marker goldens takes text, or a list of texts, for {name}, not {value!r}")
    if not values:
        raise GoldensError(
            f"the marker goldens with {name}={value!r} selects nothing: name one, or leave {name}= out"
        )
    return tuple(values)


def _reasons(unmeasured: Any) -> Mapping[str, str]:
    given = isinstance(unmeasured, Mapping) and all(
        isinstance(text, str) and text.strip() for item in unmeasured.items() for text in item
    )
    if not given:
        raise GoldensError("the marker goldens takes unmeasured={'GLOB': 'REASON'}, a reason for each")
    return unmeasured


def _allowed(keywords: Mapping[str, Any]) -> Allowed | None:
    """A tolerance and its reason, which come together or not at all."""
    rtol, atol, reason = (keywords.get(name) for name in ("rtol", "atol", "reason"))
    if rtol is atol is reason is None:
        return None
    for name, size in (("rtol", rtol), ("atol", atol)):
        if size is not None and not (isinstance(size, int | float) and not isinstance(size, bool)):
            raise GoldensError(f"the marker goldens takes a number for {name}, not {size!r}")
    if rtol is None or not isinstance(reason, str) or not reason.strip():
        raise GoldensError(
            "the marker goldens takes rtol=, with or without atol=, together with reason='WHY'"
        )
    try:
        refuse_sizes(rtol, atol)
    except ValueError as error:
        raise GoldensError(f"the marker goldens: {error}") from None
    return Allowed(f"the marker: {reason}", rtol, atol or 0.0)


def _checkpoint(value: Any, root: Path) -> str | None:
    """A folder in `root`, where there is one of that name; else what is given: it may be a hub id."""
    if value is None:
        return None
    if not isinstance(value, str | os.PathLike) or not str(value).strip():
        raise GoldensError(f"the marker goldens takes checkpoint='FOLDER', not {value!r}")
    folder = root / value
    return str(folder if folder.is_dir() else value)


def _mode(name: str) -> Mode:
    try:
        return Mode(name)
    except ValueError:
        raise GoldensError(f"the marker goldens knows no mode {name!r}: it has {', '.join(Mode)}") from None


def divided(asked: Asked, root: Path) -> tuple[Asked, list[Missing]]:
    """What is asked of the golden files that are there, or can be fetched, and those that are not.

    Paths are told relative to `root`.
    """
    there = {name: path for name, path in asked.files.items() if path.exists() or pin_of(path)}
    missing = [
        Missing(name, path, _how_to_record(path.relative_to(root) if path.is_relative_to(root) else path))
        for name, path in asked.files.items()
        if name not in there
    ]
    return replace(asked, files=there), missing


def _how_to_record(path: Path) -> str:
    return (
        f"there is no golden file {path}: record it with `goldens record SUITE.toml -o {path}`,"
        " or say with goldens_dir where golden files lie"
    )


def comparisons(
    asked: Asked, open_file: Callable[[Path], GoldenFile], tolerances: Tolerances = NOTHING_SAID
) -> list[Comparison]:
    """All of them, those that one forward pass serves together. Raises GoldensError when there are none."""
    said = replace(tolerances, marker=asked.allowed)
    found = [
        comparison
        for name, path in asked.files.items()
        for comparison in _of(name, open_file(path), asked, said)
    ]
    if not found:
        raise GoldensError(
            f"nothing that the marker selects has a golden for {', '.join(asked.modes) or 'any'} replay"
        )
    return found


def _of(name: str, file: GoldenFile, asked: Asked, tolerances: Tolerances) -> Iterator[Comparison]:
    file.matching(asked.unmeasured)
    tolerances.refuse_all(file)
    chosen = (asked.include, asked.exclude, asked.cases, asked.dtypes)
    goldens, facts = file.select(*chosen), file.select_facts(*chosen)
    if asked.allowed is not None and {golden.component for golden in goldens} >= set(rounded(file)):
        raise GoldensError(
            f"the marker goldens with rtol= selects every component of {file.path}, and no tolerance is one for"
            " all: name some with include="
        )
    for _, run in groupby(goldens, key=lambda golden: (golden.dtype, golden.case)):
        found = [(golden, modes_of(file, golden, asked.modes)) for golden in run]
        for mode in Mode:
            for golden, modes in found:
                if mode in modes:
                    yield Comparison(name, file, golden, mode, asked, tolerances)
    for fact in facts:
        for mode in modes_of(file, fact, asked.modes):
            yield Comparison(name, file, fact, mode, asked, tolerances)
