"""`--goldens-mesh`, `goldens_mesh`: the devices that the named port is spread over."""

import json
from collections.abc import Callable

import jax
import pytest

from tests.fakes import NumpyPort

pytest_plugins = ["pytester"]
Run = Callable[..., pytest.RunResult]

SPLIT = """
from tests.plugin.test_mesh import on_mesh

def make(checkpoint, *, dtype, mesh=None):
    return on_mesh(mesh, dtype)
"""
ONE = 'cases="hello", dtypes="float32", modes="isolated"'


def on_mesh(mesh: "jax.sharding.Mesh | None", dtype: str) -> NumpyPort:
    """A port that is wrong unless it is spread over `tp=1`."""
    right = mesh is not None and dict(mesh.shape) == {"tp": 1}
    return NumpyPort(dtype, faulty=() if right else {"layers.0.q_proj"})


@pytest.fixture
def split(project: pytest.Pytester, parity: Run) -> Run:
    project.makepyfile(split_port=SPLIT)
    return lambda *arguments: parity("--goldens-port=split_port:make", *arguments, keywords=ONE)


def test_the_port_is_made_on_the_mesh_that_the_flag_names(project: pytest.Pytester, split: Run) -> None:
    assert split().ret == pytest.ExitCode.TESTS_FAILED
    assert split("--goldens-mesh=tp=1", "--goldens-report=run.json").ret == pytest.ExitCode.OK
    assert json.loads((project.path / "run.json").read_text())["environment"]["mesh"] == "tp=1"


def test_the_line_that_runs_a_test_again_has_the_flag(split: Run) -> None:
    split("--goldens-mesh=dp=1").stdout.fnmatch_lines(["*again: pytest *--goldens-mesh=dp=1 *"])


def test_the_ini_name_says_so_too(project: pytest.Pytester, split: Run) -> None:
    split()
    project.makeini("[pytest]\ngoldens_port = split_port:make\ngoldens_mesh = tp=1\n")
    assert project.runpytest().ret == pytest.ExitCode.OK
    assert project.runpytest("--goldens-mesh=dp=1").ret == pytest.ExitCode.TESTS_FAILED


def test_a_port_that_takes_no_mesh_is_refused(parity: Run) -> None:
    parity("--goldens-mesh=tp=1", keywords=ONE).stdout.fnmatch_lines(["*runs on one device*"])


def test_a_mesh_that_is_none_is_refused_before_anything_runs(parity: Run) -> None:
    result = parity("--goldens-mesh=four")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*goldens_mesh: mesh 'four' does not say how many devices*"])
