"""Files that appear whole or not at all, and are written by one process at a time. Imports nothing heavy."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import GoldensError

_TRIES = 100


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A file beside `path` to write to, which takes its place when all has gone well. Raises GoldensError."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield beside
        os.replace(beside, path)
    except OSError as error:
        raise GoldensError(f"cannot write {path}: {error.strerror}") from error
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def alone(golden: Path, told: Callable[[str], None]) -> Iterator[None]:
    """No other process records or accepts `golden` meanwhile. What an interrupted one left is removed, and `told`.

    The lock is the kernel's, on a file beside `golden`: it ends with the process that holds it, however that ends.
    Raises GoldensError when another process is at it, or nothing can be written there.
    """
    lock = golden.with_name(f".{golden.name}.lock")
    try:
        descriptor = _locked(lock, golden)
    except OSError as error:
        raise GoldensError(
            f"cannot write {golden}: {error.strerror}; choose a folder that exists and can be written to"
        ) from error
    try:
        for left in left_over(golden):
            left.unlink(missing_ok=True)
            told(f"{left}: removed, an interrupted recording left it")
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(descriptor)


def _locked(lock: Path, golden: Path) -> int:
    """The open file `lock`, locked, and still under its name: who had it before may have removed it."""
    import fcntl

    for _ in range(_TRIES):
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is(lock, descriptor):
                os.truncate(descriptor, 0)
                os.write(descriptor, str(os.getpid()).encode())
                return descriptor
        except BlockingIOError:
            process = os.pread(descriptor, 20, 0).decode(errors="replace") or "unknown"
            os.close(descriptor)
            raise GoldensError(
                f"{golden} is being recorded or accepted by process {process}: wait for it, or use another name"
            ) from None
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)
    raise GoldensError(f"{golden} cannot be locked: other processes record or accept it all the time")


def _is(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def parts_of(golden: Path) -> Path:
    """The folder of the parts that `goldens record --resume` has of a golden file so far."""
    return golden.with_name(f"{golden.name}.parts")


def left_over(golden: Path) -> list[Path]:
    """Files that recordings of `golden` were writing when their processes ended."""
    own = re.compile(rf"{re.escape(golden.name)}(?:\.new)?\.(\d+)\.partial")
    of_parts = re.compile(r".*\.(\d+)\.partial")
    folder = parts_of(golden)
    named = [(path, own.fullmatch(path.name)) for path in golden.parent.iterdir()]
    if folder.is_dir():
        named += [(path, of_parts.fullmatch(path.name)) for path in folder.iterdir()]
    return sorted(path for path, match in named if match and not _lives(int(match[1])))


def _lives(process: int) -> bool:
    """Whether another process has that number. Our own writes nothing yet."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return process != os.getpid()
