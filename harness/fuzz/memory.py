"""A golden file that is never written: what was recorded of a few inputs, in memory."""

import mmap
from pathlib import Path

import numpy as np

from harness.model import Contents, Tensor
from harness.store.layout import FORMAT, Index
from harness.store.reader import GoldenFile


class MemoryWriter:
    """Takes what a recorder writes."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self.arrays: list[np.ndarray] = []

    def tensor(self, path: str, array: np.ndarray, repeats: int = 1) -> int:
        array = np.ascontiguousarray(array).reshape(array.shape)
        array.flags.writeable = False  # as those of a file are
        self.tensors.append(Tensor(path, array.dtype.name, array.shape, 0, array.nbytes, ""))
        self.arrays.append(array)
        return len(self.arrays) - 1

    def link(self, path: str, row: int) -> None:
        """Nothing looks for a tensor by its path here."""


class MemoryFile(GoldenFile):
    """name: what stands for a path in messages."""

    def __init__(self, name: str, contents: Contents, written: MemoryWriter) -> None:
        super().__init__(Path(name), Index(FORMAT, "", contents, written.tensors), mmap.mmap(-1, 1))
        self._arrays = dict(enumerate(written.arrays))
