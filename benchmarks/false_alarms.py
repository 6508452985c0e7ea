"""How near does a correct port come to its tolerance? Many short prompts, drawn from seeds.

    python benchmarks/false_alarms.py [--seeds 40] [--length 1 --length 2 --length 7] [CHECKPOINT ...]

Short prompts are the hard ones: a norm over few numbers scatters, and a floor measured on one token is one sample.
For every built-in checkpoint, length and mode this prints how many comparisons were made, the largest error over noise
floor and over limit, and where. Exits with 1 when one exceeds its limit.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from harness.checkpoints import read_config
from harness.inputs import Rows, assemble, draw_rows
from harness.model import Mode, Verdict
from harness.record.keep import parse
from harness.record.recorder import Request, Silent, record
from harness.replay.port import load_port
from harness.replay.session import Session
from harness.report.result import Result
from harness.settings import port_setting
from harness.store.reader import GoldenFile

BUILT_IN = sorted((Path(__file__).parent.parent / "goldens" / "checkpoints").glob("*/config.json"))


def results(folder: Path, seeds: int, length: int, dtype: str) -> list[Result]:
    """Record `seeds` drawn prompts of one length, and replay the project's port."""
    vocab_size = int(read_config(folder)["vocab_size"])
    cases = tuple(
        assemble(
            f"seed-{seed}",
            "randomized",
            f"seed {seed}",
            Rows(draw_rows(seed, vocab_size, 1, length, length, "none")),
            vocab_size,
        )
        for seed in range(seeds)
    )
    with tempfile.TemporaryDirectory() as where:
        path = Path(where) / "drawn.h5"
        request = Request(str(folder), "folder", folder, read_config(folder), cases, (dtype,), parse([]))
        record(request, path, Silent())
        file = GoldenFile.open(path)
        port = load_port(port_setting(Path.cwd()), str(folder), dtype)
        return list(Session(file, lambda _: port).replay(file.select(), tuple(Mode)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "checkpoints", nargs="*", type=Path, metavar="CHECKPOINT", default=[path.parent for path in BUILT_IN]
    )
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--length", type=int, action="append", metavar="TOKENS")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    options = parser.parse_args()
    table = Table(box=None, header_style="dim", pad_edge=False)
    for heading in ("checkpoint", "tokens", "mode", "comparisons", "over floor", "over limit", "at"):
        table.add_column(heading)
    alarms = 0
    for folder in options.checkpoints:
        for length in options.length or [1, 2, 7]:
            found = results(folder, options.seeds, length, options.dtype)
            alarms += sum(result.verdict is not Verdict.PASS for result in found)
            for mode in Mode:
                own = [result for result in found if result.mode is mode]
                worst = max(own, key=lambda result: result.over_limit)
                floor = max(result.over_floor for result in own)
                table.add_row(
                    *(
                        folder.name,
                        str(length),
                        mode,
                        str(len(own)),
                        f"{floor:.2f}",
                        f"{worst.over_limit:.2f}",
                    ),
                    f"{worst.component} ({worst.case})",
                )
    console = Console(width=140)
    console.print(table)
    console.print(f"{alarms} false alarms")
    sys.exit(1 if alarms else 0)


if __name__ == "__main__":
    main()
