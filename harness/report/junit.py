"""Runs as JUnit XML, for CI servers: a testsuite for each golden file, a testcase for each comparison.

Imports nothing heavy.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePath
from xml.etree import ElementTree as ET
from xml.etree.ElementTree import Element, SubElement

from harness.model import Verdict
from harness.report.commands import replay_of
from harness.report.provenance import provenance
from harness.report.result import Place, Result, Run
from harness.report.wording import details, explained, failure_line, finding

_DECLARATION = '<?xml version="1.0" encoding="utf-8"?>\n'
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold, not even escaped."""


def render(runs: Sequence[Run]) -> str:
    suites = Element("testsuites", name="goldens")
    for run in runs:
        suites.append(_suite(run))
    for outcome in ("tests", "failures", "errors", "skipped"):
        suites.set(outcome, str(sum(int(suite.get(outcome, 0)) for suite in suites)))
    for element in suites.iter():
        element.text = element.text and _writable(element.text)
        element.attrib.update({name: _writable(value) for name, value in element.attrib.items()})
    ET.indent(suites)
    return _DECLARATION + ET.tostring(suites, encoding="unicode") + "\n"


def _suite(run: Run) -> Element:
    suite = Element("testsuite", name=f"{run.golden} on {run.port}")
    if run.environment is not None:
        suite.set("timestamp", run.environment.time)
    _properties(suite, [("goldens.verdict", run.verdict), *provenance(run)])
    cases = [_case(run, result) for result in run.results]
    if not run.holds and all(case.find("failure") is None for case in cases):
        cases.append(_nothing_compared(run))
    suite.extend(cases)
    for outcome, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(outcome, str(sum(case.find(tag) is not None for case in cases)))
    suite.set("tests", str(len(cases)))
    if run.notes:
        SubElement(suite, "system-out").text = "\n".join(run.notes)
    return suite


def _case(run: Run, result: Result) -> Element:
    """It passes where it has no child that says otherwise."""
    where = f"{PurePath(run.golden).stem}/{result.case}/{result.dtype}/{result.mode}"
    case = Element("testcase", classname=where, name=result.component)
    numbers = [("error_over_limit", result.over_limit), ("error_over_floor", result.over_floor)]
    told = [(f"goldens.{name}", f"{value:.3g}") for name, value in numbers if result.error is not None]
    _properties(case, [("goldens.kind", result.kind), *told])
    if result.expected:
        SubElement(case, "skipped", message=f"expected to fail: {result.expected} ({finding(result)})")
    elif result.listed:
        SubElement(case, "skipped", message=f"unmeasured: {finding(result)}; listed: {result.listed}")
    elif result.verdict is not Verdict.PASS:
        failure = SubElement(case, "failure", type=result.verdict, message=failure_line(result))
        place = Place(result.component, result.case, result.dtype, result.mode)
        lines = [*explained(run, result.component), *details(result), f"again: {replay_of(run, place)}"]
        failure.text = "\n".join(lines)
    return case


def _nothing_compared(run: Run) -> Element:
    """A run that does not hold is never all green."""
    case = Element("testcase", classname=PurePath(run.golden).stem, name="verdict")
    why = "; ".join(run.notes) or "nothing was compared that could pass"
    SubElement(case, "error", type=run.verdict, message=f"{run.golden}: {why}")
    return case


def _properties(element: Element, pairs: Iterable[tuple[str, str]]) -> None:
    properties = SubElement(element, "properties")
    for name, value in pairs:
        SubElement(properties, "property", name=name, value=value)


def _writable(text: str) -> str:
    return _NO_XML.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
