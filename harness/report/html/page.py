"""Runs as one HTML page that needs nothing else: no network, no other file.

page.html.j2 writes what is said in words; page.js draws the rest from the data in the page. Whatever comes from a
golden file or from a user is escaped by Jinja, in the data too.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from harness.history.entry import Entry
from harness.model import Verdict
from harness.report.html.encode import encoded, is_fact
from harness.report.html.trends import trends
from harness.report.logits import sentences
from harness.report.provenance import provenance
from harness.report.result import Result, Run, first_wrong
from harness.report.wording import (
    amount,
    counted,
    details,
    explained,
    explained_alike,
    finding,
    headline,
    some_of,
)

_FOLDER = Path(__file__).parent
_SCRIPTS = ("data.js", "drawing.js", "grid.js", "panel.js", "page.js")


def render(runs: Sequence[Run], history: Sequence[Entry] = ()) -> str:
    """history: earlier runs, the oldest first; of what golden files and ports they are, does not matter."""
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "ensure_ascii": False}
    return environment.get_template("page.html.j2").render(
        style=Markup((_FOLDER / "page.css").read_text(encoding="utf-8")),
        script=Markup("\n".join((_FOLDER / name).read_text(encoding="utf-8") for name in _SCRIPTS)),
        runs=[_told(run) | {"data": encoded(run) | {"trends": trends(run, history)}} for run in runs],
    )


def _told(run: Run) -> dict[str, Any]:
    """What of a run is said in words."""
    return {
        "golden": run.golden,
        "port": run.port,
        "verdict": run.verdict,
        "counted": counted(run),
        "wrong": _wrong(run),
        "unmeasured": _unmeasured(run),
        "nearest": _nearest(run),
        "explained": [(some_of(names), line) for names, line in explained_alike(run)],
        "notes": run.notes,
        "logits": [(f"{each.dtype} {each.mode}", list(sentences(each))) for each in run.logits],
        "provenance": provenance(run),
    }


def _wrong(run: Run) -> dict[str, Any] | None:
    """The first failure. step: the first of the forward pass, where that is another one."""
    if run.first_wrong is None:
        return None
    wrong = run.result(run.first_wrong)
    step = first_wrong((result for result in run.results if not is_fact(result)), run.order)
    return {
        **_one(wrong, run),
        "standing": headline(wrong, run.results, run.order),
        "step": _one(step, run) if step is not None and step.component != wrong.component else None,
    }


def _one(result: Result, run: Run) -> dict[str, Any]:
    return {
        "component": result.component,
        "where": f"{result.case} · {result.dtype} · {result.mode}",
        "finding": finding(result),
        "explained": explained(run, result.component),
        "details": details(result),
    }


def _unmeasured(run: Run) -> str:
    """What nobody listed: it alone makes a run fail."""
    results = [r for r in run.results if r.verdict is Verdict.UNMEASURED and not r.listed]
    names = list(dict.fromkeys(result.component for result in results))
    return f"unmeasured, and not listed: {some_of(names)}" if names else ""


def _nearest(run: Run) -> str:
    """What passes nearest to its limit: how much room there is."""
    compared = [r for r in run.results if r.verdict is Verdict.PASS and r.over_limit > 0]
    if not compared:
        return ""
    near = max(compared, key=lambda result: result.over_limit)
    where = f"{near.component} ({near.case}, {near.dtype}, {near.mode})"
    return f"nearest to its limit, at {amount(near.over_limit)} of it: {where}"
