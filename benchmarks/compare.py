"""How long a verdict takes, beside `np.testing.assert_allclose` on the same arrays and beside reading them once.

    python benchmarks/compare.py [--rounds 9]

About 100 MB of goldens, as many tensors as that takes in the shapes that goldens have, and as much of a port that is
right: within what rounding explains. All three are timed in turns, so that what else the machine does falls on all of
them alike. Prints the medians, the median of the ratios (of time, and of CPU time of all threads together, which a
busy machine disturbs less), and the most memory that a verdict took beside the tensors.
"""

import argparse
import statistics
import time
import tracemalloc
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from rich.console import Console
from rich.table import Table

from harness.compare.judge import judge
from harness.compare.metrics import Places
from harness.model import UNIT_ROUNDOFF, Component, Floor, Golden, Mode, Verdict, Views

Array = Any

ELEMENTS = 25_000_000
DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}


class Kind(NamedTuple):
    name: str
    axes: str
    shape: tuple[int, ...]


KINDS = (
    Kind("hidden", "B T C", (1, 512, 896)),
    Kind("hidden, one", "B T C", (1, 27_904, 896)),
    Kind("heads", "B H T D", (1, 14, 512, 64)),
    Kind("scores", "B H T S", (1, 14, 512, 512)),
    Kind("logits", "B T V", (1, 128, 151_936)),
)


class Time(NamedTuple):
    """Seconds that passed, and those that processors worked: all threads together."""

    wall: float
    work: float


class Times(NamedTuple):
    """Of one round."""

    judge: Time
    allclose: Time
    read: Time


class Work:
    """Tensors of a kind, of which the golden and the port's differ by a rounding."""

    def __init__(self, kind: Kind, dtype: str) -> None:
        self.kind, self.dtype, self.roundoff = kind, dtype, UNIT_ROUNDOFF[dtype]
        count = max(1, round(ELEMENTS / np.prod(kind.shape)))
        self.pairs = [self._pair(np.random.default_rng(seed)) for seed in range(count)]
        tokens = kind.shape[kind.axes.split().index("T")]
        self._places = Places(np.ones((1, tokens), bool), np.ones((1, kind.shape[-1]), bool))

    def _pair(self, random: np.random.Generator) -> tuple[Array, Array]:
        golden = random.standard_normal(self.kind.shape, dtype=np.float32)
        noise = random.standard_normal(self.kind.shape, dtype=np.float32)
        port = golden + np.float32(self.roundoff) * golden * noise
        return port.astype(DTYPES[self.dtype]), golden.astype(DTYPES[self.dtype])

    def judge(self) -> None:
        views = Views(self.roundoff, self.roundoff, self.roundoff)
        floor = Floor(views, views)
        component = Component("component", "kind", self.kind.axes)
        golden = Golden("component", "case", self.dtype, 0, {}, floor, floor)
        for port, recorded in self.pairs:
            result = judge(component, golden, Mode.ISOLATED, port, recorded, self._places)
            assert result.verdict is Verdict.PASS, result

    def allclose(self) -> None:
        for port, recorded in self.pairs:
            np.testing.assert_allclose(port, recorded, rtol=16 * self.roundoff)

    def read(self) -> None:
        """As words of 64 bits, whatever they hold."""
        for pair in self.pairs:
            for array in pair:
                np.bitwise_or.reduce(array.view(np.uint64), axis=None)

    def round(self) -> Times:
        return Times(*(_time(task) for task in (self.judge, self.allclose, self.read)))

    def memory(self) -> int:
        """Bytes that a verdict takes at most beside the tensors, over all of them."""
        tracemalloc.start()
        self.judge()
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most


def _time(task: Callable[[], None]) -> Time:
    start, work = time.perf_counter(), time.process_time()
    task()
    return Time(time.perf_counter() - start, time.process_time() - work)


def row(work: Work, rounds: int) -> list[str]:
    work.round()  # fills caches, starts threads
    times = [work.round() for _ in range(rounds)]
    judged, allclose, read = (
        1000 * statistics.median(each.wall for each in column) for column in zip(*times, strict=True)
    )
    return [
        f"{len(work.pairs)} x {work.kind.name} {work.kind.shape}",
        work.dtype,
        f"{judged:.0f}",
        f"{allclose:.0f}",
        f"{read:.0f}",
        f"{statistics.median(each.allclose.wall / each.judge.wall for each in times):.1f}",
        f"{statistics.median(each.allclose.work / each.judge.work for each in times):.1f}",
        f"{statistics.median(each.judge.wall / each.read.wall for each in times):.1f}",
        f"{work.memory() / 1e6:.1f} of {2 * sum(golden.nbytes for _, golden in work.pairs) / 1e6:.0f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="of each, in turns (at least 5)")
    rounds = max(5, parser.parse_args().rounds)
    table = Table(title=f"25 million elements, medians of {rounds} rounds in turns")
    for column in ("tensors", "dtype"):
        table.add_column(column)
    for column in (
        "judge, ms",
        "allclose, ms",
        "read, ms",
        "allclose / judge",
        "of CPU",
        "judge / read",
        "extra MB",
    ):
        table.add_column(column, justify="right")
    for dtype in DTYPES:
        for kind in KINDS:
            table.add_row(*row(Work(kind, dtype), rounds))
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
