"""`--mesh`: the same goldens on several devices, in one process and in several that share them."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from qwen_flax.port import make

ROOT = Path(__file__).parents[2]
GOLDENS = ROOT / "goldens"
EIGHT = str(GOLDENS / "qwen2-eight.h5")
TINY = (str(GOLDENS / "qwen2-tiny.h5"), "--case", "left-padded", "--dtype", "float32")


def single(checkpoint, *, dtype):
    """A factory that knows of no mesh."""
    return make(checkpoint, dtype=dtype)


def start(*arguments, **environment):
    """`goldens` in a process of its own, whose JAX has not looked at any device yet."""
    return subprocess.Popen(
        [sys.executable, "-m", "harness.cli", *arguments],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "COLUMNS": "200", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process, seconds=300):
    try:
        out, err = process.communicate(timeout=seconds)
    finally:
        process.kill()
    return process.returncode, out, err


def verdicts(run):
    return {(r["component"], r["case"], r["mode"]): r["verdict"] for r in run["results"]}


def test_verdicts_are_those_of_one_device_and_the_run_says_what_it_ran_on(goldens, tmp_path):
    chosen = ("replay", *TINY, "--include", "layers.1.*", "--include", "lm_head", "--json")
    process = start(*chosen, "--mesh", "dp=2,tp=2", "--report", str(tmp_path / "run.md"))
    told = goldens(*chosen)
    status, out, err = ended(process)
    assert (status, told.status) == (0, 0), err
    one, four = json.loads(told.out), json.loads(out)
    assert verdicts(four) == verdicts(one)
    assert (one["environment"]["mesh"], four["environment"]["mesh"]) == ("", "dp=2,tp=2")
    assert "dp=2,tp=2, in 1 process" in (tmp_path / "run.md").read_text()


@pytest.mark.parametrize("mesh", ["tp=8", pytest.param("dp=4,tp=2", marks=pytest.mark.slow)])
def test_a_model_with_eight_key_value_heads_is_split_over_eight_devices(mesh):
    status, out, err = ended(start("replay", EIGHT, "--mesh", mesh, "--json"))
    assert status == 0, out + err
    assert json.loads(out)["counts"]["fail"] == 0


@pytest.mark.slow
def test_key_value_heads_that_there_are_fewer_of_are_whole_on_every_device():
    chosen = (str(GOLDENS / "qwen3-tiny.h5"), "--case", "left-padded", "--dtype", "float32")
    layer = ("--include", "layers.1.self_attn.*", "--mode", "all", "--json")
    status, out, err = ended(start("replay", *chosen, *layer, "--mesh", "tp=8"))
    assert status == 0, out + err


@pytest.mark.parametrize(
    ("count", "mesh"), [(2, "tp=2"), pytest.param(4, "dp=2,tp=2", marks=pytest.mark.slow)]
)
def test_processes_share_a_mesh_and_the_first_of_them_reports(count, mesh, tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    report = tmp_path / "run.json"
    chosen = ("replay", *TINY, "--include", "layers.0.mlp.*", "--include", "norm", "--json", "--mesh", mesh)
    processes = [
        start(
            *chosen,
            *("--report", str(report)),
            JAX_COORDINATOR_ADDRESS=f"localhost:{port}",
            JAX_NUM_PROCESSES=str(count),
            JAX_PROCESS_ID=str(number),
        )
        for number in range(count)
    ]
    (status, out, err), *others = map(ended, processes)
    assert status == 0, err
    run = json.loads(out)
    assert run["verdict"] == "pass"
    assert (run["environment"]["mesh"], run["environment"]["processes"]) == (mesh, count)
    assert [(status, out) for status, out, _ in others] == [(0, "")] * (count - 1)
    assert json.loads(report.read_text())["verdict"] == "pass"


def refused(told):
    assert (told.status, told.out) == (2, "")
    assert told.err.count("\n") == 1, told.err
    return told.err


@pytest.mark.parametrize("text", ["tp", "tp=0", "tp=2,", "tp=2,tp=4", "2", "tp=two"])
def test_a_mesh_is_written_as_axes_and_numbers(goldens, text):
    assert "write it as dp=2,tp=4" in refused(goldens("replay", *TINY, "--mesh", text))


def test_a_port_whose_factory_takes_no_mesh_is_refused(goldens):
    port = ("--port", "tests.commands.test_replay_mesh:single")
    assert "runs on one device" in refused(goldens("replay", *TINY, *port, "--mesh", "tp=1"))


def test_an_axis_that_the_port_does_not_know_is_refused(goldens):
    assert "has an axis pp" in refused(goldens("replay", *TINY, "--mesh", "pp=1"))


def test_more_devices_than_there_are_once_jax_has_started_are_refused(goldens):
    goldens("replay", *TINY, "--include", "norm", "--mode", "isolated")
    assert "is 999 devices, but JAX has " in refused(goldens("replay", *TINY, "--mesh", "tp=999"))


def test_explain_takes_a_mesh(goldens):
    assert goldens("explain", *TINY, "--include", "norm", "--mesh", "tp=1").status == 0


@pytest.mark.slow
def test_check_port_takes_a_mesh(goldens):
    assert goldens("check-port", EIGHT, "--case", "far", "--mesh", "tp=1").status == 0


@pytest.mark.parametrize("number", ["0", "1"])
def test_processes_that_do_not_come_together_are_told_so(number):
    """JAX itself would abort, with a stack trace and after minutes."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    shared = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": number}
    status, out, err = ended(start("replay", *TINY, "--mesh", "tp=2", "--timeout", "2", **shared))
    assert (status, out) == (2, "")
    sentence = f"goldens: the processes of JAX_COORDINATOR_ADDRESS={address}, of which this is number {number}, did not"
    assert err.startswith(sentence), err
    assert err.count("\n") == 1, err
