"""`goldens audit`: the catalogue, and the faults of the port's own source, against golden files."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from harness.audit.catalogue.table import FAULTS
from harness.audit.compiled import compiled_once
from harness.audit.fault import Fault, Patch
from harness.audit.outcome import Audit
from harness.audit.patched import patched_factory, read_faults
from harness.audit.run import Auditor
from harness.errors import GoldensError, nearest
from harness.model import UNIT_ROUNDOFF, FactIn, Golden
from harness.replay.session import checked_factory, checkpoint_folder
from harness.replay.watch import Watch
from harness.settings import fault_settings, port_setting
from harness.store.reader import GoldenFile


@dataclass(frozen=True)
class Shard:
    """Every `of`-th fault of those that are chosen, from the one of this number, which starts at 1."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Raises GoldensError for anything but K/N with K from 1 to N."""
        number, slash, of = text.partition("/")
        if not (slash and number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
            raise GoldensError(f"a shard is K/N with K from 1 to N, as 2/7, not {text!r}")
        return cls(int(number), int(of))


@dataclass(frozen=True)
class Question:
    """What to audit. Empty selections leave nothing out.

    dtype: by default the most exact one that is recorded; sources: TOML files of faults in the port's source
    mesh: the devices to spread the port over, as a `jax.sharding.Mesh`
    timeout: the seconds that the port may take for one answer
    """

    port: str
    checkpoint: str | None
    cases: tuple[str, ...]
    dtype: str | None
    faults: tuple[str, ...]
    sources: tuple[Path, ...]
    shard: Shard | None = None
    mesh: Any = None
    timeout: float | None = None


@dataclass(frozen=True)
class Asked:
    """What is audited of one golden file. goldens, facts: those of one dtype; folder: the recorded checkpoint."""

    file: GoldenFile
    goldens: Sequence[Golden]
    facts: Sequence[FactIn]
    dtype: str
    folder: Path


def source_setting(folder: Path, named: str | None) -> tuple[Path, ...]:
    """The files of faults that the project names: they are in the source of its own port, and of no other one."""
    return fault_settings(folder) if named is None or named == port_setting(folder) else ()


def chosen_faults(question: Question) -> list[Fault]:
    """The faults that are asked for, by glob of name or area. Raises GoldensError for a glob that none has,
    for a name that two files of faults have, and for a fault that the port's source has left behind. A shard takes
    every N-th of them, so that each area is in each.
    """
    sources = [fault for path in question.sources for fault in read_faults(path)]
    if len({fault.name for fault in sources}) < len(sources):
        names = [fault.name for fault in sources]
        twice = next(name for name in names if names.count(name) > 1)
        raise GoldensError(f"fault {twice} is in two files of faults: give one of them another name")
    known = [*FAULTS, *sources]
    for glob in question.faults:
        if not any(_is(fault, glob) for fault in known):
            each = dict.fromkeys(name for fault in known for name in (fault.name, str(fault.area)))
            raise GoldensError(f"no fault, and no area of faults, matches {glob!r}{nearest(glob, each)}")
    chosen = [fault for fault in known if not question.faults or any(_is(fault, g) for g in question.faults)]
    if question.shard:
        chosen = chosen[question.shard.number - 1 :: question.shard.of]
    for fault in chosen:
        if isinstance(fault.planting, Patch):
            patched_factory(question.port, fault)
    return chosen


def _is(fault: Fault, glob: str) -> bool:
    return fnmatchcase(fault.name, glob) or fnmatchcase(fault.area, glob)


def select(file: GoldenFile, question: Question) -> Asked:
    """Raises GoldensError for what the file does not have, and for another checkpoint than the recorded one."""
    dtype = question.dtype or min(file.dtypes, key=UNIT_ROUNDOFF.__getitem__)
    goldens = file.select(cases=question.cases, dtypes=[dtype])
    facts = file.select_facts(cases=question.cases, dtypes=[dtype])
    checked_factory(file, question.port, question.checkpoint)
    return Asked(file, goldens, facts, dtype, checkpoint_folder(file, question.checkpoint))


def audit(asked: Asked, question: Question, faults: Sequence[Fault], progress: Console) -> Audit:
    """Plant every fault and replay; a bar on `progress` shows how far it is."""
    auditor = Auditor(
        asked.file,
        asked.goldens,
        asked.dtype,
        question.port,
        asked.folder,
        asked.facts,
        question.mesh,
        Watch(question.timeout),
    )
    bar = track(
        faults,
        description=asked.file.path.name,
        console=progress,
        disable=not progress.is_terminal,
        transient=True,
    )
    with compiled_once():
        auditor.refuse_wrong(faults)
        results = [auditor.audit(fault) for fault in bar]
    return Audit.from_results(str(asked.file.path), question.port, asked.dtype, results)
