"""Loops that numba compiles where they run, and that are kept in the cache.

numpy has no operation that does several things to a number while it is in a register. What is compiled lies in a folder
of its own for each name, text of the file that it is from and of this one, and version of numba. One process at a time
reads or writes there: else numba's index of a folder may point to what another process wrote.
"""

import fcntl
import hashlib
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import numba

from harness.caches import cache_folder

HOW: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "nsz"}}
"""What `numba.njit` is told. Sums may be taken in any order; NaN and infinities are to stay what they are."""

T = TypeVar("T")
_LOG = logging.getLogger(__name__)
_COMPILING = Lock()
_MADE: dict[tuple[str, str], Any] = {}


def compiled(source: str, name: str, make: Callable[[bool], T]) -> T:
    """What `make` gives, once in a process: it has numba compile what it gives, and keep it where it is told True.

    It calls what it makes with all types and layouts of arrays that there will be: others would be compiled unlocked.
    source: the file whose text says what is compiled; name: of the folder, beside others from this source
    """
    with _COMPILING:
        if (source, name) not in _MADE:
            _MADE[source, name] = _made(source, name, make)
        made: T = _MADE[source, name]
        return made


def _made(source: str, name: str, make: Callable[[bool], T]) -> T:
    """Where nothing can be kept, every process compiles. What is raised of a damaged file can be anything."""
    try:
        with _kept_in(source, name):
            return make(True)
    except Exception:
        _LOG.debug("what numba compiles is not kept", exc_info=True)
    return make(False)


@contextmanager
def _kept_in(source: str, name: str) -> Iterator[None]:
    texts = Path(source).read_bytes() + Path(__file__).read_bytes() + numba.__version__.encode()
    folder = cache_folder() / "compiled" / f"{name}-{hashlib.sha256(texts).hexdigest()[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, str(folder)
        try:
            yield
        except Exception:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            numba.config.CACHE_DIR = before
