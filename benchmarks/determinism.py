"""What other threads and instruction sets change: the bits of goldens, and no verdict.

    python benchmarks/determinism.py [SUITE.toml ...]

Records each suite twice as this machine does it, then with other numbers of threads and levels of ATEN_CPU_CAPABILITY;
records the port with other numbers of threads and levels of --xla_cpu_max_isa, too, and replays it. Each recording is
held against the first of its kind. Prints how many goldens are the same bit by bit, the largest difference in noise
floors, and both verdicts. Exits with 1 where a digest differs that may not, or a verdict is no pass.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from harness.review.diff import Agreement, compare
from harness.store.reader import GoldenFile

ROOT = Path(__file__).parents[1]
SUITES = [ROOT / "goldens" / "suites" / f"{name}.toml" for name in ("qwen2-tiny", "qwen3-tiny")]
REFERENCE, PORT = "reference", "port"


@dataclass(frozen=True)
class Setting:
    """Of a recording, or of a port. same: whether every bit has to be that of the first"""

    kind: str
    name: str
    environment: dict[str, str]
    same: bool = False


def settings() -> list[Setting]:
    threads = [("threads 1", "1"), ("threads 2", "2"), ("threads 4", "4")]
    return [
        Setting(REFERENCE, "as it is", {}, same=True),
        Setting(REFERENCE, "as it is, again", {}, same=True),
        *(Setting(REFERENCE, name, {"OMP_NUM_THREADS": count}) for name, count in threads),
        *(
            Setting(REFERENCE, f"ATEN_CPU_CAPABILITY {level}", {"ATEN_CPU_CAPABILITY": level})
            for level in ("default", "avx2", "avx512")
        ),
        Setting(PORT, "as it is", {}, same=True),
        Setting(PORT, "as it is, again", {}, same=True),
        Setting(PORT, "one thread", {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}),
        *(
            Setting(PORT, f"xla_cpu_max_isa {level}", {"XLA_FLAGS": f"--xla_cpu_max_isa={level}"})
            for level in ("SSE4_2", "AVX2", "AVX512")
        ),
    ]


def goldens(setting: Setting, *arguments: str) -> int:
    """The exit status of a command in a process of its own."""
    command = [sys.executable, "-m", "harness.cli", *arguments]
    # What was compiled for another instruction set is not taken out of a cache.
    environment = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"} | setting.environment
    answer = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if answer.returncode == 2:
        raise SystemExit(f"{setting.name}: {answer.stderr}")
    return answer.returncode


def recorded(setting: Setting, suite: Path, folder: Path, golden: Path, port: str) -> Path:
    path = folder / f"{setting.kind}-{setting.name.replace(' ', '-')}.h5"
    what = ["--from-port", "--like", str(golden), "--port", port] if setting.kind == PORT else [str(suite)]
    goldens(setting, "record", *what, "-o", str(path))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("suites", nargs="*", type=Path, default=SUITES)
    parser.add_argument("--port", default="qwen_flax.port:make")
    asked = parser.parse_args()
    table = Table("suite", "what", "setting", title="held against the first of its kind")
    for column in ("same bits", "largest, floors", "verdict", "replay"):
        table.add_column(column, justify="right")
    held = True
    for suite in asked.suites:
        with tempfile.TemporaryDirectory() as name:
            folder, first = Path(name), dict[str, GoldenFile]()
            for setting in track(settings(), suite.stem, console=Console(stderr=True)):
                golden = first[REFERENCE].path if REFERENCE in first else Path()
                path = recorded(setting, suite.resolve(), folder, golden, asked.port)
                file = GoldenFile.open(path)
                base = first.setdefault(setting.kind, file)
                against = golden if setting.kind == PORT else path
                replay = goldens(setting, "replay", str(against), "--port", asked.port)
                found = compare(base, file)
                same, worst = found.counts[Agreement.IDENTICAL], found.worst
                held &= found.agrees and not replay and (file.digest == base.digest or not setting.same)
                table.add_row(
                    suite.stem,
                    setting.kind,
                    setting.name,
                    f"{same} of {len(found.differences)}",
                    f"{worst.over_floor:.2g}" if worst else "",
                    "agrees" if found.agrees else "differs",
                    "fails" if replay else "passes",
                )
    Console(width=120).print(table)
    raise SystemExit(int(not held))


if __name__ == "__main__":
    main()
