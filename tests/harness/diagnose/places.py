"""Golden files, right ports of them, and the diagnosis of a port with a fault in it."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from harness.audit.edited import edited
from harness.audit.fault import EditedCheckpoint, EditedConfig, Rewired
from harness.audit.planted import Planted, Remembering, planted
from harness.diagnose.explain import explain
from harness.diagnose.subject import Subject
from harness.diagnose.wiring import explain_wiring
from harness.model import Mode, Verdict
from harness.replay.port import load_port
from harness.replay.session import Session
from harness.store.reader import GoldenFile
from harness.weights import Weights

GOLDENS = Path(__file__).parents[3] / "goldens"
PORT = "qwen_flax.port:make"
CASES = {
    "qwen2-tiny": ("left-padded", "right-padded", "tiny-norm", "chat", "far"),
    "qwen3-tiny": ("random-1", "left-padded", "english"),
}
"""Padding on either side, little norms, prompts longer than a window, late positions; norms of heads."""
SCALED = {
    "qwen2-linear": ("random-1", "far"),
    "qwen2-dynamic": ("random-1", "hello"),
    "qwen2-yarn": ("random-1", "far"),
    "qwen2-llama3": ("random-1", "far"),
}
"""A RoPE that is scaled: within the original length and beyond."""


@dataclass(frozen=True)
class Diagnosis:
    """failed: the components that fail where they are looked at; explanations: of these."""

    failed: frozenset[str]
    explanations: tuple

    @property
    def names(self):
        return {name for explanation in self.explanations for name in explanation.hypotheses}

    def of(self, component):
        (explanation,) = (e for e in self.explanations if e.component == component)
        return explanation


class Place:
    """A built-in golden file and its right port, in one dtype."""

    def __init__(self, name, dtype="float32"):
        self.file = GoldenFile.open(GOLDENS / f"{name}.h5")
        self.folder = GOLDENS / "checkpoints" / name
        self.weights = Weights(self.folder)
        self.port = Remembering(load_port(PORT, str(self.folder), dtype))
        self.cases, self.dtype = (CASES | SCALED)[name], dtype

    @contextmanager
    def with_fault(self, planting) -> Iterator[tuple]:
        """The port with a fault, and the components that it is in. Raises DoesNotApply, GoldensError if refused."""
        components = self.file.contents.components
        if isinstance(planting, EditedConfig | EditedCheckpoint):
            with edited(self.folder, planting) as folder:
                yield load_port(PORT, str(folder), self.dtype), planted(planting, components)
        else:
            port = Planted(self.port, components, planting, self.weights)
            yield port, port.names

    def diagnosed(self, planting, cases: Collection[str] = (), withheld: Collection[str] = ()) -> Diagnosis:
        """What is said of a port with this fault, of the components that it is in."""
        with self.with_fault(planting) as (port, names):
            subject = Subject(self.file, lambda dtype: port, self.weights, withheld)
            wired = isinstance(planting, Rewired)
            modes = [Mode.ISOLATED, Mode.END_TO_END] if wired else [Mode.ISOLATED]
            goldens = self.file.select((() if wired else names), (), cases or self.cases, (self.dtype,))
            results = list(Session(self.file, lambda dtype: port).replay(goldens, modes))
            explanations = explain_wiring(subject, results) if wired else explain(subject, results)
        failed = frozenset(result.component for result in results if result.verdict is Verdict.FAIL)
        return Diagnosis(failed, tuple(explanations))


place = cache(Place)
