"""Whether memory and open files stay what they are while one process records and replays again and again.

    python benchmarks/endurance.py [--rounds 500] [--warm 30] [--minutes M] [SUITE.toml ...]

Each round records the next suite into a folder of its own and replays what was recorded, both of which have to hold.
After the rounds that warm up, in which libraries are imported, programs compiled and pools of memory filled, it prints
resident memory and open files, first, last and most, and the slope of memory by least squares. Exits with 1 where
memory grows by more than --limit KiB a round, or where more files are open at the end.
"""

import argparse
import gc
import os
import sys
import tempfile
import time
from contextlib import redirect_stderr, redirect_stdout
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from harness.cli.app import main as goldens

ROOT = Path(__file__).parents[1]
SUITES = sorted((ROOT / "goldens" / "suites").glob("*.toml"))


def run(*arguments: str) -> None:
    """One command in this process; what it says is left out."""
    sys.argv = ["goldens", *arguments]
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        try:
            goldens()
        except SystemExit as leaving:
            if leaving.code:
                raise SystemExit(f"goldens {' '.join(arguments)} ended with {leaving.code}") from None


def one_round(suite: Path, port: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        golden = str(Path(folder) / f"{suite.stem}.h5")
        run("record", str(suite), "-o", golden)
        run("replay", golden, "--port", port)


def resident() -> float:
    """MiB, with what the collector of garbage would free left out."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("suites", nargs="*", type=Path, default=SUITES)
    parser.add_argument("--rounds", type=int, default=500, help="a recording and its replay each")
    parser.add_argument("--warm", type=int, default=30, help="rounds before anything is measured")
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="end after these, with fewer rounds"
    )
    parser.add_argument("--limit", type=float, default=100.0, help="KiB that memory may grow by in a round")
    parser.add_argument("--port", default="qwen_flax.port:make")
    asked = parser.parse_args()
    measured: list[tuple[float, int, float]] = []
    began = time.monotonic()
    for suite in track(
        list(islice(cycle(asked.suites), asked.warm + asked.rounds)), console=Console(stderr=True)
    ):
        before = time.process_time()
        one_round(suite, asked.port)
        measured.append((resident(), open_files(), time.process_time() - before))
        if time.monotonic() - began > asked.minutes * 60 and len(measured) > asked.warm + 1:
            break
    memory, files, took = (np.array(each) for each in zip(*measured[asked.warm :], strict=True))
    slope = float(np.polyfit(np.arange(len(memory)), memory, 1)[0]) * 1024 if len(memory) > 1 else 0.0
    table = Table(title=f"{len(memory)} rounds of {len(asked.suites)} suites, after {asked.warm}")
    for column in ("", "first", "last", "most"):
        table.add_column(column, justify="right" if column else "left")
    table.add_row("resident memory, MiB", *(f"{x:.1f}" for x in (memory[0], memory[-1], memory.max())))
    table.add_row("open files", *(str(x) for x in (files[0], files[-1], files.max())))
    table.add_row("CPU time of a round, s", *(f"{x:.1f}" for x in (took[0], took[-1], took.max())))
    console = Console()
    console.print(table)
    console.print(f"memory grows by {slope:.1f} KiB a round; {asked.limit:g} are allowed")
    raise SystemExit(int(slope > asked.limit or files[-1] > files[0]))


if __name__ == "__main__":
    main()
