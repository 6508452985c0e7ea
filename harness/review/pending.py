"""Recordings that wait beside their golden file, as NAME.h5.new, to be accepted or rejected."""

import enum
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from harness.errors import GoldensError
from harness.store.reader import GoldenFile
from harness.store.verify import verify

SUFFIX = ".new"


class Policy(enum.Enum):
    """Which pending recordings a command is about."""

    NAMED = enum.auto()
    ALL = enum.auto()
    ASK = enum.auto()
    REFUSE = enum.auto()


def policy(named: bool, every: bool, terminal: bool, ci: bool) -> Policy:
    """named: files are named; every: all are asked for; terminal: somebody can answer.

    On a CI machine nothing is written unless it is asked for in so many words.
    """
    if named:
        return Policy.NAMED
    if every:
        return Policy.ALL
    return Policy.ASK if terminal and not ci else Policy.REFUSE


def on_ci(environment: Mapping[str, str]) -> bool:
    return environment.get("CI", "").strip().lower() not in ("", "0", "false", "no")


def pending_of(golden: Path) -> Path:
    """Where a recording of the golden file waits. Raises GoldensError for a name that is none of a golden file."""
    if golden.name.endswith(SUFFIX):
        raise GoldensError(f"{golden} is a pending recording: name its golden file, {golden.stem}")
    return golden.with_name(golden.name + SUFFIX)


def there_is(golden: Path) -> Path:
    """The pending recording of a golden file. Raises GoldensError when there is none."""
    pending = pending_of(golden)
    if not pending.is_file():
        raise GoldensError(f"{golden} has no pending recording: {pending} is not there")
    return pending


def all_pending(folder: Path) -> list[Path]:
    """The golden files in `folder` and below that have a pending recording; hidden folders are left out."""
    return sorted(_pending(folder))


def _pending(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if name.endswith(f".h5{SUFFIX}"):
                yield Path(place) / name.removesuffix(SUFFIX)


def refuse_unfit(golden: Path) -> GoldenFile:
    """The pending recording of a golden file, every byte checked. Raises GoldensError if it may not take its place."""
    pending = there_is(golden)
    found = GoldenFile.open(pending)
    problems = verify(pending)
    if problems:
        raise GoldensError(f"{pending} is damaged: {problems[0]}; record it again, or reject it")
    if golden.exists():
        refuse_other_origin(golden, found.contents.provenance)
    return found


def refuse_other_origin(golden: Path, provenance: Mapping[str, object]) -> None:
    """A port's recording never takes the place of the reference's, nor the reference's of a port's."""
    try:
        there = GoldenFile.open(golden).contents.provenance
    except GoldensError:
        return  # what is damaged is nothing to protect
    if bool(there.get("port")) != bool(provenance.get("port")):
        kinds = ("a port", "the reference") if there.get("port") else ("the reference", "a port")
        raise GoldensError(
            f"{golden} was recorded from {kinds[0]}, and this recording is from {kinds[1]}: give it another name"
        )


def accept(golden: Path) -> None:
    """Give the pending recording the golden file's name: at once, and so that it survives a power cut.

    Raises GoldensError when that cannot be done; both files are then as they were.
    """
    pending = pending_of(golden)
    try:
        _sync(pending, os.O_RDONLY)
        os.replace(pending, golden)
        _sync(golden.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise GoldensError(f"cannot give {pending} the name {golden.name}: {error.strerror}") from error


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
