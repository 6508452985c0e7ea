"""What `@pytest.mark.goldens(...)` asks for, and the comparisons that come of it. Imports nothing heavy."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from harness.errors import GoldensError, nearest
from harness.model import Golden, Mode
from harness.store.reader import GoldenFile

FACE = "goldens(file, ..., include=, exclude=, cases=, dtypes=, modes=, unmeasured=, checkpoint=)"
_KEYWORDS = ("include", "exclude", "cases", "dtypes", "modes", "unmeasured", "checkpoint")


@dataclass(frozen=True)
class Asked:
    """A marker, read. Empty selections leave nothing out.

    unmeasured: glob of component names -> why these may stay unmeasured
    checkpoint: where the recorded checkpoint is here; None for where it was recorded from
    """

    files: tuple[Path, ...]
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    cases: tuple[str, ...]
    dtypes: tuple[str, ...]
    modes: tuple[Mode, ...]
    unmeasured: Mapping[str, str]
    checkpoint: str | None


@dataclass(frozen=True)
class Comparison:
    """One test: one golden in one mode."""

    file: GoldenFile
    golden: Golden
    mode: Mode
    asked: Asked

    @property
    def id(self) -> str:
        golden = self.golden
        return "/".join([self.file.path.stem, golden.case, golden.dtype, self.mode, golden.component])

    @property
    def place(self) -> int:
        """Where the component stands in forward order."""
        names = [component.name for component in self.file.contents.components]
        return names.index(self.golden.component)


def read_marker(files: Sequence[Any], keywords: Mapping[str, Any], folder: Path) -> Asked:
    """A marker's arguments; its files lie in `folder` unless they are absolute.

    Raises GoldensError for what a marker does not know.
    """
    for name in keywords:
        if name not in _KEYWORDS:
            raise GoldensError(
                f"the marker goldens knows no {name!r}{nearest(name, _KEYWORDS)}: write {FACE}"
            )
    if not files:
        raise GoldensError(f"the marker goldens names no golden file: write {FACE}")
    unmeasured = keywords.get("unmeasured", {})
    if not isinstance(unmeasured, Mapping) or not all(unmeasured.values()):
        raise GoldensError("the marker goldens takes unmeasured={'GLOB': 'REASON'}, a reason for each")
    return Asked(
        files=tuple(folder / Path(file) for file in files),
        include=_several(keywords.get("include", ())),
        exclude=_several(keywords.get("exclude", ())),
        cases=_several(keywords.get("cases", ())),
        dtypes=_several(keywords.get("dtypes", ())),
        modes=tuple(_mode(name) for name in _several(keywords.get("modes", tuple(Mode)))),
        unmeasured=unmeasured,
        checkpoint=keywords.get("checkpoint"),
    )


def _several(value: str | Sequence[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _mode(name: str) -> Mode:
    try:
        return Mode(name)
    except ValueError:
        raise GoldensError(f"the marker goldens knows no mode {name!r}: it has {', '.join(Mode)}") from None


def comparisons(asked: Asked, open_file: Callable[[Path], GoldenFile]) -> list[Comparison]:
    """All of them, those that one forward pass serves together. Raises GoldensError when there are none."""
    found = [comparison for path in asked.files for comparison in _of(open_file(path), asked)]
    if not found:
        raise GoldensError(
            f"nothing that the marker selects has a golden for {', '.join(asked.modes)} replay"
        )
    return found


def _of(file: GoldenFile, asked: Asked) -> Iterator[Comparison]:
    file.matching(asked.unmeasured)
    selection = file.select(asked.include, asked.exclude, asked.cases, asked.dtypes)
    for _, run in groupby(selection, key=lambda golden: (golden.dtype, golden.case)):
        goldens = list(run)
        for mode in Mode:
            if mode in asked.modes:
                for golden in goldens:
                    if mode is Mode.END_TO_END or golden.isolated is not None:
                        yield Comparison(file, golden, mode, asked)
