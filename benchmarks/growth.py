"""Do recording, isolated replay and the HTML report grow as the model does?

    python benchmarks/growth.py [--layers 6 24 64] [--tokens 64 512 2048] [--rounds 5]

Checkpoints are written with random weights that show faults (benchmarks/large.py): of a hidden size of 128, with one
case of 2 x 64 tokens and more and more layers, and with two layers and two heads and more and more tokens. Each
measurement is a process of its own, and each number the median of all rounds: CPU time of all threads, wall time, and
the most memory that was resident, pages of mapped files apart.

Starting Python and loading libraries takes as long for all, so that costs are not divided by each other: what each
further layer, or each further thousand tokens of a row, costs is, and "grows" is the last of these over the first. 1.0
is linear. Scores and probabilities grow with the square of the tokens: their share of the bytes is beside it.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import large
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from harness.checkpoints import read_config
from harness.record.recorder import Request, Silent, record
from harness.store.reader import GoldenFile

VOCABULARY = 512


class Cost(NamedTuple):
    """Seconds, and bytes: resident at most, and of what was written."""

    work: float
    wall: float
    memory: float
    written: float


class Model(NamedTuple):
    """What grows: `size` is its layers or its tokens."""

    size: int
    layers: int
    tokens: int


def models(layers: list[int], tokens: list[int]) -> dict[str, list[Model]]:
    return {
        "layers": [Model(count, count, 64) for count in layers],
        "tokens": [Model(length, 2, length) for length in tokens],
    }


def recorded(folder: Path, output: Path, tokens: int) -> None:
    """What a process that records does."""
    request = Request(
        checkpoint=str(folder), origin="folder", folder=folder, config=read_config(folder),
        cases=large.cases(1, tokens, VOCABULARY), dtypes=("float32",), keep=large.parse([]),
    )  # fmt: skip
    record(request, output, Silent())


def steps(folder: Path, model: Model) -> Iterator[tuple[str, list[str], Path]]:
    """What is measured: its name, the command, and what that writes."""
    golden, run, page = (folder / name for name in ("golden.h5", "run.json", "run.html"))
    checkpoint, goldens = str(folder / "checkpoint"), [sys.executable, "-m", "harness.cli"]
    options = ["--checkpoint", checkpoint, "--port", "qwen_flax.port:make", "--mode", "isolated", "--json"]
    yield "record", [sys.executable, __file__, "--record", checkpoint, str(golden), str(model.tokens)], golden
    yield "replay", [*goldens, "replay", str(golden), *options], run
    yield "html", [*goldens, "report", str(run), "-o", str(page)], page


def measured(command: list[str], written: Path) -> Cost:
    written.unlink(missing_ok=True)
    start = time.perf_counter()
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as told:
        child = subprocess.Popen(command, stdout=said, stderr=told, cwd=large.ROOT)
        with large.Memory(child.pid) as memory:
            _, status, used = os.wait4(child.pid, 0)
        wall = time.perf_counter() - start
        if status:
            told.seek(0)
            sys.exit(f"{' '.join(command)} failed:\n{told.read().decode()}")
        if not written.exists():
            said.seek(0)
            written.write_bytes(said.read())
    return Cost(used.ru_utime + used.ru_stime, wall, memory.most, written.stat().st_size)


def quadratic(golden: Path) -> float:
    """The share of bytes of scores and probabilities."""
    file = GoldenFile.open(golden)
    names = {component.name for component in file.contents.components if component.axes == "B H T S"}
    sizes = {
        golden.output: (file.tensors[golden.output].nbytes, golden.component in names)
        for golden in file.contents.goldens
    }
    return sum(size for size, grows in sizes.values() if grows) / sum(size for size, _ in sizes.values())


def costs(
    model: Model, heads: int, rounds: int, done: Callable[[str], None]
) -> tuple[dict[str, Cost], float]:
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        spec = large.qwen2(model.layers, 128, 512, heads, heads // 2, VOCABULARY)
        large.write_checkpoint(folder / "checkpoint", spec)
        found: dict[str, list[Cost]] = {}
        for _ in range(rounds):
            for name, command, written in steps(folder, model):
                found.setdefault(name, []).append(measured(command, written))
                done(name)
        share = quadratic(folder / "golden.h5")
    middle = {name: Cost(*map(statistics.median, zip(*each, strict=True))) for name, each in found.items()}
    return middle, share


def table(grown: str, found: list[tuple[Model, dict[str, Cost], float]]) -> Table:
    unit = 1 if grown == "layers" else 1000
    shown = Table(
        grown, "", "CPU, s", "wall, s", "memory, MB", "written, MB", f"CPU, s / {unit} more", "MB / more",
        "grows", "in MB", "scores", box=None,
    )  # fmt: skip
    for name in found[0][1]:
        slopes = [_slope(a, b, name, unit) for a, b in pairwise(found)]
        for number, (model, cost, share) in enumerate(found):
            its, more = cost[name], ["", "", "", ""]
            if number:
                more[:2] = (f"{slope:.3g}" for slope in slopes[number - 1])
            if number > 1:
                more[2:] = (f"{last / first:.2f}" for last, first in zip(slopes[-1], slopes[0], strict=True))
            shown.add_row(
                str(model.size), name, f"{its.work:.1f}", f"{its.wall:.1f}", f"{its.memory / 1e6:.0f}",
                f"{its.written / 1e6:.2f}", *more, f"{share:.0%}" if name == "record" else "",
            )  # fmt: skip
    return shown


def _slope(
    a: tuple[Model, dict[str, Cost], float], b: tuple[Model, dict[str, Cost], float], name: str, unit: int
) -> tuple[float, float]:
    """CPU seconds, and megabytes written, for so many more."""
    more = (b[0].size - a[0].size) / unit
    return (b[1][name].work - a[1][name].work) / more, (b[1][name].written - a[1][name].written) / 1e6 / more


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, nargs="+", default=[6, 24, 64])
    parser.add_argument("--tokens", type=int, nargs="+", default=[64, 512, 2048])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--record", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.record:
        folder, output, tokens = asked.record
        recorded(Path(folder), Path(output), int(tokens))
        return
    console = Console(highlight=False, width=140)
    with Progress(console=Console(stderr=True)) as progress:
        grow = models(asked.layers, asked.tokens)
        task = progress.add_task("", total=3 * asked.rounds * sum(map(len, grow.values())))
        for grown, those in grow.items():
            found = []
            for model in those:
                heads = 8 if grown == "layers" else 2

                def done(name: str, said: str = f"{model.size} {grown}") -> None:
                    progress.update(task, advance=1, description=f"{said} {name}")

                found.append((model, *costs(model, heads, asked.rounds, done)))
            console.print(table(grown, found))


if __name__ == "__main__":
    main()
