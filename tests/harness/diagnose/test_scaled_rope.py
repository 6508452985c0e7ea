"""Mistakes in scaling RoPE get their names where it is scaled, and no other; so do all others of cos and sin there."""

import pytest

from harness.audit.catalogue import rope_config, rotary, scaling
from harness.audit.fault import Area, DoesNotApply
from tests.harness.diagnose.places import SCALED, place

FAULTS = [
    fault
    for fault in (*rotary.FAULTS, *rope_config.FAULTS)
    if fault.area in (Area.ROTARY, Area.CONFIG) and not fault.equivalent
]
ONLY_PLAIN = {"linear-scaling-on", "config-positions-scaled"} | {
    fault.name for fault in scaling.FAULTS if fault.name.startswith(("yarn-on", "slow-frequencies"))
}
"""What only a RoPE that is not scaled can show."""


def diagnosed(fault, withheld=()):
    for name in SCALED:
        try:
            yield name, place(name).diagnosed(fault.planting, withheld=withheld)
        except DoesNotApply:
            continue


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_gets_its_name_and_no_other(fault):
    found = list(diagnosed(fault))
    assert any(said.failed for _, said in found) is (fault.name not in ONLY_PLAIN)
    for file, said in found:
        for explanation in said.explanations:
            names = set(explanation.hypotheses)
            assert bool(names) == bool(fault.named_by), (file, explanation)
            assert names <= fault.named_by, (file, explanation)


@pytest.mark.slow
@pytest.mark.parametrize("fault", [f for f in FAULTS if f.named_by], ids=lambda fault: fault.name)
def test_without_its_name_nothing_else_is_named(fault):
    for file, said in diagnosed(fault, withheld=fault.named_by):
        assert said.names == set(), file


def test_every_way_of_scaling_is_left_out_somewhere():
    [left_out] = [fault for fault in scaling.FAULTS if fault.name == "scaling-ignored"]
    told = {name: said.names for name, said in diagnosed(left_out)}
    assert told == {name: {"scaling_ignored"} for name in SCALED}
