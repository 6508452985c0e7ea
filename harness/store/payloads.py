"""Payloads on their way into a golden file: written and hashed by a thread, while the next ones are computed."""

import hashlib
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

WAITING = 2**28
"""Bytes that may wait: a disk that is slower than what is computed holds it up, rather than memory fill."""


class Payloads:
    """path: the file, which has room for them at places that HDF5 has set aside, and writes nothing to itself."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file = open(path, "r+b")  # noqa: SIM115 - closed by `close`
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="payloads")
        self._digests: list[Future[str]] = []
        self._waiting: deque[tuple[Future[str], int]] = deque()
        self._bytes = 0

    def put(self, array: np.ndarray, offset: int) -> None:
        """The next one. It must not change any more. Raises OSError if one before could not be written."""
        while self._waiting and (self._bytes > WAITING or self._waiting[0][0].done()):
            first, nbytes = self._waiting.popleft()
            first.result()
            self._bytes -= nbytes
        self._digests.append(self._thread.submit(self._write, array, offset))
        self._waiting.append((self._digests[-1], array.nbytes))
        self._bytes += array.nbytes

    def digests(self) -> list[str]:
        """SHA-256 of all, in order, once they are written. Raises OSError if one could not be."""
        found = [digest.result() for digest in self._digests]
        self._file.flush()
        return found

    def close(self) -> None:
        """Whatever still waits is not written."""
        self._thread.shutdown(cancel_futures=True)
        self._file.close()

    def _write(self, array: np.ndarray, offset: int) -> str:
        content = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        self._file.seek(offset)
        self._file.write(content)
        return hashlib.sha256(content).hexdigest()
