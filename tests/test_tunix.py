"""google-tunix's Qwen2 and Qwen3, where tunix is installed: `make test-tunix` does."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from harness.model import Mode, Verdict
from harness.replay.port import load_port
from harness.replay.session import Session
from harness.store.reader import GoldenFile

pytestmark = pytest.mark.skipif(find_spec("tunix") is None, reason="google-tunix is not installed")

GOLDENS = Path(__file__).parents[1] / "goldens"
MODES = [Mode.ISOLATED, Mode.END_TO_END]


def replayed(name, cases, include=()):
    file = GoldenFile.open(GOLDENS / f"{name}.h5")
    make = f"examples.tunix.{name.removesuffix('-tiny')}:make"
    session = Session(file, lambda dtype: load_port(make, str(GOLDENS / "checkpoints" / name), dtype))
    goldens = file.select(include, (), cases, ("float32",))
    return list(session.replay(goldens, MODES))


def test_qwen2_passes_wholly():
    results = replayed("qwen2-tiny", ["left-padded", "far"])
    assert {result.verdict for result in results} == {Verdict.PASS}
    assert len(results) > 250


def test_qwen3_is_right_but_for_its_angles_in_short_texts():
    """It turns by a base of its own, and knows no sliding window: examples/tunix/README.md."""
    results = [result for result in replayed("qwen3-tiny", ["left-padded"]) if result.mode is Mode.ISOLATED]
    wrong = {result.component for result in results if result.verdict is not Verdict.PASS}
    assert wrong == {"rotary_emb.cos", "rotary_emb.sin"}


def test_qwen3_knows_no_window():
    results = replayed("qwen3-tiny", ["english"], ["layers.?.self_attn.probs"])
    wrong = {r.component for r in results if r.mode is Mode.ISOLATED and r.verdict is Verdict.FAIL}
    assert wrong == {"layers.1.self_attn.probs", "layers.2.self_attn.probs"}
