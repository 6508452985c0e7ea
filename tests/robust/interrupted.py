"""Recording and accepting, ended by `kill -9` at any moment: nothing incomplete opens, and nothing is lost.

    python -m tests.robust.interrupted --kills 200 --commands 20 --seed 1

A moment is a call of a function: the process that records counts them, and kills itself at a random one. With
--commands, `goldens record` runs as it is, every other pair of times with --resume, and is killed by the clock.
"""

import argparse
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from rich.console import Console

from harness.review.command import take
from harness.review.pending import pending_of
from harness.review.settle import recording, settle
from harness.store.parts import Parts, found, remove
from harness.store.reader import GoldenFile
from harness.store.writer import GoldenWriter
from harness.whole import left_over, parts_of
from tests.fakes import join, write_golden

Action = Callable[[Path], object]
CASES = ("hello", "again")
OLD, NEW = {"recorded_at": "2030-01-01"}, {"recorded_at": "2031-01-01", "versions": {"torch": "9"}}


def record(golden: Path) -> None:
    """As `goldens record` does it, from a reference that is quick."""
    with recording(golden, {}, print) as old:
        write_golden(pending_of(golden), cases=CASES, provenance=NEW)
        settle(old, golden, Console(quiet=True))


def resume(golden: Path) -> None:
    """As `goldens record --resume` does it."""
    with recording(golden, {}, print) as old:
        parts = Parts(parts_of(golden), print)
        parts.take_over({case: {"case": case} for case in CASES})
        with GoldenWriter(pending_of(golden)) as writer:
            writer.finish(join(writer, parts, CASES, NEW))
        settle(old, golden, Console(quiet=True))
        remove(parts.folder)


@dataclass
class Tally:
    """wrong: what was found that must not be; left: how often something was left over, all of it cleaned later

    resumed: how often a part was there that a later run used
    """

    tried: Counter[str] = field(default_factory=Counter)
    killed: Counter[str] = field(default_factory=Counter)
    left: int = 0
    cleaned: int = 0
    resumed: int = 0
    wrong: list[str] = field(default_factory=list)


def started(action: Action, golden: Path, at: int | None = None, said: Path | None = None) -> int:
    """Run `action` in a copy of this process, which kills itself at the call of that number. Returns its pid."""
    pid = os.fork()
    if pid:
        return pid
    try:
        told = os.open(said or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(told, 1), os.dup2(told, 2)
        if at is not None:
            sys.setprofile(_killer(at))
        action(golden)
        sys.setprofile(None)
        sys.stdout.flush()
        os._exit(0)
    except BaseException as error:
        sys.setprofile(None)
        print(f"{type(error).__name__}: {error}", flush=True)
        os._exit(1)


def _killer(at: int) -> Callable[[object, str, object], None]:
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")
        if calls >= at:
            os.kill(os.getpid(), signal.SIGKILL)

    return count


def ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def calls_of(action: Action, golden: Path) -> int:
    """How many moments an action has, when all that it imports is there."""
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        action(golden)
    finally:
        sys.setprofile(None)
    return calls


def prepare(folder: Path, what: str) -> Path:
    """A folder as it is before: with the old golden file, a new recording, both or nothing."""
    shutil.rmtree(folder)
    folder.mkdir()
    golden = folder / "g.h5"
    if what in ("again", "accept"):
        write_golden(golden, provenance=OLD)
    if what == "accept":
        write_golden(pending_of(golden), cases=CASES, provenance=NEW)
    return golden


ACTIONS: dict[str, Action] = {"first": record, "again": record, "accept": take, "resume": resume}


def interrupt(folder: Path, kills: int, seed: int, told: Callable[[int], None] = lambda done: None) -> Tally:
    """Try so many moments of recording for the first time, again, and with --resume, and of accepting."""
    draw, tally = random.Random(seed), Tally()
    expected = _expected(folder)
    for what, action in ACTIONS.items():
        action(prepare(folder, what))
    moments = {what: calls_of(action, prepare(folder, what)) for what, action in ACTIONS.items()}
    for number in range(kills):
        what = list(ACTIONS)[number % len(ACTIONS)]
        golden = prepare(folder, what)
        count = moments[what]
        at = draw.randrange(1, count) if draw.random() < 0.5 else count - draw.randrange(min(count, 150))
        tally.tried[what] += 1
        tally.killed[what] += ended(started(ACTIONS[what], golden, at)) == -signal.SIGKILL
        check(golden, what, expected, tally)
        if what == "resume":
            go_on(golden, expected["new"], tally, folder)
        else:
            clean(golden, what, tally, folder)
        told(number)
    return tally


def _expected(folder: Path) -> dict[str, bytes]:
    golden = prepare(folder, "accept")
    return {"old": golden.read_bytes(), "new": golden.with_name("g.h5.new").read_bytes()}


def check(golden: Path, what: str, expected: dict[str, bytes], tally: Tally) -> None:
    """Nothing is incomplete, and nothing is lost."""
    pending = golden.with_name("g.h5.new")
    there = {path: path.read_bytes() for path in (golden, pending) if path.exists()}
    for path, content in there.items():
        if content not in expected.values():
            tally.wrong.append(f"{what}: {path.name} is incomplete")
    held = (there.get(golden), there.get(pending))
    old, new = expected["old"], expected["new"]
    allowed = {
        "first": [(None, None), (None, new), (new, None)],
        "again": [(old, None), (old, new)],
        "accept": [(old, new), (new, None)],
        "resume": [(None, None), (None, new), (new, None)],
    }
    if held not in allowed[what]:
        tally.wrong.append(f"{what}: something is lost")


def go_on(golden: Path, new: bytes, tally: Tally, folder: Path) -> None:
    """Parts are whole, and the next run with --resume uses them and leaves nothing but the golden file."""
    parts, left, said = found(parts_of(golden)), left_over(golden), folder / "said"
    _read(parts)
    tally.left += bool(left)
    if ended(started(resume, golden, said=said)):
        tally.wrong.append(f"resume: the next run fails: {said.read_text()}")
        return
    told = said.read_text()
    tally.cleaned += bool(left) and all(str(path) in told for path in left)
    tally.resumed += bool(parts) and f"resumed: {len(parts)} of {len(CASES)} parts were there" in told
    if golden.read_bytes() != new:
        tally.wrong.append("resume: it is another golden file")
    if rest := {path.name for path in folder.iterdir()} - {"g.h5", "said"}:
        tally.wrong.append(f"resume: {rest} stays")


def _read(paths: Iterable[Path]) -> None:
    """Every tensor; raises GoldensError for a file that is not whole."""
    for path in paths:
        file = GoldenFile.open(path)
        _ = [file.tensor(row) for row in range(len(file.tensors))]


def clean(golden: Path, what: str, tally: Tally, folder: Path) -> None:
    """The next run removes what is left over, says so, and does what it is asked for."""
    left = left_over(golden)
    tally.left += bool(left)
    said = folder / "said"
    if left and ended(started(record, golden, said=said)):
        tally.wrong.append(f"{what}: the next run fails: {said.read_text()}")
    elif left:
        told = all(str(path) in said.read_text() for path in left)
        tally.cleaned += told and not left_over(golden)
        GoldenFile.open(golden)
    rest = {path.name for path in folder.iterdir()} - {"g.h5", "g.h5.new", "said", ".g.h5.lock"}
    if left and rest:
        tally.wrong.append(f"{what}: {rest} stays")


def commands(folder: Path, kills: int, seed: int, tally: Tally) -> None:
    """`goldens record` of a built-in suite, with --resume and without, killed by the clock."""
    from harness.record.command import Asked
    from harness.record.command import record as command

    suite = Path(__file__).parents[2] / "goldens/suites/qwen2-dynamic.toml"

    def run(golden: Path, resuming: bool = False) -> object:
        return command(Asked(suite, None, golden, dtypes=(), keep=(), cases=(), resume=resuming))

    draw, golden, said = random.Random(seed), prepare(folder, "first"), folder / "said"
    began = time.monotonic()
    if status := ended(started(run, golden, said=said)):
        raise SystemExit(f"goldens record ended with {status}: {said.read_text()}")
    seconds, whole, digest = time.monotonic() - began, golden.read_bytes(), GoldenFile.open(golden).digest
    left: set[Path] = set()
    for number in range(kills):
        golden.unlink(missing_ok=True)
        again, resuming = bool(number % 2), bool(number // 2 % 2)
        if again:
            golden.write_bytes(whole)
        pid = started(partial(run, resuming=resuming), golden, said=said)
        time.sleep(draw.uniform(0, 1.05 * seconds))
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        what = "command --resume" if resuming else "command"
        tally.tried[what] += 1
        tally.killed[what] += ended(pid) == -signal.SIGKILL
        if again and golden.read_bytes() != whole:
            tally.wrong.append(f"{what}: the old golden file is lost")
        _read([*filter(Path.exists, (golden, pending_of(golden))), *found(parts_of(golden))])
        left |= set(left_over(golden))
    golden.unlink(missing_ok=True)
    if (
        ended(started(partial(run, resuming=True), golden, said=said))
        or GoldenFile.open(golden).digest != digest
    ):
        tally.wrong.append("command --resume: what is joined in the end is another golden file")
    tally.left += len(left)
    tally.cleaned += sum(str(path) in said.read_text() and not path.exists() for path in left)
    tally.resumed += len(re.findall(r"resumed: [1-9]", said.read_text()))


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    asked.add_argument("--kills", type=int, default=200, help="of recording and accepting (default: 200)")
    asked.add_argument(
        "--commands", type=int, default=0, help="of `goldens record`, with PyTorch (default: none)"
    )
    asked.add_argument("--seed", type=int, default=1)
    arguments = asked.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tally = interrupt(Path(folder), arguments.kills, arguments.seed)
        if arguments.commands:
            commands(Path(folder), arguments.commands, arguments.seed, tally)
    for what, tried in tally.tried.items():
        print(f"{what}: tried {tried}, killed before the end {tally.killed[what]}")
    print(f"left something over {tally.left} times, cleaned and told {tally.cleaned} times")
    print(f"parts that were there were used {tally.resumed} times")
    print(f"incomplete or lost {len(tally.wrong)}", *tally.wrong, sep="\n  ")
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
