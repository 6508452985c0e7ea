"""Commands that repeat what a report tells of, as they are typed. Imports nothing heavy."""

import shlex

from harness.report.result import Place, Run


def replay_of(run: Run, place: Place | None = None) -> str:
    """The replay again; with `place`, only this comparison."""
    words = ["goldens", "replay", run.golden, "--port", run.port]
    if place is not None:
        words += ["--include", place.component, "--case", place.case]
        words += ["--dtype", place.dtype, "--mode", place.mode]
    return shlex.join(words)
