"""The history's file: a line of JSON for each run, only ever added to."""

import fcntl
import os
from pathlib import Path

import msgspec

from harness.errors import GoldensError
from harness.history.entry import FORMAT, Entry


def append(path: Path, entry: Entry) -> None:
    """Add a run. Several processes may: a line is written whole, or, after a crash, is recognised as half.

    Raises GoldensError when it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0, os.SEEK_END)
            torn = file.tell() > 0 and not _ends_in_newline(file.fileno(), file.tell())
            file.write((b"\n" if torn else b"") + msgspec.json.encode(entry) + b"\n")
    except OSError as error:
        raise GoldensError(f"the history {path} cannot be written: {error.strerror}") from error


def _ends_in_newline(descriptor: int, size: int) -> bool:
    return os.pread(descriptor, 1, size - 1) == b"\n"


def read(path: Path) -> list[Entry]:
    """All runs, the oldest first. Half a line, as a crash or a full disk leaves one, is left out.

    Raises GoldensError for a file that is no history.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise GoldensError(
            f"the history {path} cannot be read: {error.strerror}; `goldens replay --history {path}` begins one"
        ) from error
    entries = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = msgspec.json.decode(line, type=Entry)
        except msgspec.ValidationError as error:
            raise GoldensError(f"{path}, line {number}, is no run of a history: {error}") from error
        except msgspec.DecodeError as error:
            if _is_torn(line):
                continue
            raise GoldensError(
                f"{path}, line {number}, is no JSON ({error}): name a history, or take the line out"
            ) from error
        if entry.format != FORMAT:
            raise GoldensError(
                f"{path}, line {number}, has format {entry.format}; this version reads {FORMAT}"
            )
        entries.append(entry)
    return entries


def _is_torn(line: bytes) -> bool:
    """A run that was begun and not ended."""
    return line.startswith(b'{"format":') and not line.endswith(b"}")
