"""Golden files read in a process of its own, which may die or hang: what became of it is the result."""

import hashlib
import multiprocessing
import resource
import signal
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from harness.errors import GoldensError
from harness.store.verify import verify

ROOM = 256 << 20
"""Bytes that reading a small golden file may allocate."""

SECONDS = 30.0


@dataclass(frozen=True)
class Outcome:
    """What became of a file.

    what: what refused it (`opening`, `reading`, `verify`), `read`, or else how it went wrong
    said: the sentence, or of a file that was read, what all of it hashes to
    """

    what: str
    said: str

    @property
    def refused(self) -> bool:
        return self.what in ("opening", "reading", "verify")


class Reader:
    """Reads one file after another; a process that died or hung is replaced by another.

    taken_along: how often it was HDF5 that died or hung, which `verify` asks apart
    """

    def __init__(self) -> None:
        self.taken_along = 0
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["harness.store.verify", "harness.store.tree"])
        self._start()

    def _start(self) -> None:
        self._ours, theirs = self._context.Pipe()
        self._process = self._context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def read(self, path: Path) -> Outcome:
        """What became of it. Where HDF5 took the process with it, `verify` is asked, which asks it apart."""
        self._ours.send(path)
        outcome, stage = self._answer(), ""
        if outcome.what == "hdf5":
            outcome, stage = self._answer(), "hdf5"
        if outcome.what in ("crashed", "hung"):
            self._process.join()
            self._start()
            if stage:
                self.taken_along += 1
                outcome = Outcome("verify", next(iter(verify(path)), "nothing"))
        return outcome

    def _answer(self) -> Outcome:
        try:
            if self._ours.poll(SECONDS):
                return Outcome(*self._ours.recv())
            self._process.kill()
            return Outcome("hung", f"longer than {SECONDS} s")
        except (EOFError, ConnectionError):
            self._process.join()
            return Outcome("crashed", _how(self._process.exitcode))

    def close(self) -> None:
        self._ours.close()
        self._process.join()


def _how(status: int | None) -> str:
    return signal.Signals(-status).name if status and status < 0 else f"exit {status}"


def _serve(asked: Connection) -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, used + ROOM))
    while True:
        try:
            path = asked.recv()
        except EOFError:
            return
        asked.send(_read(path, asked))


def _read(path: Path, asked: Connection) -> tuple[str, str]:
    from harness.store.reader import GoldenFile
    from harness.store.tree import disagreements
    from harness.store.verify import damaged

    stage = "opening"
    try:
        file = GoldenFile.open(path)
        stage = "reading"
        arrays = [file.tensor(row) for row in range(len(file.tensors))]
        stage = "verify"
        if problems := [*damaged(file)]:
            return stage, problems[0]
        asked.send(("hdf5", ""))
        if problems := disagreements(file):
            return stage, problems[0]
    except GoldensError as error:
        return stage, str(error)
    except MemoryError as error:
        return "memory", str(error)
    except BaseException:
        return "raised", traceback.format_exc()
    content = hashlib.sha256(file.digest.encode())
    for array in arrays:
        content.update(repr((array.dtype, array.shape)).encode() + array.tobytes())
    return "read", content.hexdigest()
