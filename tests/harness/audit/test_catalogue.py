"""Every fault of the catalogue does something, unless it is proved that nothing can show it."""

from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest

from harness.audit.catalogue.table import FAULTS, OF_FACTS, OF_PASSES
from harness.audit.edited import edited
from harness.audit.fault import Area, DoesNotApply, EditedCheckpoint, EditedConfig, Method, Rewired
from harness.audit.methods import asked_of, facts_in, fronted
from harness.audit.planted import Planted, Remembering, planted
from harness.errors import GoldensError
from harness.model import Mode, Verdict
from harness.replay.port import load_port
from harness.replay.session import Session
from harness.store.reader import GoldenFile
from harness.weights import Weights

GOLDENS = Path(__file__).parents[3] / "goldens"
PORT = "qwen_flax.port:make"
LOOKED_AT = {
    "qwen2-tiny": ("left-padded", "tiny-norm", "chat", "far"),
    "qwen3-tiny": ("random-1",),
    "qwen2-deep": ("left-padded",),
    "qwen2-linear": ("random-1",),
    "qwen2-dynamic": ("random-1", "hello"),
    "qwen2-yarn": ("random-1",),
    "qwen2-llama3": ("random-1",),
}
"""Padding, little norms, prompts longer than a window, late positions; norms of heads; more than ten layers; RoPE that
is scaled."""

EDITED = [fault for fault in FAULTS if isinstance(fault.planting, EditedConfig | EditedCheckpoint)]
CONTRACT = [fault for fault in OF_PASSES if fault not in EDITED]


class Place:
    """A built-in golden file and its right port, in float32."""

    def __init__(self, name):
        self.file = GoldenFile.open(GOLDENS / f"{name}.h5")
        self.folder = GOLDENS / "checkpoints" / name
        self.weights = Weights(self.folder)
        self.port = Remembering(load_port(PORT, str(self.folder), "float32"))
        self.cases = LOOKED_AT[name]

    def replayed(self, fault, cases, everything=False):
        """The components that are wrong in isolated replay, or at their edges, and those that are planted.

        None where the port refused to load. Raises DoesNotApply.
        """
        components = self.file.contents.components
        with ExitStack() as stack:
            if fault in EDITED:
                names = planted(fault.planting, components)
                folder = stack.enter_context(edited(self.folder, fault.planting))
                try:
                    port = load_port(PORT, str(folder), "float32")
                except GoldensError:
                    return None, names
            else:
                port = Planted(self.port, components, fault.planting, self.weights)
                names = port.names
            mode = Mode.END_TO_END if isinstance(fault.planting, Rewired) else Mode.ISOLATED
            goldens = self.file.select((() if everything else names), (), cases, ("float32",))
            results = Session(self.file, lambda dtype: port, names).replay(goldens, [mode])
            return {result.component for result in results if result.verdict is not Verdict.PASS}, names


place = cache(Place)


def shows(fault):
    """Whether it is seen in any of LOOKED_AT, or refused when loading; None where it never applies."""
    applies = None
    for name in LOOKED_AT:
        for case in place(name).cases:
            try:
                wrong, _ = place(name).replayed(fault, (case,))
            except DoesNotApply:
                break
            if wrong is None or wrong:
                return True
            applies = False
    return applies


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fault, id=fault.name, marks=[pytest.mark.slow] if n % 3 else [])
        for n, fault in enumerate(OF_PASSES)
    ],
)
def test_a_fault_shows_unless_nothing_can_show_it(fault):
    assert shows(fault) is (not fault.equivalent)


@pytest.mark.slow
@pytest.mark.parametrize("fault", OF_PASSES, ids=lambda fault: fault.name)
@pytest.mark.parametrize("name", LOOKED_AT)
def test_nothing_is_wrong_by_itself_but_what_is_planted(name, fault):
    try:
        wrong, names = place(name).replayed(fault, (), everything=not isinstance(fault.planting, Rewired))
    except DoesNotApply:
        pytest.skip("does not apply")
    assert wrong is None or wrong <= set(names)


SHOWN_ELSEWHERE = {"held-cut-to-bfloat16", "default-system-prompt-missing"}
"""No built-in checkpoint is stored in float32, and no built-in template has a system prompt of its own."""


def asked(name, fault):
    """The facts that are wrong; None where the golden file has none that the fault is in."""
    here = place(name)
    facts = here.file.select_facts(dtypes=["float32"])
    if not facts_in(fault.planting, facts):
        return None
    try:
        port = fronted(here.port.port, fault.planting)
    except DoesNotApply:
        return None
    session = Session(here.file, lambda dtype: port, folder=here.folder)
    results = [session.result(fact, Mode.ISOLATED) for fact in asked_of(fault.planting, facts)]
    return [result.component for result in results if result.verdict is Verdict.FAIL]


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fault, id=fault.name, marks=[pytest.mark.slow] if n % 6 else [])
        for n, fault in enumerate(OF_FACTS)
        if fault.name not in SHOWN_ELSEWHERE
    ],
)
def test_a_fault_in_a_method_shows_in_facts_that_it_is_in(fault):
    """In one golden file at least: if not in the first, in another."""
    first, *others = LOOKED_AT
    answers = [asked(first, fault)]
    if not any(answers):
        answers += [asked(name, fault) for name in others]
    assert any(wrong is not None for wrong in answers)
    assert any(answers) is (not fault.equivalent)
    names = set(facts_in(fault.planting, place("qwen2-tiny").file.select_facts()))
    assert all(wrong[0] in names for wrong in answers if wrong)


def test_names_are_unique_and_written_alike():
    names = [fault.name for fault in FAULTS]
    assert len(set(names)) == len(names)
    assert [name for name in names if name != name.lower() or " " in name or "_" in name] == []


def test_what_a_fault_says_is_one_clause():
    assert [fault.name for fault in FAULTS if not fault.says or fault.says.endswith(".")] == []


def test_what_is_shown_elsewhere_is_not_shown_here():
    known = {fault.name: fault for fault in OF_FACTS}
    for fault in map(known.get, SHOWN_ELSEWHERE):
        assert not any(asked(name, fault) for name in LOOKED_AT)


def test_every_area_is_covered_but_the_cache_which_no_contract_reaches():
    assert {fault.area for fault in FAULTS} == set(Area) - {Area.CACHE}


def test_there_are_enough_of_each_planting():
    assert len(CONTRACT) >= 60
    assert len(EDITED) >= 25
    assert len(OF_FACTS) >= 150
    assert all(isinstance(fault.planting, Method) for fault in OF_FACTS)
    assert sum(isinstance(fault.planting, Rewired) for fault in FAULTS) >= 10
    assert sum(bool(fault.equivalent) for fault in FAULTS) >= 3


def test_some_faults_have_no_name():
    """A catalogue of what can be named would show nothing of how the diagnosis meets the unknown."""
    assert sum(not fault.named_by and not fault.equivalent for fault in FAULTS) >= 10


def test_a_fault_that_nothing_can_show_has_a_proof_and_no_name():
    equivalent = [fault for fault in FAULTS if fault.equivalent]
    assert [fault.name for fault in equivalent if fault.named_by or not fault.equivalent.endswith(".")] == []
