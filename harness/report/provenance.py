"""Where a golden file and its replay come from, as rows of a table. Imports nothing heavy."""

from collections.abc import Mapping
from typing import Any

from harness.report.result import Run


def provenance(run: Run) -> list[tuple[str, str]]:
    """What it is, and what is known of it; empty rows are left out."""
    here = run.environment
    rows = [("golden file", run.golden), ("digest", run.digest), ("port", run.port)]
    if here is not None:
        rows += [
            ("replayed", here.time),
            ("commit", here.commit),
            ("device", here.device),
            ("mesh", here.mesh and f"{here.mesh}, in {here.processes} process{'es' * (here.processes > 1)}"),
            ("precision", here.precision),
            ("versions", _pairs(here.versions)),
        ]
    recorded = ((f"recorded: {key}", _pairs(value)) for key, value in run.recorded.items())
    return [(name, value) for name, value in [*rows, *recorded] if value]


def _pairs(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {member}" for key, member in value.items())
    return str(value)
