"""`goldens record --from-port`: a port's own past, which a later version of it is held against."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from harness.store.reader import GoldenFile
from qwen_flax.port import make
from tests.commandline import runner
from tests.fakes import write_checkpoint, write_golden

ROOT = Path(__file__).parents[2]
MINE = ("--like", "tiny.h5", "-o", "mine.h5")
PORT = ("--port", "tests.fakes:make")


@pytest.fixture
def goldens(monkeypatch, capsys, tmp_path):
    """Run `goldens` in a folder that has `tiny.h5`, of two cases and two dtypes."""
    checkpoint = write_checkpoint(tmp_path / "checkpoint")
    write_golden(tmp_path / "tiny.h5", ("float32", "bfloat16"), ("hello", "padded"), checkpoint)
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.chdir(tmp_path)
    return runner(monkeypatch, capsys)


def recorded(goldens, *more, port=PORT):
    told = goldens("record", "--from-port", *MINE, *port, *more)
    assert told.status == 0, told.err
    return GoldenFile.open("mine.h5")


def test_a_port_passes_against_its_own_past(goldens):
    file = recorded(goldens)
    assert (len(file.contents.goldens), file.dtypes) == (20, ["float32", "bfloat16"])
    assert goldens("verify", "mine.h5").status == 0
    told = goldens("replay", "mine.h5", *PORT)
    assert told.status == 0, told
    assert "mine.h5: 36 pass, 0 fail, 0 unmeasured" in told.out


def test_a_port_that_was_changed_fails_against_it(goldens):
    recorded(goldens)
    told = goldens("replay", "mine.h5", "--port", "tests.fakes:make_faulty")
    assert told.status == 1
    assert "layers.0.q_proj   hello float32 isolated   FAIL" in told.out


def test_it_guards_what_the_port_does_right_or_wrong(goldens):
    """No mistake of the port's widens what passes: its floors are the reference's."""
    file = recorded(goldens, port=("--port", "tests.fakes:make_faulty"))
    assert goldens("replay", "mine.h5", "--port", "tests.fakes:make_faulty").status == 0
    told = goldens("replay", "mine.h5", *PORT)
    assert told.status == 1
    assert "layers.0.q_proj   hello float32 isolated   FAIL   error 9" in told.out
    theirs = {(g.component, g.case, g.dtype): g for g in GoldenFile.open("tiny.h5").contents.goldens}
    for golden in file.contents.goldens:
        framed = theirs[golden.component, golden.case, golden.dtype]
        assert (golden.isolated, golden.end_to_end) == (framed.isolated, framed.end_to_end)


def test_inputs_are_what_the_port_put_out(goldens):
    file = recorded(goldens, port=("--port", "tests.fakes:make_faulty"))
    rows = {(g.component, g.case, g.dtype): g for g in file.contents.goldens}
    act = rows["layers.0.act", "hello", "float32"]
    assert act.inputs["x"] == rows["layers.0.q_proj", "hello", "float32"].output
    assert rows["layers.0", "hello", "float32"].output == act.output, "a composite is written once"
    theirs = GoldenFile.open("tiny.h5")
    old = next(g for g in theirs.contents.goldens if g.component == "layers.0.q_proj")
    assert not np.array_equal(file.tensor(act.inputs["x"]), theirs.output(old))


def test_nobody_takes_it_for_the_reference(goldens):
    provenance = recorded(goldens).contents.provenance
    assert provenance["port"] == "tests.fakes:make"
    assert {"jax", "numpy", "python"} <= set(provenance["versions"])
    assert provenance["like"] == {"file": "tiny.h5", "digest": GoldenFile.open("tiny.h5").digest}
    assert not GoldenFile.open("mine.h5").contents.facts
    told = "recorded from the port tests.fakes:make, not "
    assert f"{told}from the reference" in goldens("show", "mine.h5").out
    assert f"{told}the reference" in goldens("replay", "mine.h5", *PORT).out
    assert "recorded from" not in goldens("replay", "tiny.h5", *PORT).out


def test_recording_again_leaves_it_or_waits(goldens):
    recorded(goldens)
    before = Path("mine.h5").read_bytes()
    told = goldens("record", "--from-port", *MINE, *PORT)
    assert told.status == 0
    assert "mine.h5: recorded again, bit by bit the same; left as it is" in told.out
    told = goldens("record", "--from-port", *MINE, "--port", "tests.fakes:make_faulty")
    assert told.status == 1
    assert "provenance changed: port   tests.fakes:make -> tests.fakes:make_faulty" in told.out
    assert Path("mine.h5").read_bytes() == before
    assert goldens("accept", "mine.h5").status == 0
    assert GoldenFile.open("mine.h5").contents.provenance["port"] == "tests.fakes:make_faulty"


def test_what_is_not_offered_is_told_by_name(goldens):
    told = goldens("record", "--from-port", *MINE, "--port", "tests.fakes:make_partial")
    assert told.status == 0
    assert "not offered by the port, so not recorded: layers.0.act\n" in told.err
    file = GoldenFile.open("mine.h5")
    assert "layers.0.act" not in [component.name for component in file.contents.components]
    head = next(golden for golden in file.contents.goldens if golden.component == "lm_head")
    assert (head.inputs, head.isolated) == ({}, None), "what it takes in is not known"
    assert goldens("replay", "mine.h5", "--port", "tests.fakes:make_partial").status == 0


def test_cases_and_dtypes(goldens):
    file = recorded(goldens, "--case", "padded", "--dtype", "bfloat16")
    assert {(g.case, g.dtype) for g in file.contents.goldens} == {("padded", "bfloat16")}
    assert [case.name for case in file.contents.cases] == ["padded"]


@pytest.mark.parametrize("named", ["relative", "absolute"])
def test_the_checkpoint_is_found_from_the_new_file(goldens, tmp_path, named):
    checkpoint = tmp_path / "checkpoint" if named == "absolute" else Path("checkpoint")
    (tmp_path / "elsewhere").mkdir()
    told = goldens("record", "--from-port", "--like", "tiny.h5", "-o", "elsewhere/mine.h5", *PORT,
                   "--checkpoint", str(checkpoint))  # fmt: skip
    assert told.status == 0, told.err
    found = GoldenFile.open("elsewhere/mine.h5").contents.provenance["checkpoint"]
    assert found == (str(checkpoint) if named == "absolute" else "../checkpoint")
    assert goldens("replay", "elsewhere/mine.h5", *PORT).status == 0


class Strange:
    """A port whose logits are changed by `edit`."""

    def __init__(self, dtype, edit):
        from tests.fakes import NumpyPort

        self._port, self._edit = NumpyPort(dtype), edit

    def trace(self, inputs, names):
        found = self._port.trace(inputs, names)
        return self._edit(found)


def make_raising(checkpoint, *, dtype):
    def refuse(found):
        raise RuntimeError("out of order")

    return Strange(dtype, refuse)


def make_nan(checkpoint, *, dtype):
    return Strange(
        dtype, lambda found: found | {"lm_head": found["lm_head"] * np.array(np.nan, found["lm_head"].dtype)}
    )


def make_short(checkpoint, *, dtype):
    return Strange(dtype, lambda found: found | {"lm_head": found["lm_head"][:, :2]})


def make_wide(checkpoint, *, dtype):
    return Strange(dtype, lambda found: found | {"lm_head": found["lm_head"].astype(np.float64)})


def make_silent(checkpoint, *, dtype):
    return Strange(dtype, lambda found: {})


def make_list(checkpoint, *, dtype):
    return Strange(dtype, lambda found: [])


@pytest.mark.parametrize(
    ("maker", "sentence"),
    [
        ("raising", "in case hello, float32, it raised RuntimeError: out of order"),
        ("nan", "lm_head is NaN or infinite"),
        ("short", "lm_head is float32 (2, 2, 16), where float32 (2, 3, 16) was expected"),
        ("wide", "lm_head is float64 (2, 3, 16), where float32 (2, 3, 16) was expected"),
        ("silent", "hands out no component of tiny.h5"),
        ("list", "the port gave a list, where a mapping of names to arrays was expected"),
    ],
)
def test_a_port_that_cannot_be_recorded_gets_one_sentence(goldens, maker, sentence):
    told = goldens("record", "--from-port", *MINE, "--port", f"{__name__}:make_{maker}")
    assert told.status == 2
    assert sentence in told.err
    assert told.err.count("\n") == 1, told.err
    assert not list(Path().glob("mine*"))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--from-port", *PORT, "-o", "mine.h5"], "needs --like GOLDEN.h5"),
        (["--from-port", *PORT, "--like", "tiny.h5"], "and -o FILE.h5 for its own"),
        (["--from-port", *MINE], "no port is named: say which with --port"),
        (["--from-port", *MINE, *PORT, "--case", "bye"], "case 'bye' was not recorded in tiny.h5"),
        (["--from-port", *MINE, *PORT, "--keep", "layers=0"], "--keep, --dry-run and --resume"),
        (["--from-port", *MINE, *PORT, "--resume"], "--keep, --dry-run and --resume"),
        (["suite.toml", "--from-port", *MINE, *PORT], "--keep, --dry-run and --resume"),
        (["suite.toml", *PORT], "give --from-port as well"),
        (["suite.toml", "--like", "tiny.h5"], "give --from-port as well"),
        (["--from-port", "--like", "no.h5", "-o", "mine.h5", *PORT], "there is no golden file no.h5"),
        (
            ["--from-port", "--like", "tiny.h5", "-o", "tiny.h5", *PORT],
            "tiny.h5 was recorded from the reference",
        ),
        (["--from-port", *MINE, *PORT, "--checkpoint", "elsewhere"], "elsewhere"),
    ],
)
def test_what_cannot_be_asked_gets_one_sentence(goldens, arguments, sentence):
    told = goldens("record", *arguments)
    assert told.status == 2
    assert sentence in told.err
    assert told.err.count("\n") == 1, told.err


class Forgetful:
    """The port of qwen_flax, whose cache tells of other keys than were put out."""

    def __init__(self, port):
        self._port = port

    def __getattr__(self, name):
        return getattr(self._port, name)

    def read_cache(self, cache):
        return {name: np.asarray(value) * 2 for name, value in self._port.read_cache(cache).items()}


def make_forgetful(checkpoint, *, dtype):
    return Forgetful(make(checkpoint, dtype=dtype))


WRITTEN = ("--case", "written.float32", "--dtype", "float32")


def test_a_text_is_read_through_the_ports_cache(goldens):
    like = ("--like", str(ROOT / "goldens" / "qwen2-tiny.h5"), "-o", "mine.h5")
    told = goldens("record", "--from-port", *like, *WRITTEN, "--port", "qwen_flax.port:make")
    assert told.status == 0, told.err
    assert "mine.h5: 80 goldens of 80 components in 1 cases" in told.out
    told = goldens("replay", "mine.h5", "--port", "qwen_flax.port:make", "--include", "layers.1.self_attn.*")
    assert told.status == 0, told.out
    rows = [line.split() for line in told.out.splitlines() if line.startswith("float32")]
    assert [(mode, int(passed)) for _, mode, passed, *_ in rows] == [("isolated", 11), ("decode", 13)]
    refused = goldens("record", "--from-port", *like, *WRITTEN, "--port", f"{__name__}:make_forgetful")
    assert refused.status == 2
    assert "in case written.float32, float32, layers.0.self_attn.v_proj: slot 0 does" in refused.err
    partial = goldens("record", "--from-port", *like[:2], "-o", "other.h5", *WRITTEN, *PORT)
    assert partial.status == 2
    assert "hands out no component of" in partial.err


def test_it_needs_no_torch(goldens):
    program = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'transformers'):\n"
        "            raise ModuleNotFoundError(name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "from harness.cli.app import main\n"
        f"sys.argv = ['goldens', 'record', '--from-port', *{(*MINE, *PORT)!r}]\n"
        "main()\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)}
    )
    assert run.returncode == 0, run.stderr
    assert "mine.h5: 20 goldens" in run.stdout
