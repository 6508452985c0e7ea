"""A golden file written again with something in it changed: as another version or checkpoint would have it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace

from harness.model import Contents
from harness.store.layout import expected_paths
from harness.store.reader import GoldenFile
from harness.store.writer import GoldenWriter


def rewrite(
    source: Path,
    target: Path,
    *,
    provenance: Mapping[str, Any] = {},
    arrays: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {},
    contents: Callable[[Contents], Contents] = lambda contents: contents,
) -> GoldenFile:
    """Write what is in `source` as `target`. arrays: path in HDF5, without its first `/` -> what becomes of it."""
    file = GoldenFile.open(source)
    rows = {}
    with GoldenWriter(target) as writer:
        for row, tensor in enumerate(file.tensors):
            edit = arrays.get(tensor.path.strip("/"), lambda array: array)
            rows[row] = writer.tensor(tensor.path, edit(np.array(file.tensor(row))))
        for path, row in expected_paths(file.contents.cases, file.contents.goldens).items():
            if path != file.tensors[row].path:
                writer.link(path, rows[row])
        changed = contents(file.contents)
        writer.finish(replace(changed, provenance=changed.provenance | dict(provenance)))
    return GoldenFile.open(target)
