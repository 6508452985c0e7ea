"""What the pytest plugin costs where nobody uses it: the CPU time of a bare pytest run, with and without it.

    python benchmarks/startup.py [--runs 15] [--limit 50]

Runs one trivial test in an empty folder, in turns with the plugin and with `-p no:goldens`, and no other plugin that is
installed. Prints both medians of user and system time, their difference and their ratio. Exits with 1 when
the difference is above the limit, in milliseconds.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

# Other plugins are left out, so that both runs differ in this one only; it is loaded by its entry point, as installed.
WITH, WITHOUT = ("-p", "goldens"), ("-p", "no:goldens")


def cpu_seconds(folder: Path, *arguments: str) -> float:
    """User and system time of one pytest run."""
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}
    command = [sys.executable, "-m", "pytest", "-q", *arguments]
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL) as run:
        _, status, usage = os.wait4(run.pid, 0)
        run.returncode = os.waitstatus_to_exitcode(status)
    if run.returncode:
        raise SystemExit(f"pytest {' '.join(arguments)} ended with {run.returncode}")
    return usage.ru_utime + usage.ru_stime


def rounds(folder: Path, runs: int) -> Iterator[tuple[float, float]]:
    """With and without, one after the other; the first round fills the caches and is left out."""
    for number in range(runs + 1):
        pair = cpu_seconds(folder, *WITH), cpu_seconds(folder, *WITHOUT)
        if number:
            yield pair


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=15, help="rounds of one run each (at least 7)")
    parser.add_argument("--limit", type=float, default=50.0, help="milliseconds that the plugin may cost")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "test_it.py").write_text("def test_it():\n    pass\n")
        pairs = list(rounds(Path(folder), max(asked.runs, 7)))
    having, lacking = (1000 * statistics.median(times) for times in zip(*pairs, strict=True))
    grown = 1000 * statistics.median(one - other for one, other in pairs)
    print(f"with the plugin     {having:6.0f} ms of CPU (median of {len(pairs)})")
    print(f"without it          {lacking:6.0f} ms")
    print(f"difference          {grown:6.1f} ms (median of the pairs), ratio {having / lacking:.3f}")
    raise SystemExit(0 if grown < asked.limit else 1)


if __name__ == "__main__":
    main()
