"""How long isolated replay of every component takes, beside one forward pass and reading goldens and weights once.

    python benchmarks/replay.py GOLDEN.h5 [--port MODULE:FACTORY] [--checkpoint DIR] [--dtype float32] [--rounds 5]

The baseline is what cannot be done without: a jitted forward pass over every case, compiled before, that hands out the
logits, and plain reads of the golden file and of the checkpoint. It has the parameters in memory. A port that is made
anew has not, nor has a script that is started for one forward pass: `from the start` is the same with the checkpoint
read into parameters of the port's dtype, in place of the plain read. All are timed in turns, in one run:

  cold    a port made anew, an empty cache of compilations; once, with what was compiled
  warm    a port made anew, which reads its weights and is traced; what it compiles is in the cache
  again   the same port, the golden file opened anew, so that every payload is hashed again

Then what replays are made of, each by itself: payloads hashed, components run, verdicts found, a port made, its
parameters read. What `warm` takes beyond them is tracing, and reading what was compiled.

Compilations are counted for the first two layers alone, and for all of them.
"""

import argparse
import logging
import re
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental.compilation_cache.compilation_cache import reset_cache
from rich.console import Console
from rich.table import Table

from harness.compare.files import places
from harness.compare.judge import judge
from harness.model import Golden, Mode, Verdict
from harness.replay.port import TRACE_INPUTS
from harness.replay.session import Session, checked_factory, checkpoint_folder
from harness.store.reader import GoldenFile


class Time(NamedTuple):
    """Seconds that passed, and those that processors worked."""

    wall: float
    work: float

    @classmethod
    def now(cls) -> "Time":
        return cls(time.perf_counter(), time.process_time())

    def since(self, start: "Time") -> "Time":
        return Time(self.wall - start.wall, self.work - start.work)


class Asked:
    """What is replayed, and how it is read."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._path, self._dtype = options.golden, options.dtype
        file = GoldenFile.open(self._path)
        self._make = checked_factory(file, options.port, options.checkpoint)
        self.weights = [*checkpoint_folder(file, options.checkpoint).glob("*.safetensors")]
        self.goldens = [
            golden for golden in file.select(dtypes=(self._dtype,)) if golden.isolated is not None
        ]
        self.cases = {
            case: {name: file.case_inputs(case)[name] for name in TRACE_INPUTS}
            for case in dict.fromkeys(golden.case for golden in self.goldens)
        }
        self.shapes = {
            (
                golden.component.rpartition(".")[2],
                *(file.tensors[row].shape for row in golden.inputs.values()),
            )
            for golden in self.goldens
        }

    def session(self) -> Session:
        return Session(GoldenFile.open(self._path), self._make)

    def replay(self, session: Session, goldens: Sequence[Golden] | None = None) -> None:
        for result in session.replay(goldens or self.goldens, [Mode.ISOLATED]):
            assert result.verdict is Verdict.PASS, result

    def again(self, session: Session) -> None:
        session.file = GoldenFile.open(self._path)
        self.replay(session)

    def forward(self, session: Session) -> None:
        for inputs in self.cases.values():
            np.asarray(session.port(self._dtype).trace(inputs, ("lm_head",))["lm_head"])

    def read_goldens(self) -> None:
        read(Path(self._path))

    def read_weights(self) -> None:
        read(*self.weights)

    def hash(self) -> None:
        file = GoldenFile.open(self._path)
        for golden in self.goldens:
            file.inputs(golden), file.output(golden)

    def compare(self, session: Session) -> tuple[Time, Time]:
        """All components run, and all verdicts found, one after the other: nothing is overlapped."""
        file, port = session.file, session.port(self._dtype)
        components, verdicts = [], []
        for golden in self.goldens:
            component, recorded, where = (
                file.component(golden.component),
                file.output(golden),
                places(file, golden),
            )
            start = Time.now()
            value = np.asarray(port.apply(component.name, file.inputs(golden))[component.name])
            there = Time.now()
            judge(component, golden, Mode.ISOLATED, value, recorded, where)
            components.append(there.since(start))
            verdicts.append(Time.now().since(there))
        return total(components), total(verdicts)

    def parts(self, kept: Session) -> dict[str, Time]:
        """What replays are made of, each by itself. kept: one whose payloads are hashed already."""
        components, verdicts = self.compare(kept)
        made = timed(self._make, self._dtype)
        port = self._make(self._dtype)
        return {
            "payloads hashed": timed(self.hash),
            "components run": components,
            "verdicts found": verdicts,
            "a port made": made,
            "parameters read": timed(lambda: [value.nbytes for value in port.parameters().values()]),
        }

    def of_layers(self, count: int) -> list[Golden]:
        """The goldens of the first layers, and of what is in none."""
        layers = re.compile(r"layers\.(\d+)\.")
        found = ((golden, layers.match(golden.component)) for golden in self.goldens)
        return [golden for golden, layer in found if layer is None or int(layer[1]) < count]


def read(*paths: Path) -> None:
    buffer = bytearray(1 << 24)
    for path in paths:
        with path.open("rb", buffering=0) as stream:
            while stream.readinto(buffer):
                pass


def timed(task: Callable[..., Any], *arguments: Any) -> Time:
    start = Time.now()
    task(*arguments)
    return Time.now().since(start)


def total(times: Iterable[Time]) -> Time:
    return Time(*(sum(column) for column in zip(*times, strict=True)))


@contextmanager
def compilations() -> Iterator[Counter[str]]:
    """What is compiled meanwhile, by the name of the function."""
    found: Counter[str] = Counter()

    class Counting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            compiled = re.match(r"Compiling (\S+)", record.getMessage())
            if compiled:
                found[compiled[1]] += 1

    logger, handler = logging.getLogger("jax"), Counting()
    logger.addHandler(handler)
    before, logger.propagate = logger.propagate, False
    try:
        with jax.log_compiles():
            yield found
    finally:
        logger.removeHandler(handler)
        logger.propagate = before


def count(asked: Asked, goldens: Sequence[Golden], folder: str) -> tuple[Counter[str], Time]:
    """Replay with an empty cache."""
    reset_cache()
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    with compilations() as found:
        spent = timed(lambda: asked.replay(asked.session(), goldens))
    return found, spent


def median(times: Sequence[Time]) -> Time:
    return Time(*(statistics.median(column) for column in zip(*times, strict=True)))


def measure(asked: Asked, rounds: int) -> dict[str, Time]:
    """Medians, everything in turns."""
    kept = asked.session()
    asked.replay(kept)
    asked.forward(kept)
    tasks: dict[str, Callable[[], Any]] = {
        "forward passes": lambda: asked.forward(kept),
        "goldens read": asked.read_goldens,
        "weights read": asked.read_weights,
        "warm": lambda: asked.replay(asked.session()),
        "again": lambda: asked.again(kept),
    }
    times: dict[str, list[Time]] = {}
    for _ in range(rounds):
        found = {name: timed(task) for name, task in tasks.items()} | asked.parts(kept)
        for name, spent in found.items():
            times.setdefault(name, []).append(spent)
    return {name: median(each) for name, each in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("golden")
    parser.add_argument("--port", default="qwen_flax.port:make")
    parser.add_argument("--checkpoint")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=5, help="of each, in turns")
    options = parser.parse_args()
    asked, console = Asked(options), Console(width=120)
    with tempfile.TemporaryDirectory() as two, tempfile.TemporaryDirectory() as every:
        few, _ = count(asked, asked.of_layers(2), two)
        compiled, cold = count(asked, asked.goldens, every)
        for layers, found in (("2 layers", few), ("all layers", compiled)):
            told = ", ".join(f"{name} {n}" for name, n in found.most_common())
            console.print(f"compiled for {layers}: {told} (kinds and shapes: {len(asked.shapes)})")
        found = measure(asked, options.rounds)
    passes = found["forward passes"], found["goldens read"]
    baselines = {
        "baseline": total((*passes, found["weights read"])),
        "from the start": total((*passes, found["parameters read"])),
    }
    title = f"{len(asked.goldens)} comparisons of {len(asked.cases)} cases, medians of {options.rounds}"
    table = Table(title=title)
    for column in ("", "seconds", "of CPU", "/ baseline", "of CPU", "/ from the start", "of CPU"):
        table.add_column(column, justify="right" if column else "left")
    for name, each in {**found, **baselines, "cold": cold}.items():
        ratios = [f"{a / b:.2f}" for base in baselines.values() for a, b in zip(each, base, strict=True)]
        table.add_row(name, *(f"{seconds:.2f}" for seconds in each), *ratios)
    console.print(table)


if __name__ == "__main__":
    main()
