"""How what is said of a failure stands to the fault that was planted. Imports nothing heavy."""

from harness.audit.fault import Fault
from harness.audit.outcome import Naming
from harness.report.result import Explanation


def is_wrong(fault: Fault, told: Explanation) -> bool:
    """Whether a name is another mistake's."""
    return bool(told.hypotheses) and fault.named_by.isdisjoint(told.hypotheses)


def naming_of(fault: Fault, told: Explanation | None) -> Naming:
    """By what is said of the first wrong component, where no component has a wrong name."""
    if told is None or not told.hypotheses:
        return Naming.NOT_NAMED
    return Naming.NAMED if fault.named_by.issuperset(told.hypotheses) else Naming.ONE_OF
