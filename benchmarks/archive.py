"""What packing a golden file saves, and what it costs: bytes and CPU time, against writing it as it is.

python benchmarks/archive.py GOLDEN.h5 [--megabytes 32] [--rounds 5]

The baseline is what writing and fetching cost in any case: hashing the same bytes once and copying them. Each method
packs and unpacks the same megabytes, taken evenly from the whole file, in turns; medians. "split" puts the first bytes
of all numbers together, then the second ones, before it packs, as HDF5's shuffle does: payloads would no longer be
mapped into memory.
"""

import argparse
import bz2
import gzip
import hashlib
import lzma
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

Pack = Callable[[bytes], bytes]


def split(width: int, content: bytes) -> bytes:
    whole = np.frombuffer(content[: len(content) // width * width], np.uint8)
    return gzip.compress(whole.reshape(-1, width).T.tobytes(), 1)


def joined(width: int, packed: bytes) -> bytes:
    return np.frombuffer(gzip.decompress(packed), np.uint8).reshape(width, -1).T.tobytes()


METHODS: dict[str, tuple[Pack, Pack]] = {
    "gzip -1": (partial(gzip.compress, compresslevel=1), gzip.decompress),
    "gzip -6": (partial(gzip.compress, compresslevel=6), gzip.decompress),
    "xz -0": (partial(lzma.compress, preset=0), lzma.decompress),
    "xz -6": (partial(lzma.compress, preset=6), lzma.decompress),
    "bzip2": (bz2.compress, bz2.decompress),
    "split by 2, gzip -1": (partial(split, 2), partial(joined, 2)),
    "split by 4, gzip -1": (partial(split, 4), partial(joined, 4)),
}


def timed(work: Callable[[bytes], object], content: bytes) -> tuple[float, object]:
    began = time.process_time()
    result = work(content)
    return time.process_time() - began, result


def taken_evenly(path: Path, megabytes: int) -> bytes:
    size = path.stat().st_size
    with path.open("rb") as file:
        pieces = []
        for piece in range(megabytes):
            file.seek(max(size - (1 << 20), 0) * piece // megabytes & ~7)
            pieces.append(file.read(1 << 20))
    return b"".join(pieces)


def as_it_is(content: bytes) -> bytes:
    hashlib.sha256(content).digest()
    return bytes(bytearray(content))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("golden", type=Path)
    parser.add_argument("--megabytes", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5, help="at least 5 for numbers to be told")
    asked = parser.parse_args()
    content = taken_evenly(asked.golden, asked.megabytes)
    times: dict[tuple[str, str], list[float]] = {}
    packed: dict[str, bytes] = {}
    for _ in range(asked.rounds):
        times.setdefault(("as it is", ""), []).append(timed(as_it_is, content)[0])
        for name, (pack, unpack) in METHODS.items():
            took, packed[name] = timed(pack, content)  # type: ignore[assignment]
            times.setdefault((name, "pack"), []).append(took)
            times.setdefault((name, "unpack"), []).append(timed(unpack, packed[name])[0])
    medians = {key: statistics.median(values) for key, values in times.items()}
    base = medians["as it is", ""]
    table = Table("method", "bytes saved", "packing, x baseline", "unpacking, x baseline")
    for name in METHODS:
        ratios = [f"{medians[name, what] / base:.1f}" for what in ("pack", "unpack")]
        table.add_row(name, f"{1 - len(packed[name]) / len(content):.0%}", *ratios)
    console = Console(width=100)
    console.print(table)
    console.print(f"baseline: {base:.3f} s of CPU for {len(content) / 1e6:.0f} MB; medians of {asked.rounds}")


if __name__ == "__main__":
    main()
