"""Can a model be recorded, and replayed isolated, that does not fit in memory?

    python benchmarks/large.py FOLDER [--layers 28] [--dtype bfloat16] [--tokens 16] [--cases 3] [--memory GB]

Writes a checkpoint of Qwen2.5-7B's shape into FOLDER, shard by shard, unless it is there, and records it with floors.
Then `goldens replay` runs it isolated, in a process of its own. Prints how long each took, and the most memory that was
resident, pages of mapped files apart (RssAnon + RssShmem).
Its numbers are drawn as those of goldens/checkpoints: no bias is zero, no norm weight one, attention is not uniform.
Exits with 1 where that was more than --limit.
"""

import argparse
import importlib.util
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from rich.console import Console
from rich.progress import Progress, track
from rich.table import Table
from safetensors.numpy import save_file

from harness.checkpoints import read_config
from harness.inputs import CaseInputs
from harness.record.keep import parse
from harness.record.recorder import Request, record
from harness.store.reader import GoldenFile

ROOT = Path(__file__).parents[1]
VOCABULARY = 152064


def _maker() -> Any:
    """goldens/checkpoints/make.py, which is a script beside data."""
    spec = importlib.util.spec_from_file_location("make", ROOT / "goldens/checkpoints/make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make"] = module
    spec.loader.exec_module(module)
    return module


make = _maker()


class Memory(threading.Thread):
    """The most that was resident while the context was open, pages of mapped files apart, in bytes."""

    def __init__(self, process: int | str = "self") -> None:
        super().__init__(daemon=True)
        self._status, self.most, self._over = Path(f"/proc/{process}/status"), 0, threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.05):
            try:
                status = self._status.read_text()
            except OSError:  # the process has ended
                return
            found = re.findall(r"Rss(?:Anon|Shmem):\s+(\d+) kB", status)
            self.most = max(self.most, 1024 * sum(map(int, found)))

    def __enter__(self) -> "Memory":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()


def matrix(name: str, outputs: int, inputs: int, gain: float) -> np.ndarray:
    """As make.py's, of larger matrices: rows are drawn a few at a time, and each number from a byte of its own."""
    draw = np.random.Generator(np.random.SFC64([*name.encode()]))
    scale = gain / (73.9 * inputs**0.5)
    found = np.empty((outputs, inputs), ml_dtypes.bfloat16)
    for start in range(0, outputs, 1024):
        rows = found[start : start + 1024]
        values = np.frombuffer(draw.bytes(rows.size), np.uint8).reshape(rows.shape)
        rows[:] = ((values - np.float32(127.5)) * np.float32(scale)).astype(ml_dtypes.bfloat16)
    return found


def small(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32).astype(ml_dtypes.bfloat16)


def qwen2(layers: int, hidden: int, intermediate: int, heads: int, key_heads: int, vocabulary: int) -> Any:
    """The shape of a checkpoint."""
    return make.Checkpoint(
        name="large", model_type="qwen2", config_form=4, vocab=vocabulary, hidden=hidden,
        intermediate=intermediate, layers=layers, heads=heads, kv_heads=key_heads, head_dim=hidden // heads,
        tied=False, rope_theta=1e6, sliding_window=131072, use_sliding_window=False, max_window_layers=layers,
        final_norm=1.0, branch=0.5,
    )  # fmt: skip


def shards(spec: Any) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    hidden, intermediate = spec.hidden, spec.intermediate
    queries, keys = spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim
    embed = matrix("embed_tokens", spec.vocab, hidden, make.EMBEDDING_RMS * hidden**0.5)
    yield "embed", {"model.embed_tokens.weight": embed}
    for number in range(spec.layers):
        name = f"model.layers.{number}."
        found = {}
        for role, outputs, inputs, gain in (
            ("self_attn.q_proj", queries, hidden, 1.5), ("self_attn.k_proj", keys, hidden, 1.5),
            ("self_attn.v_proj", keys, hidden, 1.0), ("self_attn.o_proj", hidden, queries, 0.5),
            ("mlp.gate_proj", intermediate, hidden, 1.0), ("mlp.up_proj", intermediate, hidden, 1.0),
            ("mlp.down_proj", hidden, intermediate, 0.5),
        ):  # fmt: skip
            found[f"{name}{role}.weight"] = matrix(f"{name}{role}", outputs, inputs, gain)
        for role in ("input_layernorm", "post_attention_layernorm"):
            found[f"{name}{role}.weight"] = small(make.norm_weight(f"{name}{role}", hidden))
        for letter, size, rms, every in (("q", queries, 0.5, 0), ("k", keys, 1.0, 4), ("v", keys, 0.25, 0)):
            bias = make.bias(f"{name}{letter}", size, rms, large_every=every)
            found[f"{name}self_attn.{letter}_proj.bias"] = small(bias)
        yield f"layer-{number:02}", found
    head = matrix("lm_head", spec.vocab, hidden, 2.0)
    yield "head", {"model.norm.weight": small(make.norm_weight("norm", hidden)), "lm_head.weight": head}


def write_checkpoint(folder: Path, spec: Any) -> None:
    folder.mkdir(parents=True)
    places: dict[str, str] = {}
    total = 0
    for name, tensors in track(shards(spec), "writing", spec.layers + 2, console=Console(stderr=True)):
        path = f"model-{name}.safetensors"
        save_file(tensors, folder / path, metadata={"format": "pt"})
        places |= dict.fromkeys(tensors, path)
        total += sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": places}
    make.write_json(folder / "model.safetensors.index.json", index)
    (folder / "config.json").write_text(json.dumps(make.config(spec), indent=2))


def cases(count: int, tokens: int, vocabulary: int) -> tuple[CaseInputs, ...]:
    """Two rows each, of tokens that differ; the first is padded on the left in every other case."""
    found = []
    for number in range(count):
        ids = np.random.Generator(np.random.PCG64(number)).integers(0, vocabulary, (2, tokens), np.int32)
        mask = np.ones_like(ids)
        mask[0, : tokens // 3 * (number % 2)] = 0
        positions = np.maximum(mask.cumsum(1) - 1, 0).astype(np.int32) + 300 * number
        found.append(CaseInputs(f"case-{number}", "randomized", f"seed {number}", ids, mask, positions))
    return tuple(found)


class Told:
    def __init__(self, progress: Progress) -> None:
        self._progress, self._task = progress, progress.add_task("recording", total=None)

    def found(self, *_: object) -> None:
        pass

    def start(self, total: int) -> None:
        self._progress.update(self._task, total=total)

    def step(self, done: str) -> None:
        self._progress.update(self._task, advance=1, description=done)


def replayed(golden: Path, folder: Path, errors: Console) -> tuple[int, float, int]:
    """Isolated: the exit status, how long it took in seconds, and the most memory in bytes."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "harness.cli", "replay", str(golden), "--checkpoint", str(folder)]
    options = ["--port", "qwen_flax.port:make", "--mode", "isolated"]
    child = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    with Memory(child.pid) as memory:
        said, _ = child.communicate()
    if child.returncode:
        errors.print(said, markup=False)
    return child.returncode, time.perf_counter() - start, memory.most


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--cases", type=int, default=3)
    parser.add_argument("--keep", action="append", default=[])
    parser.add_argument("--memory", type=float, default=2.0, metavar="GB", help="that weights may take")
    parser.add_argument("--limit", type=float, default=4.0, metavar="GB")
    parser.add_argument(
        "--output", type=Path, help="the golden file; beside the checkpoint, if it is not said"
    )
    asked = parser.parse_args()
    start = time.perf_counter()
    if not asked.folder.exists():
        write_checkpoint(asked.folder, qwen2(asked.layers, 3584, 18944, 28, 4, VOCABULARY))
    written = time.perf_counter()
    request = Request(
        checkpoint=str(asked.folder), origin="folder", folder=asked.folder, config=read_config(asked.folder),
        cases=cases(asked.cases, asked.tokens, VOCABULARY), dtypes=(asked.dtype,), keep=parse(asked.keep),
        memory=int(asked.memory * 1e9),
    )  # fmt: skip
    output = asked.output or asked.folder.with_suffix(".h5")
    with Progress(console=Console(stderr=True)) as progress, Memory() as memory:
        record(request, output, Told(progress))
    recorded = time.perf_counter()
    status, seconds, most = replayed(output.resolve(), asked.folder.resolve(), Console(stderr=True))
    file = GoldenFile.open(output)
    size = sum(path.stat().st_size for path in asked.folder.glob("*.safetensors"))
    table = Table("", "", box=None, show_header=False)
    table.add_row("checkpoint", f"{size / 1e9:.1f} GB, written in {written - start:.0f} s")
    table.add_row(
        "recorded", f"{len(file.contents.goldens)} goldens of {len(file.contents.components)} components"
    )
    table.add_row(
        "", f"{2 * asked.cases * asked.tokens} tokens in {asked.dtype}, in {recorded - written:.0f} s"
    )
    table.add_row("golden file", f"{output.stat().st_size / 1e6:.0f} MB")
    table.add_row("resident, mapped files apart", f"{memory.most / 1e9:.2f} GB at most")
    table.add_row("replayed, isolated", f"{'holds' if status == 0 else 'does not hold'}, in {seconds:.0f} s")
    table.add_row("resident, mapped files apart", f"{most / 1e9:.2f} GB at most")
    Console(highlight=False).print(table)
    sys.exit(0 if status == 0 and max(memory.most, most) <= asked.limit * 1e9 else 1)


if __name__ == "__main__":
    main()
