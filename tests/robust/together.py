"""Many at one golden file: eight read it over and over while one records and accepts, and two record it at once.

python -m tests.robust.together --rounds 40
HDF5_USE_FILE_LOCKING=FALSE python -m tests.robust.together --rounds 40
"""

import argparse
import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import GoldensError
from harness.review.command import take
from harness.store.reader import GoldenFile
from harness.whole import alone
from tests.fakes import write_golden
from tests.robust.interrupted import ended, started

READERS = 8


@dataclass
class Tally:
    """wrong: what was found that must not be"""

    read: int = 0
    accepted: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list)


def version(golden: Path) -> str:
    """Which recording is there: every tensor read, and all of one recording."""
    file = GoldenFile.open(golden)
    for row in range(len(file.tensors)):
        file.tensor(row)
    return f"{file.contents.provenance['round']} {file.digest}"


def write(golden: Path, number: int) -> None:
    write_golden(golden, cases=("hello", f"case-{number}"), provenance={"round": number})


def read_on(golden: Path, stop: Path) -> None:
    """Read until `stop` is there. Prints what was read, in order."""
    while not stop.exists():
        print(version(golden), flush=True)
        time.sleep(0.002)


def readers_and_a_writer(folder: Path, rounds: int, tally: Tally) -> None:
    golden, stop = folder / "g.h5", folder / "stop"
    write(golden, 0)
    known = {version(golden)}
    said = [folder / f"reader-{number}" for number in range(READERS)]
    pids = [started(lambda path: read_on(path, stop), golden, said=path) for path in said]
    for number in range(1, rounds + 1):
        with alone(golden, print):
            write(golden.with_name("g.h5.new"), number)
            known.add(version(golden.with_name("g.h5.new")))
        take(golden)
        tally.accepted += 1
    stop.touch()
    for pid, path in zip(pids, said, strict=True):
        failed, lines = ended(pid), path.read_text().splitlines()
        tally.read += len(lines)
        if failed:
            tally.wrong.append(f"a reader failed: {lines[-1:]}")
        elif not lines or set(lines) - known:
            tally.wrong.append(f"a reader saw what nobody wrote: {set(lines) - known}")
        elif (seen := [int(line.split()[0]) for line in lines]) != sorted(seen):
            tally.wrong.append("a reader saw an older recording after a newer one")


def two_writers(folder: Path, rounds: int, tally: Tally) -> None:
    """Both want to record the same golden file: while one does, the other is refused."""
    golden, go = folder / "w.h5", folder / "go"

    def record(path: Path) -> None:
        with alone(path, print):
            while not go.exists():
                time.sleep(0.001)
            write(path, os.getpid())

    for number in range(rounds):
        go.unlink(missing_ok=True)
        said = [folder / f"writer-{number}-{which}" for which in "ab"]
        pids = [started(record, golden, said=path) for path in said]
        while not any(path.exists() and "being recorded" in path.read_text() for path in said):
            time.sleep(0.005)
        go.touch()
        failed = [ended(pid) for pid in pids]
        tally.refused += sum(map(bool, failed))
        winner = pids[failed.index(0)] if 0 in failed else 0
        if sorted(failed) != [0, 1] or not version(golden).startswith(f"{winner} "):
            tally.wrong.append(f"two writers ended with {failed}")
        if left := [path.name for path in folder.iterdir() if "partial" in path.name or "lock" in path.name]:
            tally.wrong.append(f"two writers left {left}")


def refuses(golden: Path) -> str:
    """What a second process is told while this one records."""
    try:
        with alone(golden, print):
            return ""
    except GoldensError as error:
        return str(error)


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    asked.add_argument(
        "--rounds", type=int, default=40, help="recordings that are accepted, and races (default: 40)"
    )
    arguments, tally = asked.parse_args(), Tally()
    with tempfile.TemporaryDirectory() as folder:
        readers_and_a_writer(Path(folder), arguments.rounds, tally)
        two_writers(Path(folder), arguments.rounds, tally)
    print(f"{READERS} readers read {tally.read} times while {tally.accepted} recordings were accepted")
    print(f"of two writers the second was refused {tally.refused} times in {arguments.rounds}")
    print(f"wrong {len(tally.wrong)}", *tally.wrong, sep="\n  ")
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
