"""One fault after another: what is caught, how it was named, and when a port is no subject for an audit."""

import importlib
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.audit.catalogue.table import FAULTS
from harness.audit.fault import Answer, Area, EditedConfig, Fault, Overrides, Patch, Rewired
from harness.audit.outcome import Naming, Verdict
from harness.audit.run import Auditor
from harness.errors import GoldensError
from harness.store.reader import GoldenFile
from tests import fakes

GOLDENS = Path(__file__).parents[3] / "goldens"
ANOTHER_WIDTH = EditedConfig(("lm_head",), lambda config: config.update(hidden_size=8))
SCORES = "layers.0.self_attn.scores"


def fault(planting, named_by=(), equivalent="", name="mine"):
    return Fault(name, Area.LOGITS, "it is wrong", planting, frozenset(named_by), equivalent)


class Decoding(fakes.NumpyPort):
    """Runs token by token, too, and puts `factor` times the right thing out in doing so. It reads no configuration."""

    factor = np.float32(1)

    def init_cache(self, batch, capacity, fill):
        return None

    def step(self, cache, inputs, names):
        return {name: value * self.factor for name, value in self.trace(inputs, names).items()}, cache

    def read_cache(self, cache):
        return {}


class WrongInDecode(Decoding):
    factor = np.float32(2)


class ReadsItsConfiguration(Decoding):
    """Its decode is wrong if the width is."""

    def __init__(self, checkpoint, dtype):
        super().__init__(dtype)
        self.factor = np.float32(
            1 if '"hidden_size": 4' in (Path(checkpoint) / "config.json").read_text() else 3
        )


def make_wrong_in_decode(checkpoint, *, dtype):
    return WrongInDecode(dtype)


def make_decoding(checkpoint, *, dtype):
    return ReadsItsConfiguration(checkpoint, dtype)


def make_refusing(checkpoint, *, dtype):
    if '"hidden_size": 4' not in (Path(checkpoint) / "config.json").read_text():
        raise ValueError("the width is no longer 4\nand more")
    return fakes.NumpyPort(dtype)


class Unchained(fakes.NumpyPort):
    """As a whole it is right, and so is every component when it is first run; the head is no more when run again."""

    def apply(self, name, inputs):
        answer = super().apply(name, inputs)
        return {name: -answer[name]} if self.applied.count("lm_head") > 1 else answer


def make_unchained(checkpoint, *, dtype):
    return Unchained(dtype)


def make_here_only(checkpoint, *, dtype):
    if Path(checkpoint).name != "checkpoint":
        raise ValueError("it has another name")
    return fakes.NumpyPort(dtype)


def make_wrong_elsewhere(checkpoint, *, dtype):
    return fakes.NumpyPort(dtype, faulty=() if Path(checkpoint).name == "checkpoint" else {"lm_head"})


class Hiding(fakes.NumpyPort):
    """It says that it has other parameters, and goes on with its own."""

    def parameters(self):
        return dict(zip(fakes.NAMES, self.weights.values(), strict=True))

    def with_parameters(self, overrides):
        return self


def make_hiding(checkpoint, *, dtype):
    return Hiding(dtype)


def make_nothing(checkpoint, *, dtype):
    return fakes.NumpyPort(dtype, missing={component.name for component in fakes.COMPONENTS})


@pytest.fixture
def auditor(tmp_path):
    """Of the small golden file, for a factory of this file or of `tests.fakes`."""
    folder = fakes.write_checkpoint(tmp_path / "checkpoint")
    fakes.write_golden(tmp_path / "tiny.h5", checkpoint=folder)
    file = GoldenFile.open(tmp_path / "tiny.h5")

    def of(factory, module="tests.harness.audit.test_run"):
        return Auditor(file, file.select(), "float32", f"{module}:{factory}", folder)

    return of


def test_a_fault_that_shows_in_decode_only(auditor):
    told = auditor("make_decoding").audit(fault(ANOTHER_WIDTH))
    assert (told.verdict, told.mode, told.first) == (Verdict.CAUGHT, "decode", "embed_tokens")
    assert (told.planted, told.naming, told.cases) == (False, Naming.NOT_NAMED, ["hello"])


def test_a_port_that_is_wrong_in_decode_by_itself_catches_nothing_so(auditor):
    wrong = auditor("make_wrong_in_decode")
    wrong.refuse_wrong()  # decode takes long, and is looked at when a fault shows in nothing else
    with pytest.raises(GoldensError, match=r"fails without any fault, first at embed_tokens \(decode\)"):
        wrong.audit(fault(ANOTHER_WIDTH))


def test_a_port_that_refuses_has_caught_it_when_loading(auditor):
    told = auditor("make_refusing").audit(fault(ANOTHER_WIDTH))
    assert (told.verdict, told.mode, told.first, told.planted) == (Verdict.CAUGHT, "loading", "", False)
    assert told.text.endswith("the width is no longer 4")
    assert told.naming is Naming.NONE


def test_a_port_that_reads_no_configuration_is_the_same_with_another(auditor):
    told = auditor("make", "tests.fakes").audit(fault(ANOTHER_WIDTH))
    assert told.verdict is Verdict.MISSED
    assert told.effect.exact
    assert not told.effect.float64
    assert told.reason.endswith("every answer is bit by bit the same")


def test_an_edit_of_nothing_is_not_planted(auditor):
    told = auditor("make", "tests.fakes").audit(fault(EditedConfig(("lm_head",), lambda config: None)))
    assert (told.verdict, told.effect) == (Verdict.NOT_PLANTED, None)
    assert told.reason == "the checkpoint's config.json has no setting that the fault changes"


def test_what_cannot_be_followed_through_the_port_is_judged_by_itself(auditor):
    """The port does not run layers.0.act. That is no reason to call what is behind it wrong."""
    unchanged = Answer(("layers.0.q_proj",), lambda call: call.output)
    partial = auditor("make_partial", "tests.fakes")
    assert partial.audit(fault(unchanged)).verdict is Verdict.MISSED
    doubled = Answer(("layers.0.q_proj",), lambda call: 2 * call.output)
    assert partial.audit(fault(doubled)).mode == "isolated"
    rewired = partial.audit(fault(Rewired(lambda components: {"lm_head": {"x": "layers.0.q_proj"}})))
    assert (rewired.verdict, rewired.effect) == (Verdict.MISSED, None)
    assert rewired.reason.startswith("the port does not run layers.0.act by itself")
    whole = auditor("make", "tests.fakes")
    assert (
        whole.audit(fault(Rewired(lambda components: {"lm_head": {"x": "layers.0.q_proj"}}))).mode
        == "end-to-end"
    )


def test_what_changes_padding_only_is_said_so(auditor):
    def change(call):
        changed = np.array(call.output)
        changed[0, 0] = 7
        return changed

    told = auditor("make", "tests.fakes").audit(fault(Answer(("layers.0.q_proj",), change)))
    assert told.verdict is Verdict.MISSED
    assert told.reason == "cannot be seen with these inputs: it changes nothing but padding"


def test_an_equivalent_fault_has_its_proof(auditor):
    equal = fault(Answer(("layers.0.act",), lambda call: call.output), equivalent="It is the same thing.")
    told = auditor("make", "tests.fakes").audit(equal)
    assert (told.verdict, told.reason) == (Verdict.EQUIVALENT, "It is the same thing.")
    assert told.effect.exact
    assert told.effect.float64


def test_what_is_called_equivalent_and_is_caught_is_caught(auditor):
    wrong = fault(Answer(("layers.0.act",), lambda call: 2 * call.output), equivalent="It is the same thing.")
    assert auditor("make", "tests.fakes").audit(wrong).verdict is Verdict.CAUGHT


REWIRED = fault(Rewired(lambda components: {"lm_head": {"x": "layers.0.q_proj"}}))


def test_components_that_do_not_add_up_to_the_whole_catch_nothing_so(auditor):
    unchained = auditor("make_unchained")
    unchained.refuse_wrong()
    told = unchained.audit(REWIRED)
    assert told.verdict is Verdict.NOT_PLANTED
    assert told.reason == "components run one after another do not give what the whole port gives"
    unchanged = unchained.audit(fault(Answer(("layers.0.q_proj",), lambda call: call.output)))
    assert (unchanged.verdict, unchanged.mode) == (Verdict.MISSED, "")


def test_a_port_that_offers_too_little_misses_and_what_is_equivalent_stays_so(auditor):
    partial = auditor("make_partial", "tests.fakes")
    assert partial.audit(REWIRED).verdict is Verdict.MISSED
    assert partial.audit(replace(REWIRED, equivalent="It is.")).verdict is Verdict.EQUIVALENT


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        ("make_here_only", ": port .* refused checkpoint .*: it has another name: "),
        ("make_wrong_elsewhere", r", first at lm_head \(end-to-end\): "),
    ],
)
def test_a_port_that_a_copy_of_the_checkpoint_breaks_is_no_subject(auditor, factory, said):
    port = auditor(factory)
    port.refuse_wrong([REWIRED])
    with pytest.raises(GoldensError, match=f"does not hold when made from a copy of its checkpoint{said}"):
        port.refuse_wrong([fault(ANOTHER_WIDTH)])


SOURCE = """
from pathlib import Path

from tests import fakes

FAULTY = () if Path(__file__).parent == Path({folder!r}) else {faulty}


def make(checkpoint, *, dtype):
    return fakes.NumpyPort(dtype, FAULTY)


class Port(fakes.NumpyPort):
    def apply(self, name, inputs):
        return super().apply(name, inputs)


def make_stumbling(checkpoint, *, dtype):
    return Port(dtype)
"""


@pytest.fixture
def source(auditor, tmp_path, monkeypatch):
    """An auditor of a port that is a single module. faulty: the components that are wrong in any copy of it."""
    monkeypatch.syspath_prepend(tmp_path)

    def of(faulty=(), factory="make"):
        (tmp_path / "audited.py").write_text(SOURCE.format(folder=str(tmp_path), faulty=faulty))
        importlib.invalidate_caches()
        return auditor(factory, "audited")

    yield of
    sys.modules.pop("audited", None)


def patched(find, put):
    return fault(Patch(("*",), (("audited.py", find, put),)))


def test_a_port_that_a_copy_of_its_package_breaks_is_no_subject(source):
    port = source(faulty=("layers.0.q_proj",))
    port.refuse_wrong([fault(ANOTHER_WIDTH)])
    with pytest.raises(GoldensError, match=r"copy of its package, first at layers\.0\.q_proj \(end-to-end\)"):
        port.refuse_wrong([patched("dtype, FAULTY", "dtype")])


def test_a_source_that_holds_in_a_copy_is_a_subject(source):
    source().refuse_wrong([patched("dtype, FAULTY", "dtype"), fault(ANOTHER_WIDTH)])


@pytest.mark.parametrize(
    ("find", "put", "said"),
    [
        ("return super()", "return suber()", "at embed_tokens .isolated. the port raised NameError"),
        ("super().apply(name", "super().aply(name", "the port raised AttributeError"),
        ("super().apply(name, inputs)", "super().apply(name)", "the port raised TypeError"),
        ("from tests import fakes", "from tests import fakes, egg", "importing it raised ImportError"),
        ("Port(fakes", "Port(fake", "importing it raised NameError"),
        ("return Port(dtype)", "return Prot(dtype)", "raised NameError"),
    ],
)
def test_a_fault_that_breaks_the_port_is_not_caught_but_told(source, find, put, said):
    with pytest.raises(GoldensError, match=f"fault mine breaks the port: .*{said}"):
        source(factory="make_stumbling").audit(patched(find, put))


@pytest.mark.parametrize(
    ("find", "put", "mode"),
    [
        ("return super()", "raise ValueError; super()", "isolated"),
        ("return Port(dtype)", "raise ValueError('too wide')", "loading"),
    ],
)
def test_a_fault_that_the_port_refuses_is_caught(source, find, put, mode):
    told = source(factory="make_stumbling").audit(patched(find, put))
    assert (told.verdict, told.mode) == (Verdict.CAUGHT, mode)


def test_what_is_called_equivalent_and_could_be_seen_is_missed(auditor):
    """A port that hides it catches nothing; the reference shows by how much it changes things."""
    hides = fault(
        Overrides(lambda parameters, components: {fakes.NAMES[2]: -parameters[fakes.NAMES[2]]}),
        equivalent="It is the same thing.",
    )
    told = auditor("make_hiding").audit(hides)
    assert told.verdict is Verdict.MISSED
    assert told.reason.startswith("said to be equivalent, but changes lm_head (hello) by ")


def test_where_nothing_could_be_compared_nothing_is_said_to_be_the_same(auditor):
    told = auditor("make_nothing").audit(fault(ANOTHER_WIDTH))
    assert told.verdict is Verdict.MISSED
    assert told.reason.startswith("not measured: ")
    assert not told.effect.exact


def test_without_a_case_that_is_read_at_once_components_are_looked_at_by_themselves(built_in):
    """And through the cache; how they are wired cannot be told."""
    goldens = built_in.file.select(include=["rotary_emb.*"], cases=["written.float32"], dtypes=["float32"])
    auditor = replace(built_in, goldens=goldens)
    auditor.refuse_wrong([fault(ANOTHER_WIDTH)])
    backwards = Answer(("rotary_emb.sin",), lambda call: -call.output)
    told = auditor.audit(fault(backwards, {"sign_flipped"}))
    assert (told.mode, told.first, told.naming) == ("isolated", "rotary_emb.sin", Naming.NAMED)
    rewired = Rewired(lambda components: {"lm_head": {"x": "layers.2.mlp_residual"}})
    assert auditor.audit(fault(rewired)).verdict is Verdict.NOT_PLANTED


@pytest.fixture(scope="module")
def built_in():
    file = GoldenFile.open(GOLDENS / "qwen2-tiny.h5")
    folder = GOLDENS / "checkpoints" / "qwen2-tiny"
    goldens = file.select(cases=["tiny-norm"], dtypes=["float32"])
    return Auditor(file, goldens, "float32", "qwen_flax.port:make", folder)


def unscaled(**changes):
    [known] = [fault for fault in FAULTS if fault.name == "scale-missing"]
    return replace(known, **changes)


@pytest.mark.parametrize(
    ("named_by", "naming", "misnamed"),
    [
        ({"scale_missing"}, Naming.NAMED, ""),
        ({"scale_missing", "another"}, Naming.NAMED, ""),
        ({"another"}, Naming.WRONG, f"{SCORES}: "),
        (set(), Naming.WRONG, f"{SCORES}: "),
    ],
)
def test_a_name_is_held_against_those_that_would_be_right(built_in, named_by, naming, misnamed):
    told = built_in.audit(unscaled(named_by=frozenset(named_by)))
    assert (told.first, told.hypotheses) == (SCORES, ["scale_missing"])
    assert told.naming is naming
    assert told.namable == bool(named_by)
    assert told.misnamed.startswith(misnamed)
    assert bool(told.misnamed) == bool(misnamed)


def test_a_wrong_name_behind_the_first_wrong_component_is_wrong_too(built_in):
    """The first layer's scores have no name; the second layer's are not scaled, which is no right name here."""

    def change(call):
        scale = call.component.settings["scaling"]
        return call.output**3 if call.component.name == SCORES else call.output / scale

    told = built_in.audit(fault(Answer(("layers.[01].self_attn.scores",), change), {"another"}))
    assert (told.first, told.hypotheses) == (SCORES, [])
    assert told.naming is Naming.WRONG
    assert told.misnamed.startswith("layers.1.self_attn.scores: ")


def test_no_name_is_not_wrong(built_in):
    cubed = Answer(("*.scores",), lambda call: call.output**3)
    told = built_in.audit(fault(cubed, {"scale_missing"}))
    assert (told.naming, told.hypotheses, told.misnamed) == (Naming.NOT_NAMED, [], "")
    assert told.text
