"""Every fault of the catalogue gets its name, or is described, and never another name.

The catalogue shares no code with the hypotheses that are to name its faults.
"""

import pytest

from harness.audit.catalogue.table import OF_PASSES as FAULTS
from harness.audit.fault import Answer, DoesNotApply, Overrides
from harness.errors import GoldensError
from tests.harness.diagnose.places import CASES, place

SAMPLE = [fault for fault in FAULTS if not fault.equivalent][::20]
ALWAYS_TOGETHER = {"first_row_for_all", "padding_ignored", "positions_from_zero"}
"""In qwen3-tiny the first text of a batch is the longest: its mask and positions are what counting columns gives."""
ALIKE = frozenset({"eps_0", "eps_1e-08", "eps_1e-07"})
"""Only one norm in these files has inputs so small that these are not the same to all digits."""
DESCRIBED = {"file-embedding-rows-one-late": "lm_head"}
"""Components that have no name for a fault, since it is one of another component that shares their parameter."""


def with_slow(faults):
    return [
        pytest.param(fault, id=fault.name, marks=[] if fault in SAMPLE else [pytest.mark.slow])
        for fault in faults
    ]


def diagnosed(fault, withheld=()):
    """(golden file, what was said) where the fault can be planted, and is not refused when loading."""
    for name in CASES:
        try:
            yield name, place(name).diagnosed(fault.planting, withheld=withheld)
        except DoesNotApply:
            continue
        except GoldensError:  # caught before anything is computed
            continue


@pytest.mark.parametrize("fault", with_slow(fault for fault in FAULTS if fault.named_by))
def test_a_fault_gets_its_name_and_no_other(fault):
    for file, said in diagnosed(fault):
        for explanation in said.explanations:
            if explanation.component == DESCRIBED.get(fault.name):
                assert not explanation.hypotheses
                continue
            names = set(explanation.hypotheses)
            assert names & fault.named_by, (file, explanation)
            others = names - fault.named_by
            assert others <= (ALWAYS_TOGETHER if file == "qwen3-tiny" else set()), (file, explanation)


@pytest.mark.parametrize("fault", with_slow(fault for fault in FAULTS if not fault.named_by))
def test_a_fault_without_a_name_is_described_and_not_named(fault):
    for file, said in diagnosed(fault):
        assert bool(said.explanations) == bool(said.failed), file
        assert [e for e in said.explanations if e.hypotheses] == [], file
        assert all(explanation.text for explanation in said.explanations)


@pytest.mark.parametrize(
    "fault",
    with_slow(f for f in FAULTS if f.named_by and isinstance(f.planting, Answer | Overrides)),
)
def test_without_its_name_nothing_else_is_named(fault):
    withheld = fault.named_by | (ALIKE if fault.named_by & ALIKE else frozenset())
    for file, said in diagnosed(fault, withheld=withheld):
        assert said.names <= (ALWAYS_TOGETHER if file == "qwen3-tiny" else set()), file


def test_most_names_are_given_to_some_fault():
    planted = set().union(*(fault.named_by for fault in FAULTS))
    assert len(planted) > 90


@pytest.mark.slow
def test_every_fault_that_is_seen_is_explained():
    """A diagnosis of nothing would pass all tests above."""
    told = sum(bool(said.explanations) for fault in FAULTS for _, said in diagnosed(fault))
    assert told > 300
