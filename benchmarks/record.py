"""What does recording cost, beside running the model and saving as many bytes?

    python benchmarks/record.py CHECKPOINT [--dtype float32] [--rows 2] [--tokens 128] [--rounds 5] [--quick]

One case of ROWS x TOKENS tokens, all components. In every round, in turns, and as medians of all rounds:
    forward     the plain forward pass, without a cache
    saved       that, and `torch.save` of as many bytes as are recorded
    proved      recorded without floors: the pass watched, every component proved bit-equal, written and hashed
    recorded    recorded as `goldens record` does, with floors
A golden file without floors judges nothing, so there is no option for it: this script leaves them out. Loading and
hashing the checkpoint is no part of it. CPU is the CPU time of all threads, which a busy machine disturbs less.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from harness.checkpoints import resolve
from harness.compare.tolerance import NOTHING
from harness.inputs import CaseInputs
from harness.model import Floor
from harness.record import recorder, reference
from harness.record.discover import discover
from harness.record.floors import Floors
from harness.record.keep import Keep
from harness.record.recorder import Recorder, Silent, write_case
from harness.store.writer import GoldenWriter


class WithoutFloors:
    """In place of `Evaluations`."""

    def __init__(self, decoder: Any, components: Any, cases: list[Any], depth: Any) -> None:
        self._cases = len(cases)

    def of(self, component: Any) -> list[Floors]:
        return [Floors(Floor(NOTHING, NOTHING))] * self._cases


def drawn(rows: int, tokens: int, vocabulary: int) -> CaseInputs:
    ids = np.random.Generator(np.random.PCG64(0)).integers(0, vocabulary, (rows, tokens), np.int32)
    positions = np.broadcast_to(np.arange(tokens, dtype=np.int32), ids.shape).copy()
    return CaseInputs("drawn", "randomized", "seed 0", ids, np.ones_like(ids), positions)


class Bench:
    def __init__(self, folder: Path, dtype: str, inputs: CaseInputs, work: Path) -> None:
        self._decoder, self._dtype, self._inputs, self._work = (
            reference.decoder(folder, dtype),
            dtype,
            inputs,
            work,
        )
        self._components = [c for c in discover(self._decoder) if not c.cached]
        self.payload = torch.ones(0, dtype=torch.uint8)

    def forward(self) -> None:
        ids, mask, positions = (
            torch.from_numpy(array).long()
            for array in (self._inputs.token_ids, self._inputs.attention_mask, self._inputs.positions)
        )
        with torch.inference_mode():
            self._decoder.model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False)

    def saved(self) -> None:
        self.forward()
        torch.save(self.payload, self._work / "saved.pt")

    def recorded(self) -> None:
        everything = Keep()
        with GoldenWriter(self._work / "recorded.h5") as writer:
            case = write_case(writer, self._inputs, everything)
            made = Recorder(writer, self._decoder, self._components, self._components, self._dtype, Silent())
            made.whole([(self._inputs, case)], everything)
            writer._hashed()  # as `finish` does, which needs more than one case's goldens
            nbytes = sum(tensor.nbytes for tensor in writer._tensors)
        if nbytes != len(self.payload):  # written to once: pages that were never touched are quicker to read
            self.payload = torch.ones(nbytes, dtype=torch.uint8)

    def proved(self) -> None:
        with mock.patch.object(recorder, "Evaluations", WithoutFloors):
            self.recorded()


def measured(call: Callable[[], None]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint")
    parser.add_argument("--dtype", default="float32", choices=list(reference.TORCH_DTYPES))
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--quick", action="store_true", help="leave `recorded` out, which takes longest by far"
    )
    asked = parser.parse_args()
    folder = resolve(asked.checkpoint)
    with tempfile.TemporaryDirectory() as work:
        vocabulary = reference.embedding_rms(folder).size
        bench = Bench(folder, asked.dtype, drawn(asked.rows, asked.tokens, vocabulary), Path(work))
        names = ("forward", "saved", "proved") if asked.quick else ("forward", "saved", "proved", "recorded")
        bench.proved()  # says how many bytes there are
        calls = {name: getattr(bench, name) for name in names}
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
        for _ in track(range(asked.rounds), "rounds", console=Console(stderr=True)):
            for name, call in calls.items():
                found[name].append(measured(call))
    table = Table("", "wall, s", "CPU, s", "/ forward", "of CPU", "/ saved", "of CPU")
    middle = {
        name: tuple(statistics.median(times) for times in zip(*each, strict=True))
        for name, each in found.items()
    }
    for name, (wall, cpu) in middle.items():
        others = [middle[other] for other in ("forward", "saved")]
        ratios = [ratio for other in others for ratio in (wall / other[0], cpu / other[1])]
        table.add_row(name, f"{wall:.2f}", f"{cpu:.2f}", *(f"{ratio:.2f}" for ratio in ratios))
    console = Console(highlight=False)
    console.print(
        f"{asked.rows} x {asked.tokens} tokens, {asked.dtype}, {len(bench.payload) / 1e6:.0f} MB recorded"
    )
    console.print(table)


if __name__ == "__main__":
    main()
