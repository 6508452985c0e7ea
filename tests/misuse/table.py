"""The table of misuses: one source of a test and of docs/misuse.md."""

from tests.misuse import checkpoints, command_line, files, in_pytest, ports, written

SECTIONS = (
    command_line.TYPED,
    written.SUITES,
    written.TOLERANCES,
    written.FAULTS,
    checkpoints.CHECKPOINTS,
    checkpoints.PAIRS,
    files.GOLDEN_FILES,
    files.KEPT,
    ports.MADE,
    ports.ASKED,
    ports.CONTRADICTIONS,
    in_pytest.MARKERS,
    in_pytest.SETTINGS,
    in_pytest.TESTS,
)
MISUSES = tuple(misuse for section in SECTIONS for misuse in section.misuses)
