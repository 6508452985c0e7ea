"""`goldens diff`, `goldens accept` and `goldens reject` as they are asked for from outside."""

import os
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from rich.console import Console
from rich.prompt import Prompt

from harness.errors import GoldensError
from harness.report.diff import show_diff
from harness.review.changes import Scope
from harness.review.diff import Diff, compare
from harness.review.pending import (
    Policy,
    accept,
    all_pending,
    on_ci,
    pending_of,
    policy,
    refuse_unfit,
    there_is,
)
from harness.review.settle import sized
from harness.store.reader import GoldenFile
from harness.whole import alone

Take = Callable[[Path], str]
"""Does something to the pending recording of a golden file, and says what."""


def diffs(files: Sequence[Path], against: Path | None, scope: Scope) -> list[Diff]:
    """What is asked for: two files, or golden files and what waits beside each. No files: all that wait here."""
    if against is None:
        asked = [(golden, there_is(golden)) for golden in files or all_pending(Path())]
    elif len(files) == 1:
        asked = [(files[0], against)]
    else:
        raise GoldensError("--against holds one golden file against another: name one FILE before it")
    return [compare(GoldenFile.open(old), GoldenFile.open(new), scope) for old, new in asked]


def parse_dtypes(specs: Collection[str]) -> tuple[tuple[str, str], ...]:
    """`float32`, or `float32:bfloat16` for one dtype of the old file and another of the new one."""
    pairs = []
    for spec in specs:
        old, colon, new = spec.partition(":")
        if not old or (colon and not new):
            raise GoldensError(f"--dtype {spec!r} is not understood: write float32, or float32:bfloat16")
        pairs.append((old, new or old))
    return tuple(pairs)


def take(golden: Path) -> str:
    """Accept."""
    with alone(golden, _tell):
        before = _digest(golden)
        found = refuse_unfit(golden)
        accept(golden)
    was = f", before {before}" if before else ""
    return f"{golden}: accepted, {sized(GoldenFile.open(golden))}, digest {found.digest[:12]}{was}"


def drop(golden: Path) -> str:
    """Reject. A damaged recording can be dropped as well."""
    with alone(golden, _tell):
        pending = there_is(golden)
        pending.unlink()
    return f"{golden}: rejected, {pending.name} is gone; the golden file is as it was"


def _digest(golden: Path) -> str:
    try:
        return GoldenFile.open(golden).digest[:12]
    except GoldensError:
        return ""


def review(verb: str, files: Sequence[Path], every: bool, console: Console) -> bool:
    """`goldens accept`, `goldens reject`: of the files named, of all, or of each as is answered.

    All are checked before the first is touched. False if one was skipped, and still waits.
    """
    if files and every:
        raise GoldensError(f"goldens {verb} takes the names of golden files, or --all, and not both")
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    how = policy(bool(files), every, terminal, on_ci(os.environ))
    waiting = list(dict.fromkeys(files)) or all_pending(Path())
    if not waiting:
        console.print("nothing is pending here")
        return True
    if how is Policy.ASK:
        return _one_by_one(waiting, console)
    if how is Policy.REFUSE:
        names = ", ".join(map(str, waiting))
        raise GoldensError(f"nothing is named to {verb}: name golden files, or give --all; pending: {names}")
    for golden in waiting if len(waiting) > 1 else ():  # one by itself is checked when it is taken
        refuse_unfit(golden) if verb == "accept" else there_is(golden)
    for golden in waiting:
        _say((take if verb == "accept" else drop)(golden), console)
    return True


def _one_by_one(waiting: Sequence[Path], console: Console) -> bool:
    """Show each difference and ask what becomes of it. A recording that may not be accepted can be dropped."""
    skipped = 0
    for number, golden in enumerate(waiting, start=1):
        _say(f"\n{number} of {len(waiting)}", console)
        try:
            show_diff(compare(GoldenFile.open(golden), GoldenFile.open(pending_of(golden))), console)
        except GoldensError as error:
            _say(str(error), console)
        skipped += not _answered(golden, console)
    return not skipped


def _answered(golden: Path, console: Console) -> bool:
    answer = Prompt.ask(
        f"{golden}: accept (a), reject (r) or skip (s)?",
        choices=["a", "r", "s"],
        default="s",
        console=console,
        show_choices=False,
    )
    actions: dict[str, Take] = {"a": take, "r": drop}
    if answer not in actions:
        return False
    try:
        _say(actions[answer](golden), console)
    except GoldensError as error:
        _say(str(error), console)
        return False
    return True


def _tell(line: str) -> None:
    _say(line, Console(stderr=True))


def _say(line: str, console: Console) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)
