"""What may not change anything: time, the order of tests, threads. `benchmarks/determinism.py` has more settings.

That verdicts are the same under pytest-xdist is in `tests/plugin/test_xdist.py`, and that a recording by the recorder's
own API is the same twice in `tests/harness/record/test_recorder.py`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.store.reader import GoldenFile
from tests.commands.conftest import goldens  # noqa: F401
from tests.fakes import write_checkpoint, write_golden

pytest_plugins = ["pytester"]
ROOT = Path(__file__).parents[2]
RECORD = ("record", "suites/small.toml", "--case", "random-1", "--keep", "layers=1")
REPLAY = (
    "replay",
    str(ROOT / "goldens" / "qwen2-tiny.h5"),
    "--port",
    "qwen_flax.port:make",
    "--case",
    "left-padded",
)
PARITY = """
import pytest

@pytest.mark.goldens("tiny.h5")
def test_component(goldens, port):
    goldens.check(port)
"""
BACKWARDS = """
def pytest_collection_modifyitems(items):
    items.reverse()
"""


def test_a_suite_recorded_twice_has_one_digest(goldens):  # noqa: F811
    pytest.importorskip("torch")
    for name in ("first.h5", "second.h5"):
        assert goldens(*RECORD, "-o", name).status == 0
    first, second = (GoldenFile.open(Path(name)) for name in ("first.h5", "second.h5"))
    assert first.digest == second.digest
    told = goldens("diff", "first.h5", "--against", "second.h5")
    assert told.status == 0
    assert "0 changes" in told.out or "change" not in told.out, told.out


def test_recorded_with_other_threads_it_agrees(goldens):  # noqa: F811
    """Its digest is another, since it says how many threads there were; and its sums may be rounded otherwise."""
    torch = pytest.importorskip("torch")
    assert goldens(*RECORD).status == 0
    before, threads = Path("small.h5").read_bytes(), torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        told = goldens(*RECORD)
    finally:
        torch.set_num_threads(threads)
    assert told.status == 0, told.out
    assert "small.h5: recorded again, " in told.out
    assert Path("small.h5").read_bytes() == before


@pytest.fixture
def judged(pytester, monkeypatch):
    """What tests of a faulty port report, apart from what it ran on."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("CI", raising=False)
    checkpoint = write_checkpoint(pytester.path / "checkpoint")
    write_golden(pytester.path / "tiny.h5", ("float32", "bfloat16"), ("hello", "padded"), checkpoint)
    pytester.makeini("[pytest]\ngoldens_port = tests.fakes:make_faulty\n")
    pytester.makepyfile(test_parity=PARITY)

    def run(*arguments):
        asked = ("-p", "harness.plugin", "-p", "no:cacheprovider", "-rN", "--goldens-report=run.json")
        told = pytester.runpytest(*asked, *arguments)
        report = json.loads((pytester.path / "run.json").read_text())
        report.pop("environment")
        report.pop("pictures")  # of what passes alike well, the one that ran first is drawn
        return told.parseoutcomes(), report

    return run


def test_the_order_of_tests_changes_no_verdict(judged, pytester):
    forwards = judged()
    pytester.makeconftest(BACKWARDS)
    backwards = judged()
    assert backwards == forwards
    assert forwards[0]["failed"] > 0
    assert forwards[0]["passed"] > 0


def test_a_test_alone_judges_as_among_all(judged):
    _, everything = judged()
    for result in everything["results"][:: len(everything["results"]) // 6]:
        _, alone = judged("-k", "{component} and {case} and {dtype} and {mode}".format(**result))
        assert result in alone["results"]


@pytest.mark.parametrize("mode", ["isolated", pytest.param("end-to-end", marks=pytest.mark.slow)])
def test_threads_change_no_verdict_of_a_port(mode):
    """Half of what is compared is wrong, so that there are two verdicts to change."""
    limited = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    several = {"OMP_NUM_THREADS": "2", "XLA_FLAGS": ""}
    asked = (
        "--port",
        "tests.ports:seed_rule",
        "--dtype",
        "float32",
        "--include",
        "layers.0.*",
        "--mode",
        mode,
        "--json",
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "harness.cli", *REPLAY, *asked],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            text=True,
        )
        for environment in ({"OMP_NUM_THREADS": "1", "XLA_FLAGS": limited}, several)
    ]
    one, two = (json.loads(process.communicate(timeout=600)[0])["results"] for process in processes)
    assert [process.returncode for process in processes] == [1, 1]
    assert [(r["component"], r["verdict"]) for r in one] == [(r["component"], r["verdict"]) for r in two]
    assert {"pass", "fail"} <= {result["verdict"] for result in one}
