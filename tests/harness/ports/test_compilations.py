"""A component is compiled once for each kind and shape, however many layers there are."""

import json
import logging
from pathlib import Path

import jax
import numpy as np
import pytest
from msgspec.structs import replace

from harness.store.reader import GoldenFile
from qwen_flax import config
from qwen_flax.model import Model
from qwen_flax.port import Port

FILE = GoldenFile.open("goldens/qwen2-tiny.h5")


@pytest.fixture
def compiled(caplog):
    """How many parts of a program have been compiled so far."""
    caplog.set_level(logging.WARNING, "jax")

    def count():
        messages = [record.getMessage() for record in caplog.records]
        return sum(
            message.startswith("Compiling ") and "component" in message.split()[1] for message in messages
        )

    with jax.log_compiles():
        yield count


def port_of(layers: int, folder: Path) -> Port:
    """The tiny model with so many layers; its parameters are zeros."""
    read = json.loads(Path("goldens/checkpoints/qwen2-tiny/config.json").read_text())
    read = {**read, "num_hidden_layers": layers, "layer_types": ["full_attention"] * layers}
    (folder / "config.json").write_text(json.dumps(read))
    settings = config.read(folder)
    return Port(Model(settings, dtype="float32"), settings, "float32")


def components_of(layers):
    """Those of the golden file, the second of its layers for all but the first; and the component each one is."""
    for component in FILE.contents.components:
        first, second = (component.name.startswith(f"layers.{n}.") for n in (0, 1))
        if component.step is None or component.name.startswith("layers.2."):
            continue
        if not (first or second):
            yield component, component
        for n in [0] if first else range(1, layers) if second else []:

            def named(name, n=n):
                return (
                    name.replace("layers.1.", f"layers.{n}.")
                    if n < 2
                    else name.replace("layers.0.", f"layers.{n - 1}.").replace("layers.1.", f"layers.{n}.")
                )

            inputs = {argument: named(source) for argument, source in component.inputs.items()}
            yield replace(component, name=named(component.name), inputs=inputs), component


def apply_all(layers, folder, *cases):
    port, components = port_of(layers, folder), list(components_of(layers))
    port.wire([own for own, _ in components])
    goldens = {(g.case, g.component): g for g in FILE.contents.goldens if g.dtype == "float32"}
    for own, like in components:
        for case in cases:
            np.asarray(port.apply(own.name, FILE.inputs(goldens[case, like.name]))[own.name])
    return len(components)


def test_two_layers_and_six_compile_as_often(compiled, tmp_path):
    few = apply_all(2, tmp_path, "left-padded", "right-padded")
    once = compiled()
    many = apply_all(6, tmp_path, "left-padded", "right-padded")
    assert once == compiled() - once
    assert (few, many) == (2 * 20 + 5, 6 * 20 + 5)
    assert once <= 25, "kinds, of which some are the same program"


def test_another_length_compiles_each_kind_once_more(compiled, tmp_path):
    apply_all(2, tmp_path, "left-padded")
    once = compiled()
    apply_all(2, tmp_path, "left-padded", "chinese")
    assert compiled() == 3 * once
