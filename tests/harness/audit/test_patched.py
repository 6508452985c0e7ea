import sys
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

import qwen_flax.layers
import qwen_flax.port
from harness.audit.fault import Area, EditedConfig, Fault, Patch
from harness.audit.patched import Broken, copied_factory, patched_factory, read_faults
from harness.errors import GoldensError
from harness.model import BY_DEFAULT, Mode, Verdict
from harness.replay.session import Session, recorded_checkpoint
from harness.store.reader import GoldenFile

ROOT = Path(__file__).parents[3]
FAULTS = {fault.name: fault for fault in read_faults(ROOT / "goldens" / "faults" / "qwen_flax.toml")}
ON_DEVICES = read_faults(ROOT / "goldens" / "faults" / "qwen_flax_sharded.toml")
PORT = "qwen_flax.port:make"

# The goldens that a fault is looked for in, until one shows it: of each model, with a window, tied, of many layers, of
# a tiny norm, longer than a window that is off, and with a RoPE that is scaled. bfloat16 last.
RUNS = [
    ("qwen2-tiny", "float32", "left-padded"),
    ("qwen2-tiny", "float32", "tiny-norm"),
    ("qwen3-tiny", "float32", "random-1"),
    ("qwen2-deep", "float32", "random-1"),
    ("qwen2-tiny", "float32", "chat"),
    *((f"qwen2-{scaling}", "float32", "random-1") for scaling in ("linear", "dynamic", "yarn", "llama3")),
    ("qwen2-dynamic", "float32", "hello"),
    ("qwen2-tiny", "bfloat16", "far"),
]
OF_GENERATION = [
    ("qwen2-tiny", "float32", "written.float32"),
    ("qwen3-tiny", "float32", "written-batch.float32"),
]
SAMPLE = {
    "scale-missing",
    "query-norm-skipped",
    "stale-slots-seen",
}


def failures(fault, run):
    """Mode -> the components that fail, in forward order. Only faults that need it are replayed in decode."""
    name, dtype, case = run
    file = GoldenFile.open(ROOT / "goldens" / f"{name}.h5")
    make = patched_factory(PORT, fault)
    session = Session(file, lambda dtype: make(recorded_checkpoint(file), dtype))
    modes = tuple(Mode) if fault.area is Area.CACHE or fault.equivalent else BY_DEFAULT
    recorded = file.select(cases=[case], dtypes=[dtype])
    if fault.area is Area.GENERATION:
        recorded = [*recorded, *file.select_facts(cases=[case], dtypes=[dtype])]
    found = {mode: [] for mode in Mode}
    for result in session.replay(recorded, modes):
        if result.verdict is not Verdict.PASS:
            found[result.mode].append(result.component)
    return found


def expected(fault, component):
    return any(fnmatchcase(component, glob) for glob in fault.planting.at)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fault, id=name, marks=[] if name in SAMPLE else pytest.mark.slow)
        for name, fault in FAULTS.items()
    ],
)
def test_a_fault_shows_where_it_says(fault):
    if fault.equivalent:
        runs = [run for run in RUNS if run[1] == "float32"][:3]
        assert all(not any(failures(fault, run).values()) for run in runs)
        return
    runs = OF_GENERATION if fault.area is Area.GENERATION else RUNS
    shown = next((found for run in runs if any((found := failures(fault, run)).values())), {})
    first = next((mode for mode in Mode if shown.get(mode)), None)
    if fault.area in (Area.CACHE, Area.GENERATION):
        assert first is Mode.DECODE
    if fault.area is Area.WIRING:
        assert first in (Mode.ISOLATED, Mode.END_TO_END)  # isolated, where a module is never run, or twice
    if first is Mode.ISOLATED:
        assert all(expected(fault, component) for component in shown[first])
    else:
        assert first is not None
        assert expected(fault, shown[first][0]), shown[first][0]


@pytest.mark.parametrize("fault", [*FAULTS.values(), *ON_DEVICES], ids=lambda fault: fault.name)
def test_a_fault_applies_to_the_source_as_it_is(fault):
    patched_factory(PORT, fault)  # refuses text that is not there exactly once
    assert all(find != put for _, find, put in fault.planting.replace)


def test_there_are_faults_in_every_area():
    assert {fault.area for fault in FAULTS.values()} == set(Area) - {
        Area.TOKENIZER,
        Area.SAMPLING,
        Area.SHARDING,
    }
    assert len(FAULTS) >= 50
    assert sum(fault.area is Area.CACHE for fault in FAULTS.values()) >= 12


def patch(*replace, at=("*",)):
    return Fault("spoilt", Area.SCORES, "spoilt", Patch(at, replace))


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of two modules, one of which is imported when the factory runs."""
    folder = tmp_path / "spam"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "port.py").write_text(
        "def make(checkpoint, *, dtype):\n    from spam.late import VALUE\n    return Port(VALUE)\n\n\n"
        "class Port:\n    def __init__(self, value):\n        self.value = value\n\n"
        "    def trace(self, inputs, names):\n        return {'lm_head': self.value}\n"
    )
    (folder / "late.py").write_text("VALUE = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "spam"]:
        del sys.modules[name]


def test_copies_stand_beside_the_right_package(package):
    from spam.late import VALUE

    path, modules = [*sys.path], dict(sys.modules)
    ports = [
        patched_factory("spam.port:make", patch(("late.py", "1", value)))("", "float32")
        for value in ("2", "3")
    ]
    assert [port.value for port in ports] == [2, 3]
    assert VALUE == 1
    assert sys.path == path
    assert {name: module for name, module in sys.modules.items() if name in modules} == modules
    assert "spam.port" not in sys.modules
    assert (package / "late.py").read_text() == "VALUE = 1\n"


def test_a_file_is_edited_in_several_places(package):
    fault = patch(("port.py", "'lm_head'", "'norm'"), ("port.py", "self.value}", "7}"), ("late.py", "1", "2"))
    port = patched_factory("spam.port:make", fault)("", "float32")
    assert (port.trace({}, []), port.value) == ({"norm": 7}, 2)


def test_what_was_imported_is_put_back_when_the_copy_breaks(package):
    import spam.late

    path = [*sys.path]
    with pytest.raises(Broken, match=r"fault spoilt breaks the port: importing it raised NameError"):
        patched_factory("spam.port:make", patch(("port.py", "class Port:", "class Port(Egg):")))(
            "", "float32"
        )
    assert sys.modules["spam.late"] is spam.late
    assert sys.path == path


@pytest.mark.parametrize(
    ("put", "raised"),
    [
        ("Port(VALUE", "SyntaxError"),
        ("Prot(VALUE)", "NameError"),
        ("None", "which has no method 'trace'"),
        ("open.egg", "AttributeError"),
    ],
)
def test_a_copy_of_which_no_port_is_made_is_broken(package, put, raised):
    with pytest.raises(Broken, match=f"fault spoilt breaks the port: .*{raised}"):
        patched_factory("spam.port:make", patch(("port.py", "Port(VALUE)", put)))("", "float32")


def test_a_copy_whose_import_raises_what_a_refusal_raises_is_broken(package):
    with pytest.raises(Broken, match="importing it raised ValueError"):
        patched_factory("spam.port:make", patch(("port.py", "class Port:", "class Port(int('x')):")))("", "f")


@pytest.mark.parametrize("error", ["ValueError", "FileNotFoundError"])
def test_a_copy_that_refuses_the_checkpoint_is_not_broken(package, error):
    refusing = patch(("port.py", "return Port(VALUE)", f"raise {error}('too wide')"))
    with pytest.raises(GoldensError, match=r"refused checkpoint .*: too wide") as raised:
        patched_factory("spam.port:make", refusing)("", "float32")
    assert not isinstance(raised.value, Broken)


def test_a_copy_without_any_patch_is_made_of_the_package(package):
    port = copied_factory("spam.port:make")("", "float32")
    assert port.value == 1
    assert "spam.port" not in sys.modules


def test_a_single_module_is_patched(tmp_path, monkeypatch):
    (tmp_path / "spam_port.py").write_text(
        "def make(checkpoint, *, dtype):\n    return Port()\n\n\n"
        "class Port:\n    def trace(self, inputs, names):\n        return {'lm_head': 1}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    port = patched_factory("spam_port:make", patch(("spam_port.py", "1", "2")))("", "float32")
    assert port.trace({}, []) == {"lm_head": 2}


def test_the_right_port_stays_the_right_one():
    right = qwen_flax.layers.Attention.scores
    checkpoint = str(ROOT / "goldens" / "checkpoints" / "qwen2-tiny")
    port = patched_factory(PORT, FAULTS["scale-missing"])(checkpoint, "float32")
    assert type(port).__module__ == "qwen_flax.port"
    assert type(port) is not qwen_flax.port.Port
    assert sys.modules["qwen_flax.layers"].Attention.scores is right


@pytest.mark.parametrize(
    ("replace", "message"),
    [
        (("layers.py", "spam", ""), r"fault spoilt: layers\.py of qwen_flax holds 'spam' 0 times"),
        (("layers.py", "self", ""), r"fault spoilt: layers\.py of qwen_flax holds 'self' \d+ times"),
        (("spam.py", "self", ""), r"fault spoilt: there is no file spam\.py in qwen_flax"),
        (("../README.md", "self", ""), r"fault spoilt: there is no file \.\./README\.md in qwen_flax"),
    ],
)
def test_a_patch_that_does_not_fit_is_refused(replace, message):
    with pytest.raises(GoldensError, match=message):
        patched_factory(PORT, patch(replace))


def test_only_patches_are_planted_by_editing_source():
    fault = Fault("eps", Area.CONFIG, "eps", EditedConfig(("norm",), lambda config: None))
    with pytest.raises(GoldensError, match="fault eps is no patch"):
        patched_factory(PORT, fault)


@pytest.mark.parametrize("spec", ["spam_spam.port:make", ":make", "sys:exit"])
def test_a_port_without_source_is_refused(spec):
    with pytest.raises(GoldensError, match="there is no source of"):
        patched_factory(spec, patch(("port.py", "a", "b")))


ENTRY = """
[[fault]]
name = "scale-missing"
area = "scores"
says = "not scaled"
at = ["*.scores"]
replace = [{ file = "layers.py", find = "a", with = "b" }]
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ENTRY + 'spam = "egg"', r"fault\[0\] \(scale-missing\): .*unknown field `spam`"),
        (ENTRY + ENTRY, "fault scale-missing is there twice"),
        (ENTRY.replace("scores", "spam", 1), r"fault\[0\]\.area \(scale-missing\)"),
        (ENTRY.replace('at = ["*.scores"]', "at = []"), r"fault\[0\]\.at \(scale-missing\)"),
        (ENTRY.replace("scale-missing", "Scale Missing"), r"fault\[0\]"),
        (ENTRY.replace(', with = "b"', ""), "with"),
        ("", "fault"),
    ],
)
def test_a_file_of_faults_is_read_strictly(tmp_path, text, message):
    path = tmp_path / "faults.toml"
    path.write_text(text)
    with pytest.raises(GoldensError, match=message):
        read_faults(path)


def test_a_fault_is_read_whole(tmp_path):
    path = tmp_path / "faults.toml"
    path.write_text(ENTRY + 'named_by = ["scale_missing"]\nequivalent = "proof"\n')
    planting = Patch(("*.scores",), (("layers.py", "a", "b"),))
    named_by = frozenset({"scale_missing"})
    assert read_faults(path) == [
        Fault("scale-missing", Area.SCORES, "not scaled", planting, named_by, "proof")
    ]
