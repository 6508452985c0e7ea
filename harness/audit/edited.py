"""A copy of a checkpoint with another config.json or other tensors, for as long as a port of it is in use.

Needs neither torch nor jax.
"""

import copy
import json
import tempfile
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.audit.fault import DoesNotApply, EditedCheckpoint, EditedConfig
from harness.checkpoints import read_config
from harness.weights import Weights

Array = Any
_INDEX = "model.safetensors.index.json"


@contextmanager
def edited(folder: Path, planting: EditedConfig | EditedCheckpoint) -> Iterator[Path]:
    """A folder like `folder` with the edit made, gone when the context ends; nothing is written into `folder`.

    What is unchanged is a symbolic link. A port made of it may read its files as long as it lives, so the context
    has to last as long. A factory that refuses the copy has caught the fault when loading.
    Raises DoesNotApply when the edit changes nothing.
    """
    with tempfile.TemporaryDirectory(prefix="goldens-") as place:
        copied = Path(place)
        if isinstance(planting, EditedConfig):
            _write_config(folder, planting, copied)
        else:
            _write_tensors(folder, planting, copied)
        _link(folder, copied)
        yield copied


@contextmanager
def copied(folder: Path) -> Iterator[Path]:
    """A folder like `folder` without any edit, gone when the context ends."""
    with tempfile.TemporaryDirectory(prefix="goldens-") as place:
        _link(folder, Path(place))
        yield Path(place)


def _link(folder: Path, copied: Path) -> None:
    """What is not in the copy yet is a symbolic link."""
    written = {path.name for path in copied.iterdir()}
    for path in folder.iterdir():
        if path.name not in written:
            (copied / path.name).symlink_to(path.resolve())


def _write_config(folder: Path, planting: EditedConfig, copied: Path) -> None:
    config = read_config(folder)
    changed = copy.deepcopy(config)
    planting.edit(changed)
    if changed == config:
        raise DoesNotApply("the checkpoint's config.json has no setting that the fault changes")
    _write_json(copied / "config.json", changed)


def _write_tensors(folder: Path, planting: EditedCheckpoint, copied: Path) -> None:
    """The safetensors files that hold another tensor, and the index if a tensor came or went."""
    from safetensors.numpy import save_file

    stored = Weights(folder)
    tensors = Tensors(stored)
    planting.edit(tensors)
    changed = tensors.changed
    if not changed:
        raise DoesNotApply("the checkpoint has no tensor that the fault changes")
    shards = _shards(folder)
    places = {name: shards.get(name, min(shards.values())) for name in {*shards, *changed}}
    for shard in {places[name] for name in changed}:
        held = {name: tensors[name] for name, place in places.items() if place == shard and name in tensors}
        save_file(held, copied / shard, {"format": "pt"})
    if (folder / _INDEX).is_file() and tensors.keys() != stored.keys():
        index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
        _write_json(copied / _INDEX, {**index, "weight_map": {name: places[name] for name in tensors}})


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")


def _shards(folder: Path) -> dict[str, str]:
    """Tensor -> the file that holds it."""
    from safetensors import safe_open

    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="numpy") as file:
            found.update(dict.fromkeys(file.keys(), path.name))
    return found


class Tensors(MutableMapping[str, Array]):
    """A checkpoint's tensors, read when asked for, with others in the place of some.

    Those that are read cannot be written to, so that an edit in place fails instead of being lost.
    """

    def __init__(self, stored: Weights) -> None:
        self._stored = stored
        self._put: dict[str, Array] = {}
        self._taken: set[str] = set()

    @property
    def changed(self) -> set[str]:
        """Those that are not, bit by bit, what is stored: put in, or taken out."""
        differing = {name for name, tensor in self._put.items() if not self._same(name, tensor)}
        return differing | self._taken

    def __getitem__(self, name: str) -> Array:
        if name in self._put:
            return self._put[name]
        if name in self._taken:
            raise KeyError(name)
        tensor = self._stored[name]
        tensor.flags.writeable = False
        return tensor

    def __setitem__(self, name: str, tensor: Array) -> None:
        import numpy as np

        self._put[name] = np.ascontiguousarray(tensor)
        self._taken.discard(name)

    def __delitem__(self, name: str) -> None:
        if name not in self:
            raise KeyError(name)
        self._put.pop(name, None)
        if name in self._stored:
            self._taken.add(name)

    def __iter__(self) -> Iterator[str]:
        names = dict.fromkeys([*self._stored, *self._put])
        return (name for name in names if name not in self._taken)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _same(self, name: str, tensor: Array) -> bool:
        if name not in self._stored:
            return False
        stored = self._stored[name]
        alike = stored.dtype == tensor.dtype and stored.shape == tensor.shape
        return bool(alike and stored.tobytes() == tensor.tobytes())
