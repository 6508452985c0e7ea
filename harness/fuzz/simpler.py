"""The smallest configuration in which an input still fails: fewer layers, then without what is special in config.json.

Needs neither torch nor jax.
"""

import re
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.audit.edited import edited
from harness.audit.fault import DoesNotApply, EditedCheckpoint, EditedConfig
from harness.checkpoints import read_config

Config = dict[str, Any]
_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")


@dataclass(frozen=True)
class Simpler:
    """A checkpoint's first `layers` layers, and what is taken out of its configuration."""

    layers: int
    without: tuple[str, ...] = ()

    def says(self, whole: "Simpler") -> list[str]:
        """What it is simpler in; nothing if in nothing."""
        layers = [] if self.layers == whole.layers else [f"{self.layers} of {whole.layers} layers"]
        return [*layers, *(f"without {special}" for special in self.without)]


def simplest(folder: Path, fails: Callable[[Path], bool]) -> list[str]:
    """What the checkpoint in `folder` can do without while `fails` holds of it; nothing if it needs all.

    fails: asked of a folder that is there as long as it is asked
    """
    config = read_config(folder)
    whole = Simpler(config.get("num_hidden_layers", 1))

    def still(simpler: Simpler) -> bool:
        try:
            with made(folder, simpler, whole) as copy:
                return fails(copy)
        except DoesNotApply:
            return False

    found = replace(whole, layers=_fewest(whole.layers, lambda layers: still(replace(whole, layers=layers))))
    for special in SPECIAL:
        simpler = replace(found, without=(*found.without, special))
        found = simpler if still(simpler) else found
    return found.says(whole)


def _fewest(most: int, fails: Callable[[int], bool]) -> int:
    """The fewest that fail, if all greater numbers do."""
    passes = 0
    while most - passes > 1:
        middle = (passes + most) // 2
        if fails(middle):
            most = middle
        else:
            passes = middle
    return most


@contextmanager
def made(folder: Path, simpler: Simpler, whole: Simpler) -> Iterator[Path]:
    """A copy of the checkpoint that is that much simpler. Raises DoesNotApply where it has nothing to go without."""

    def fewer_tensors(tensors: MutableMapping[str, Any]) -> None:
        for name in list(tensors):
            layer = _LAYER.search(name)
            if layer and int(layer[1]) >= simpler.layers:
                del tensors[name]

    def fewer_layers(config: Config) -> None:
        config["num_hidden_layers"] = simpler.layers
        if config.get("layer_types"):
            config["layer_types"] = config["layer_types"][: simpler.layers]

    with ExitStack() as stack:
        if simpler.layers < whole.layers:
            folder = stack.enter_context(edited(folder, EditedCheckpoint((), fewer_tensors)))
            folder = stack.enter_context(edited(folder, EditedConfig((), fewer_layers)))
        for special in simpler.without:
            folder = stack.enter_context(edited(folder, EditedConfig((), SPECIAL[special])))
        yield folder


def _without_window(config: Config) -> None:
    if config.get("use_sliding_window") is not False and config.get("sliding_window"):
        config["use_sliding_window"] = False
        if config.get("layer_types"):
            config["layer_types"] = ["full_attention"] * len(config["layer_types"])


def _without_scaling(config: Config) -> None:
    if config.get("rope_scaling"):
        config["rope_scaling"] = None
    rope = config.get("rope_parameters") or {}
    if rope.get("rope_type", "default") != "default":
        config["rope_parameters"] = {"rope_type": "default", "rope_theta": rope.get("rope_theta", 10_000.0)}


SPECIAL: dict[str, Callable[[Config], None]] = {
    "its sliding window": _without_window,
    "scaled RoPE": _without_scaling,
}
"""What a configuration can do without, in words, and how it is taken out."""
