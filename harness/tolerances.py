"""The tolerance file: rows that say what passes in place of noise floors, and what is known to fail.

Every row has a reason, and may have a day on which it ends. Imports nothing heavy.
"""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec
from msgspec.structs import replace

from harness import toml
from harness.compare.tolerance import Allowed
from harness.errors import GoldensError, nearest
from harness.model import UNIT_ROUNDOFF, Mode, Verdict
from harness.report.result import Place, Result

if TYPE_CHECKING:
    from harness.store.reader import GoldenFile

_WILD = re.compile(r"\[[^\]]*\]|[*?]")


class Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every row says: of what it speaks, why, and until when.

    component: a glob of names; dtype, mode: of one only; device: a glob of JAX's platforms
    expires: the last day on which the row may be there
    """

    component: str
    reason: str
    dtype: str | None = None
    device: str | None = None
    mode: str | None = None
    expires: date | None = None

    def __post_init__(self) -> None:
        for name in ("component", "reason"):
            if not getattr(self, name).strip():
                raise ValueError(f"{name} is empty: say {'which' if name == 'component' else 'why'}")
        for name, known in (("dtype", UNIT_ROUNDOFF), ("mode", list(Mode))):
            value = getattr(self, name)
            if value is not None and value not in known:
                raise ValueError(f"{name} is {value!r}, expected one of {', '.join(known)}")

    def matches(self, place: Place, device: str) -> bool:
        return (
            fnmatchcase(place.component, self.component)
            and self.dtype in (None, place.dtype)
            and self.mode in (None, place.mode)
            and (self.device is None or fnmatchcase(device, self.device))
        )

    @property
    def specific(self) -> tuple[int, ...]:
        """The greater, the more specific: a name, then a longer glob, then more that the row asks for beside it."""
        literal = len(_WILD.sub("", self.component))
        return (not self.is_glob, literal, sum(asked is not None for asked in self.conditions))

    @property
    def is_glob(self) -> bool:
        return _WILD.search(self.component) is not None

    @property
    def conditions(self) -> tuple[str | None, ...]:
        return (self.dtype, self.device, self.mode)


class Tolerance(Row, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What passes: `rtol` with or without `atol`, or so many noise `floors`."""

    rtol: float | None = None
    atol: float | None = None
    floors: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.rtol is None) == (self.floors is None):
            raise ValueError("say what passes with rtol or with floors, one of the two")
        if self.floors is not None and not 0 < self.floors < math.inf:
            raise ValueError(f"floors is {self.floors:g}, expected a number above 0")
        refuse_sizes(self.rtol, self.atol)

    def allowed(self, where: str) -> Allowed:
        return Allowed(f"{where}: {self.reason}", self.rtol, self.atol or 0.0, self.floors)


def refuse_sizes(rtol: float | None, atol: float | None) -> None:
    """Raises ValueError for what is no tolerance."""
    if rtol is None and atol is not None:
        raise ValueError("atol is there without rtol: say both, or rtol alone")
    if rtol is not None and not 0 < rtol < 1:
        raise ValueError(f"rtol is {rtol:g}, expected a number between 0 and 1: at 1, zeros pass")
    if atol is not None and not 0 < atol < math.inf:
        raise ValueError(f"atol is {atol:g}, expected a number above 0")


class ExpectedFailure(Row, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is known to fail, in one `case` or in all; it has to."""

    case: str | None = None

    def matches(self, place: Place, device: str) -> bool:
        return self.case in (None, place.case) and super().matches(place, device)

    @property
    def conditions(self) -> tuple[str | None, ...]:
        return (*super().conditions, self.case)


class Rows(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file as it is written."""

    tolerance: list[Tolerance] = []
    expected_failure: list[ExpectedFailure] = []

    def named(self) -> Iterator[tuple[str, Row]]:
        """Each row, and how it is told."""
        for kind in self.__struct_fields__:
            for place, row in enumerate(getattr(self, kind)):
                yield told(kind, place, row), row


def told(kind: str, place: int, row: Row) -> str:
    """`tolerance[2] (layers.*.mlp.down_proj)`; counted from 0, as places in TOML files are told everywhere."""
    return f"{kind}[{place}] ({row.component})"


R = TypeVar("R", bound=Row)


@dataclass(frozen=True)
class Tolerances:
    """What is said of tolerances beside noise floors.

    file: the tolerance file as it is told; marker: what a test's marker says, which goes before the file
    """

    file: str = ""
    rows: Rows = field(default_factory=Rows)
    marker: Allowed | None = None

    def allowed(self, place: Place, device: str) -> Allowed | None:
        """What passes there; None for what noise floors say. Raises GoldensError where two rows say so equally."""
        if self.marker is not None:
            return self.marker
        found = self._most_specific("tolerance", self.rows.tolerance, place, device)
        return None if found is None else found[1].allowed(f"{self.file}, {found[0]}")

    def expected(self, result: Result, device: str) -> Result:
        """The result, marked if it was expected to fail; a failure, if it was and passes."""
        place = Place(result.component, result.case, result.dtype, result.mode)
        found = self._most_specific("expected_failure", self.rows.expected_failure, place, device)
        if found is None or result.verdict is Verdict.UNMEASURED:
            return result
        reason = found[1].reason
        if result.verdict is Verdict.FAIL:
            return replace(result, expected=reason)
        passes = f"expected to fail ({reason}), and passes: remove the row from {self.file}, or narrow it"
        return replace(result, verdict=Verdict.FAIL, reason=passes, unexpected=reason)

    def refuse_ambiguous(self, places: Iterable[Place], device: str) -> None:
        """Raises GoldensError where two rows of a kind speak equally specifically of one place."""
        for place in places:
            self._most_specific("tolerance", self.rows.tolerance, place, device)
            self._most_specific("expected_failure", self.rows.expected_failure, place, device)

    def refuse_all(self, file: "GoldenFile") -> None:
        """Raises GoldensError for a row that says what passes of every component: there is no such switch."""
        names = rounded(file)
        for place, row in enumerate(self.rows.tolerance):
            if row.is_glob and names and all(fnmatchcase(name, row.component) for name in names):
                raise GoldensError(
                    f"{self.file}: {told('tolerance', place, row)} is about every component of {file.path},"
                    " and no tolerance is one for all: write a row for each kind of component"
                )

    def unmatched(self, files: Sequence["GoldenFile"]) -> Iterator[str]:
        """A sentence for each row that speaks of no component of any of the golden files."""
        where = ", ".join(str(file.path) for file in files)
        tensors = {component.name for file in files for component in file.contents.components}
        everything = [name for file in files for name in file.order]
        for name, row in self.rows.named():
            matched = {component for component in everything if fnmatchcase(component, row.component)}
            if not matched:
                near = nearest(row.component, everything)
                yield f"{self.file}: {name} matches no component of {where}{near}"
            elif isinstance(row, Tolerance) and not matched & tensors:
                yield f"{self.file}: {name} matches nothing but facts of {where}, and these are exact"

    def _most_specific(self, kind: str, rows: Sequence[R], place: Place, device: str) -> tuple[str, R] | None:
        matching = [(told(kind, i, row), row) for i, row in enumerate(rows) if row.matches(place, device)]
        matching.sort(key=lambda found: found[1].specific, reverse=True)
        if len(matching) > 1 and matching[0][1].specific == matching[1][1].specific:
            raise GoldensError(
                f"{self.file}: {matching[0][0]} and {matching[1][0]} are equally specific, and both speak of"
                f" {place.component} ({place.case} {place.dtype} {place.mode}): let one of them say more"
            )
        return matching[0] if matching else None


NOTHING_SAID = Tolerances()


def rounded(file: "GoldenFile") -> list[str]:
    """The components of a golden file that a tolerance can be about: where something is rounded."""
    return [component.name for component in file.contents.components if not component.exact]


def read(path: Path | None, today: date | None = None) -> Tolerances:
    """The tolerance file at `path`, if there is to be one. Raises GoldensError, also for a row that has expired."""
    if path is None:
        return NOTHING_SAID
    file, rows = _shown(path), toml.read(path, Rows)
    for name, row in rows.named():
        if row.expires is not None and row.expires < (today or date.today()):
            raise GoldensError(
                f"{file}: {name} expired on {row.expires}: remove it, or review it and give it another day"
            )
    return Tolerances(file, rows)


def _shown(path: Path) -> str:
    """As short as it can be told."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
