"""How golden files hold against damage, and against somebody who knows the format.

    python -m tests.robust.damaged --files 10000 --seed 1

Half of the files have bytes changed and nothing else. In the other half every digest and checksum holds: bytes of
HDF5's bookkeeping are changed, there is nonsense in the index, or what HDF5 can do and a golden file must not.
Each file is opened, read whole and verified in a process of its own. What is refused, is refused by one sentence; what
is read, is read as it was.
"""

import argparse
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.fakes import write_golden
from tests.robust import hdf5_changed, index_changed
from tests.robust.bytes_changed import Base, damaged, forged
from tests.robust.readers import Outcome, Reader
from tests.robust.rebuilt import with_hdf5, with_index


@dataclass
class Tally:
    """How files fared, by what was done to them. wrong: seed of each that was neither refused nor read as it was"""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    wrong: list[tuple[int, str, Outcome]] = field(default_factory=list)
    taken_along: int = 0


def fuzz(folder: Path, files: int, seed: int, told: Callable[[int], None] = lambda done: None) -> Tally:
    """Try so many files; the one of number n is the same in every run with this seed."""
    bases = _bases(folder)
    reader, tally = Reader(), Tally()
    whole = {path: reader.read(path) for path in bases}
    for number in range(files):
        draw = random.Random(seed * 1_000_000 + number)
        path = draw.choices(list(bases), (4, 1))[0]
        target = folder / "changed.h5"
        kind = _change(draw, number, path, bases[path], target)
        outcome = reader.read(target)
        fate = "refused" if outcome.refused else "the same" if outcome == whole[path] else "wrong"
        if outcome.refused and not _one_sentence(outcome.said):
            fate = "wrong"
        if fate == "wrong":
            tally.wrong.append((number, kind, outcome))
        tally.counts[kind, fate] += 1
        told(number)
    reader.close()
    tally.taken_along = reader.taken_along
    return tally


def _bases(folder: Path) -> dict[Path, Base]:
    """A small golden file, and one with so many cases that HDF5 keeps their names in a heap."""
    plain, dense = folder / "plain.h5", folder / "dense.h5"
    write_golden(plain)
    write_golden(dense, cases=("hello", *(f"case-{number}" for number in range(9))))
    return {path: Base(path.read_bytes()) for path in (plain, dense)}


def _change(draw: random.Random, number: int, path: Path, base: Base, target: Path) -> str:
    if number % 2 == 0:
        kind, content = damaged(draw, base)
        target.write_bytes(content)
        return kind
    how = draw.choices(("bytes", "index", "hdf5"), (5, 3, 2))[0]
    if how == "bytes":
        kind, content = forged(draw, base)
        target.write_bytes(content)
        return kind
    if how == "index":
        with_index(path, target, lambda index: draw.choice(index_changed.CHANGES)(draw, index))
        return "index, digests recomputed"
    with_hdf5(path, target, lambda file: hdf5_changed.changed(draw, file))
    return "hdf5, digests recomputed"


def _one_sentence(said: str) -> bool:
    return bool(said) and said.isprintable() and "Traceback" not in said


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    asked.add_argument("--files", type=int, default=10_000, help="how many (default: 10000)")
    asked.add_argument("--seed", type=int, default=1)
    arguments = asked.parse_args()
    errors = Console(stderr=True)
    with tempfile.TemporaryDirectory() as folder:
        tally = fuzz(
            Path(folder),
            arguments.files,
            arguments.seed,
            lambda done: errors.print(f"{done} files") if done and done % 1000 == 0 else None,
        )
    _show(tally, arguments.seed, Console())
    return 1 if tally.wrong else 0


def _show(tally: Tally, seed: int, console: Console) -> None:
    fates = ("refused", "the same", "wrong")
    table = Table("what was changed", *fates, title=f"{tally.counts.total()} files, seed {seed}")
    kinds = Counter[tuple[str, str]]()
    for (kind, fate), count in tally.counts.items():
        kinds[kind.split(":")[0], fate] += count
    for kind in sorted({kind for kind, _ in kinds}):
        table.add_row(kind, *(str(kinds[kind, fate]) for fate in fates))
    totals = [sum(count for (_, each), count in kinds.items() if each == fate) for fate in fates]
    table.add_row("all", *map(str, totals))
    console.print(table)
    crashed = sum(outcome.what in ("crashed", "hung", "memory") for _, _, outcome in tally.wrong)
    console.print(
        f"tried {tally.counts.total()}, refused {totals[0]}, crashed or hung {crashed}, wrong {totals[2]}"
    )
    console.print(f"HDF5 died or hung {tally.taken_along} times, in the process that verify gives it")
    for number, kind, outcome in tally.wrong:
        console.print(f"{number}: {kind}: {outcome}", markup=False)


if __name__ == "__main__":
    sys.exit(main())
