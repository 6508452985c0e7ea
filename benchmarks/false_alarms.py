"""How near do correct ports come to their tolerance? Many prompts, drawn from seeds; two ports that share no code.

    python benchmarks/false_alarms.py [--seeds 200] [CHECKPOINT ...]
    python benchmarks/false_alarms.py --wide 896 --wide 3584 --seeds 12     # single layers of these hidden sizes

A seed decides how many rows there are, how long each is (1 to 24 tokens), where the padding is and at which position
the rows start. Prompts of one or two tokens are the hard ones: a norm over few numbers scatters, and a floor measured
on one token is one sample. Each seed is recorded with one, two or four of PyTorch's threads, which add in other orders.

For every checkpoint, port, dtype and mode this prints how many comparisons were made, the largest error over noise
floor and over limit, where that was, and how many were false alarms. Exits with 1 when there is one.
"""

import argparse
import random
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from floors import wide_checkpoint
from rich.console import Console
from rich.table import Table

from harness.checkpoints import read_config
from harness.errors import GoldensError
from harness.inputs import CaseInputs, Padding, Rows, assemble, draw_rows
from harness.model import Mode, Verdict
from harness.record.keep import parse
from harness.record.recorder import Request, Silent, record
from harness.replay.port import load_port
from harness.replay.session import Session
from harness.report.result import Result
from harness.settings import port_setting
from harness.store.reader import GoldenFile

ROOT = Path(__file__).parent.parent
BUILT_IN = sorted(path.parent for path in ROOT.glob("goldens/checkpoints/*/config.json"))
MODES = (Mode.ISOLATED, Mode.END_TO_END)
THREADS = (1, 2, 4)
SHAPES = ((1, 1), (1, 2), (1, 4), (1, 7), (1, 13), (2, 3), (2, 9), (3, 17), (3, 24))
"""Rows and tokens of a batch. Few, since each costs a compilation; padding makes rows of every length of them."""
STARTS = (0, 0, 3, 250, 4_000, 30_000)


@dataclass
class Tally:
    """What the comparisons of one checkpoint, port, dtype and mode came to."""

    comparisons: int = 0
    over_floor: float = 0.0
    worst: Result | None = None
    alarms: list[Result] = field(default_factory=list)

    def add(self, result: Result) -> None:
        self.comparisons += 1
        if result.verdict is not Verdict.PASS:
            self.alarms.append(result)
        if result.error is not None:
            self.over_floor = max(self.over_floor, result.over_floor)
            if self.worst is None or result.over_limit > self.worst.over_limit:
                self.worst = result


def drawn(seed: int, vocab_size: int) -> CaseInputs:
    """The prompt of a seed. Shapes, and in a batch the sides of padding, come in turn; the rest by lot."""
    batch, length = SHAPES[seed % len(SHAPES)]
    lot = random.Random(seed)
    padding: Padding = lot.choice(("none", "left", "right")) if batch > 1 else "none"
    shortest = length if padding == "none" else lot.randrange(1, length)
    start = lot.choice(STARTS)
    ids = draw_rows(seed, vocab_size, batch, shortest, length, padding)
    detail = f"{batch} x {shortest} to {length} tokens, padding {padding}, from position {start}"
    return assemble(f"seed-{seed}", "randomized", detail, Rows(ids, padding, start), vocab_size)


def tallies(
    checkpoint: Path, seeds: Iterable[int], threads: int, ports: Sequence[str], dtypes: Sequence[str]
) -> Iterator[tuple[str, str, Mode, Result]]:
    """Record the seeds with so many threads, and replay every port: port, dtype, mode and result of each comparison."""
    config = read_config(checkpoint)
    cases = tuple(drawn(seed, int(config["vocab_size"])) for seed in seeds)
    with tempfile.TemporaryDirectory() as where:
        path = Path(where) / "drawn.h5"
        torch.set_num_threads(threads)
        record(
            Request(str(checkpoint), "folder", checkpoint, config, cases, tuple(dtypes), parse([])),
            path,
            Silent(),
        )
        file = GoldenFile.open(path)
        for port in ports:
            for dtype in dtypes:
                made = load_port(port, str(checkpoint), dtype)
                session = Session(file, lambda _, made=made: made)
                for result in session.replay(file.select(dtypes=[dtype]), MODES):
                    yield port, dtype, result.mode, result


def taken(port: str, checkpoint: Path, dtype: str) -> bool:
    """Whether a second port has what this checkpoint asks for; the project's own has to."""
    try:
        load_port(port, str(checkpoint), dtype)
    except GoldensError:
        if port == port_setting(ROOT):
            raise
        return False
    return True


def measure(
    checkpoint: Path, seeds: int, ports: Sequence[str], dtypes: Sequence[str]
) -> dict[tuple[str, str, Mode], Tally]:
    found = {(port, dtype, mode): Tally() for port in ports for dtype in dtypes for mode in MODES}
    for place, threads in enumerate(THREADS[:seeds]):
        # a shape's seeds are spread over the threads: 9 shapes and 3 settings would otherwise go in step
        own = [seed for seed in range(seeds) if seed // len(SHAPES) % len(THREADS) == place]
        if own:
            for *key, result in tallies(checkpoint, own, threads, ports, dtypes):
                found[tuple(key)].add(result)
    return found


def show(name: str, found: dict[tuple[str, str, Mode], Tally], console: Console) -> None:
    table = Table(title=name, title_justify="left", box=None, header_style="dim", pad_edge=False)
    for heading in ("port", "dtype", "mode"):
        table.add_column(heading)
    for heading in ("comparisons", "over floor", "over limit", "alarms"):
        table.add_column(heading, justify="right")
    table.add_column("at")
    for (port, dtype, mode), tally in found.items():
        worst = tally.worst
        table.add_row(
            *(port, dtype, mode, f"{tally.comparisons:,}", f"{tally.over_floor:.2f}"),
            *(f"{worst.over_limit:.2f}" if worst else "-", str(len(tally.alarms))),
            f"{worst.component} ({worst.case})" if worst else "-",
        )
    console.print(table)
    for (port, *_), tally in found.items():
        for result in tally.alarms:
            console.print(
                f"{port} {result.component} {result.case} {result.dtype} {result.mode}: "
                f"{result.over_limit:.3f} x limit {result.reason}",
                style="red",
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoints", nargs="*", type=Path, metavar="CHECKPOINT")
    parser.add_argument("--wide", action="append", type=int, default=[], metavar="HIDDEN")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--port", action="append", metavar="MODULE:FACTORY")
    parser.add_argument("--dtype", action="append", choices=["float32", "bfloat16", "float16"])
    options = parser.parse_args()
    ports = options.port or [port_setting(ROOT), "tests.linen_port:make"]
    dtypes = options.dtype or ["float32", "bfloat16"]
    console = Console(width=150)
    alarms = 0
    with tempfile.TemporaryDirectory() as folder:
        wide = (wide_checkpoint(Path(folder), hidden) for hidden in options.wide)
        named = options.checkpoints or ([] if options.wide else BUILT_IN)
        for checkpoint in (*named, *wide):
            able = [port for port in ports if taken(port, checkpoint, dtypes[0])]
            for port in set(ports) - set(able):
                console.print(f"{checkpoint.name}: {port} does not take it, and is left out", style="yellow")
            found = measure(checkpoint, options.seeds, able, dtypes)
            show(f"{checkpoint.name}, {options.seeds} seeds", found, console)
            alarms += sum(len(tally.alarms) for tally in found.values())
    console.print(f"{alarms} false alarms")
    sys.exit(1 if alarms else 0)


if __name__ == "__main__":
    main()
