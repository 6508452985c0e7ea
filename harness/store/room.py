"""Room on the disk, taken before HDF5 writes: a write of its own that fails takes the interpreter down with it."""

import errno
import os
from pathlib import Path

from harness.errors import GoldensError

_BOOKKEEPING = 1 << 20
"""Bytes that HDF5 may write beside a payload: headers and links, whenever it likes."""

_AHEAD = 4 << 20
"""Bytes taken at once, so that few payloads ask for room."""

_NOT_OFFERED = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
"""What is said where no room is taken beforehand: by file systems, unless the C library writes in their place."""

_ZEROS = bytes(1 << 20)


class Room:
    """The room that a file has. `golden` is what messages call it. Raises OSError where it cannot be made."""

    def __init__(self, file: Path, golden: Path):
        self._golden = golden
        self._descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        self._taken = 0

    def take(self, nbytes: int) -> None:
        """See that the file can be so long, and somewhat longer. Raises GoldensError when the disk is full."""
        wanted = nbytes + _BOOKKEEPING
        if wanted > self._taken and not self._took(wanted + _AHEAD):
            self._took(wanted, last=True)

    def _took(self, end: int, last: bool = False) -> bool:
        try:
            self._allocate(end)
        except OSError as error:
            if last:
                raise GoldensError(
                    f"cannot write {self._golden}: {error.strerror}; what was there is as it was"
                ) from error
            return False
        self._taken = end
        return True

    def _allocate(self, end: int) -> None:
        """Where nothing takes room, by writing: behind what the file has, since HDF5 writes where room was taken."""
        try:
            os.posix_fallocate(self._descriptor, self._taken, end - self._taken)
        except (AttributeError, OSError) as error:  # macOS has no such function
            if isinstance(error, OSError) and error.errno not in _NOT_OFFERED:
                raise
            place = max(self._taken, os.fstat(self._descriptor).st_size)
            while place < end:
                place += os.pwrite(self._descriptor, _ZEROS[: end - place], place)

    def lose(self) -> None:
        """The file was emptied."""
        self._taken = 0

    def close(self) -> None:
        os.close(self._descriptor)
