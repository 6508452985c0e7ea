"""A model of five components, a port of it in numpy, a checkpoint and golden files: small enough to read.

The model: embed_tokens -> layers.0.q_proj -> layers.0.act -> lm_head, and the composite layers.0.
"""

import json
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from harness.checkpoints import file_digests
from harness.model import Case, Component, Contents, Floor, Golden, Parameter, Views
from harness.replay.port import NotOffered
from harness.store.layout import case_path, golden_group
from harness.store.parts import Joining, Parts
from harness.store.writer import GoldenWriter

VOCABULARY, HIDDEN = 16, 4
NAMES = ("model.embed_tokens.weight", "model.layers.0.q_proj.weight", "lm_head.weight")
CONFIG = {"model_type": "tiny", "hidden_size": HIDDEN}

COMPONENTS = [
    Component(
        "embed_tokens",
        "embed_tokens",
        "B T C",
        step="embedding",
        inputs={"token_ids": "case.token_ids"},
        parameters={"weight": "model.embed_tokens.weight"},
        exact=True,
    ),
    Component(
        "layers.0.q_proj",
        "q_proj",
        "B T O",
        step="linear",
        inputs={"x": "embed_tokens"},
        parameters={"weight": "model.layers.0.q_proj.weight"},
    ),
    Component("layers.0.act", "act", "B T O", step="silu", inputs={"x": "layers.0.q_proj"}),
    Component("layers.0", "layer", "B T O", composite_of="layers.0.act"),
    Component(
        "lm_head",
        "lm_head",
        "B T V",
        step="linear",
        inputs={"x": "layers.0.act"},
        parameters={"weight": "lm_head.weight"},
    ),
]


def numpy_dtype(name: str) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def weights(dtype: str) -> dict[str, np.ndarray]:
    """embed (V C), q (C C) and head (V C)."""
    draw = np.random.default_rng(7)
    shapes = {"embed": (VOCABULARY, HIDDEN), "q": (HIDDEN, HIDDEN), "head": (VOCABULARY, HIDDEN)}
    return {name: draw.normal(size=shape).astype(numpy_dtype(dtype)) for name, shape in shapes.items()}


class NumpyPort:
    """`faulty` names components that are wrong by ten percent; `missing` those it does not offer."""

    def __init__(self, dtype: str = "float32", faulty: Collection[str] = (), missing: Collection[str] = ()):
        self.weights = weights(dtype)
        self.dtype = numpy_dtype(dtype)
        self.faulty = faulty
        self.missing = missing
        self.traces = 0
        self.applied: list[str] = []

    def _run(self, name: str, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        if name == "embed_tokens":
            value = self.weights["embed"][inputs["token_ids"]]
        elif name == "layers.0.q_proj":
            value = inputs["x"] @ self.weights["q"].T
        elif name == "layers.0.act":
            x = inputs["x"].astype(np.float32)
            value = x / (1 + np.exp(-x))
        else:
            value = inputs["x"] @ self.weights["head"].T
        wrong = 1.1 if name in self.faulty else 1.0
        return (value.astype(np.float32) * wrong).astype(self.dtype)

    def trace(self, inputs: Mapping[str, np.ndarray], names: Collection[str]) -> dict[str, np.ndarray]:
        self.traces += 1
        values = {"embed_tokens": self._run("embed_tokens", inputs)}
        for name, source in (
            ("layers.0.q_proj", "embed_tokens"),
            ("layers.0.act", "layers.0.q_proj"),
            ("lm_head", "layers.0.act"),
        ):
            values[name] = self._run(name, {"x": values[source]})
        values["layers.0"] = values["layers.0.act"]
        return {name: value for name, value in values.items() if name in names and name not in self.missing}

    def apply(self, name: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if name in self.missing:
            raise NotOffered(name)
        self.applied.append(name)
        return {name: self._run(name, inputs)}


def make(checkpoint: str, *, dtype: str) -> NumpyPort:
    return NumpyPort(dtype)


def make_faulty(checkpoint: str, *, dtype: str) -> NumpyPort:
    return NumpyPort(dtype, faulty={"layers.0.q_proj"})


def make_partial(checkpoint: str, *, dtype: str) -> NumpyPort:
    return NumpyPort(dtype, missing={"layers.0.act"})


def write_checkpoint(folder: Path) -> Path:
    """A folder with the weights of the model above."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    save_file(dict(zip(NAMES, weights("float32").values(), strict=True)), folder / "model.safetensors")
    return folder


def floor(size: float) -> Floor:
    return Floor(measured=Views(size, size, size), modelled=Views(size / 2, size / 2, size / 2))


def case_inputs(seed: int) -> dict[str, np.ndarray]:
    token_ids = np.random.default_rng(seed).permutation(VOCABULARY)[:6].reshape(2, 3)
    return {
        "token_ids": token_ids,
        "attention_mask": np.array([[0, 1, 1], [1, 1, 1]]),
        "positions": np.tile(np.arange(3), (2, 1)),
        "query_index": np.arange(3),
        "kept": np.arange(3),
    }


def write_golden(
    path: Path,
    dtypes: Collection[str] = ("float32",),
    cases: Collection[str] = ("hello",),
    checkpoint: Path | None = None,
    provenance: Mapping[str, object] = {},
) -> Contents:
    """Record the model above into `path`, as if from `checkpoint`."""
    origin: dict[str, object] = (
        {
            "checkpoint_is": "folder",
            "checkpoint": str(checkpoint),
            "checkpoint_files": file_digests(checkpoint),
        }
        if checkpoint
        else {}
    )
    goldens: list[Golden] = []
    recorded_cases: list[Case] = []
    with GoldenWriter(path) as writer:
        for seed, case in enumerate(cases):
            inputs = case_inputs(seed)
            rows = {name: writer.tensor(case_path(case, name), value) for name, value in inputs.items()}
            recorded_cases.append(Case(case, "prompt", "Hello", rows))
            for dtype in dtypes:
                goldens += _record(writer, case, dtype, inputs, rows["token_ids"])
        contents = contents_of(recorded_cases, goldens, origin | dict(provenance))
        writer.finish(contents)
    return contents


def join(
    writer: GoldenWriter, parts: Parts, cases: Collection[str], provenance: Mapping[str, object]
) -> Contents:
    """Of parts, those missing recorded first, what `write_golden` writes in one go."""
    goldens: list[Golden] = []
    joined: list[Case] = []
    for seed, case in enumerate(cases):
        joining = Joining(parts.part(case, partial(write_part, case=case, seed=seed)), writer)
        joined.append(joining.case)
        goldens += [joining.golden(component) for component in COMPONENTS]
    return contents_of(joined, goldens, provenance)


def contents_of(cases: list[Case], goldens: list[Golden], provenance: Mapping[str, object]) -> Contents:
    return Contents(
        provenance={"recorded_at": "2030-01-01T00:00:00Z", **provenance},
        config=CONFIG,
        parameters=[
            Parameter(name, "float32", value.shape, "0" * 64)
            for name, value in zip(NAMES, weights("float32").values(), strict=True)
        ],
        components=COMPONENTS,
        cases=cases,
        goldens=goldens,
    )


def write_part(writer: GoldenWriter, case: str, seed: int) -> Contents:
    """One case of it, in float32, as a part of a recording."""
    inputs = case_inputs(seed)
    rows = {name: writer.tensor(case_path(case, name), value) for name, value in inputs.items()}
    goldens = _record(writer, case, "float32", inputs, rows["token_ids"])
    return Contents({}, {}, [], COMPONENTS, [Case(case, "prompt", "Hello", rows)], goldens)


def _record(
    writer: GoldenWriter, case: str, dtype: str, inputs: Mapping[str, np.ndarray], token_ids: int
) -> list[Golden]:
    outputs = NumpyPort(dtype).trace(inputs, [component.name for component in COMPONENTS])
    rows = {"case.token_ids": token_ids}
    goldens = []
    for component in COMPONENTS:
        group = golden_group(dtype, case, component.name)
        if component.composite_of:
            row = rows[component.composite_of]
            writer.link(f"{group}/output", row)
        else:
            row = writer.tensor(f"{group}/output", outputs[component.name])
        rows[component.name] = row
        taken = {argument: rows[source] for argument, source in component.inputs.items()}
        for argument, source in taken.items():
            writer.link(f"{group}/inputs/{argument}", source)
        size = 0.0 if component.exact else 2e-3 if dtype != "float32" else 1e-7
        isolated = None if component.composite_of else floor(size)
        goldens.append(Golden(component.name, case, dtype, row, taken, floor(size * 3), isolated))
    return goldens
