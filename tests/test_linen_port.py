"""A second correct port, rounded elsewhere, passes as the first one does."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from harness.model import Mode, Verdict
from harness.replay.port import Isolated, Port, Weighted, load_port, wired
from harness.replay.session import Session
from harness.store.reader import GoldenFile
from tests.linen_port import make

ROOT = Path(__file__).parent.parent
CASES = {"qwen2-tiny": "left-padded", "qwen3-tiny": "random-1", "qwen2-deep": "left-padded"}
"""Between them: padding, a window that is left, norms of heads, both heads, twelve layers."""


def folder(name):
    return str(ROOT / "goldens" / "checkpoints" / name)


def replayed(name, port, cases, dtype, include=()):
    file = GoldenFile.open(ROOT / "goldens" / f"{name}.h5")
    session = Session(file, lambda _: port)
    goldens = file.select(include=include, cases=cases, dtypes=[dtype])
    return list(session.replay(goldens, (Mode.ISOLATED, Mode.END_TO_END)))


def second(name, dtype):
    return load_port("tests.linen_port:make", folder(name), dtype)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("qwen2-tiny", "bfloat16"),
        ("qwen3-tiny", "float32"),
        pytest.param("qwen2-tiny", "float32", marks=pytest.mark.slow),
        pytest.param("qwen3-tiny", "bfloat16", marks=pytest.mark.slow),
        pytest.param("qwen2-deep", "float32", marks=pytest.mark.slow),
    ],
)
def test_every_component_passes(name, dtype):
    results = replayed(name, second(name, dtype), (CASES[name],), dtype)
    assert results
    assert [result for result in results if result.verdict is not Verdict.PASS] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_every_case_passes(name):
    file = GoldenFile.open(ROOT / "goldens" / f"{name}.h5")
    for dtype in file.dtypes:
        results = replayed(name, second(name, dtype), (), dtype)
        assert [result for result in results if result.verdict is not Verdict.PASS] == []


def test_it_is_rounded_elsewhere_than_the_first():
    """Otherwise it would be no second opinion."""
    file = GoldenFile.open(ROOT / "goldens" / "qwen3-tiny.h5")
    first, other = (
        wired(load_port(spec, folder("qwen3-tiny"), "float32"), file.contents.components)
        for spec in ("qwen_flax.port:make", "tests.linen_port:make")
    )
    apart = set()
    for golden in file.select(
        ["layers.1.*", "norm", "lm_head", "rotary_emb.*"], cases=["far"], dtypes=["float32"]
    ):
        if golden.isolated is not None:
            inputs = file.inputs(golden)
            ours, theirs = (
                np.asarray(p.apply(golden.component, inputs)[golden.component]) for p in (other, first)
            )
            if (ours != theirs).any():
                apart.add(file.component(golden.component).kind)
    products = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"}
    assert apart >= products | {"rms_norm", "cos", "sin", "act"}


def test_it_shares_no_code_with_the_first():
    check = "import sys, tests.linen_port; assert not [name for name in sys.modules if name.startswith('qwen_flax')]"
    subprocess.run([sys.executable, "-c", check], check=True, cwd=ROOT)


def test_its_parameters_can_be_read_and_replaced():
    port = second("qwen3-tiny", "float32")
    assert isinstance(port, Port)
    assert isinstance(port, Isolated)
    assert isinstance(port, Weighted)
    name = "model.layers.1.self_attn.v_proj.weight"
    other = port.with_parameters({name: 1.01 * port.parameters()[name]})
    results = replayed("qwen3-tiny", other, ("far",), "float32", ["layers.1.self_attn.[kv]_proj"])
    failing = {result.component for result in results if result.verdict is Verdict.FAIL}
    assert failing == {"layers.1.self_attn.v_proj"}
    with pytest.raises(ValueError, match=r"there is no parameter model\.norm of shape"):
        port.with_parameters({"model.norm": np.ones(3)})


def test_what_it_does_not_run_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama", "hidden_act": "silu"}')
    with pytest.raises(ValueError, match="no plain Qwen2 or Qwen3"):
        make(str(tmp_path), dtype="float32")
    with pytest.raises(ValueError, match="dtype is 'int8'"):
        make(folder("qwen2-tiny"), dtype="int8")
