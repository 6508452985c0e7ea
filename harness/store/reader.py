"""Reading a golden file, without HDF5: the index at once, payloads as they are asked for.

Every byte that is used is checked against its SHA-256 before it is used; a payload that is never read is
never hashed. numpy is imported with the first payload, so that test collection costs a JSON file.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Collection
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import GoldensError, nearest
from harness.facts.table import BEFORE, FAMILIES
from harness.model import Case, Component, Contents, Fact, FactIn, Golden, Tensor
from harness.store.layout import USER_BLOCK, Index, UserBlock, decode_index, numpy_dtype
from harness.store.structure import refuse_nonsense

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

    import numpy as np


class GoldenFile:
    """An open golden file. Arrays are read-only views of the file; their shapes are in `tensors`.

    path: as it is named; local: where its bytes are, which is a cache if it is named in a `remote.toml`
    """

    def __init__(self, path: Path, index: Index, content: mmap.mmap, local: Path | None = None):
        self.path, self.local = path, local or path
        self.digest = index.digest
        self.contents: Contents = index.contents
        self.tensors: list[Tensor] = index.tensors
        self._content = content
        self._arrays: dict[int, np.ndarray] = {}
        self._coming: dict[int, Future[np.ndarray]] = {}
        self._components = {component.name: component for component in index.contents.components}
        self._cases = {case.name: case for case in index.contents.cases}

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> GoldenFile:
        """Raises GoldensError when `path` is no complete, undamaged golden file of a known format."""
        path = Path(path)
        local = path if path.exists() else _fetched(path)
        content = _map(local)
        block = UserBlock.parse(content[:USER_BLOCK], str(path))
        if len(content) != block.file_nbytes:
            raise GoldensError(
                f"{path} has {len(content)} bytes where {block.file_nbytes} were written:"
                " copy it again, or record it again"
            )
        encoded = content[block.index_offset : block.index_offset + block.index_nbytes]
        if hashlib.sha256(encoded).hexdigest() != block.index_sha256:
            raise GoldensError(f"{path} has a damaged index: copy it again, or record it again")
        index = decode_index(encoded, str(path))
        refuse_nonsense(index, block, str(path))
        return cls(path, index, content, local)

    @property
    def dtypes(self) -> list[str]:
        """As they were recorded, first to last."""
        return list(dict.fromkeys(golden.dtype for golden in self.contents.goldens))

    @cached_property
    def order(self) -> list[str]:
        """All components in forward order: facts of what a pass is given, the pass itself, what is made of logits."""
        facts = self.contents.facts
        before = [fact.component for fact in facts if FAMILIES[fact.family] in BEFORE]
        after = [fact.component for fact in facts if FAMILIES[fact.family] not in BEFORE]
        return list(dict.fromkeys([*before, *self._components, *after]))

    def case(self, name: str) -> Case:
        return self._cases[name]

    def component(self, name: str) -> Component:
        if name not in self._components:
            raise GoldensError(f"{self.path} has no component {name!r}{nearest(name, self._components)}")
        return self._components[name]

    def tensor(self, row: int) -> np.ndarray:
        """The payload of a row, checked when it is first read. Raises GoldensError when it is damaged."""
        if row not in self._arrays:
            coming = self._coming.pop(row, None)
            self._arrays[row] = self._read(self.tensors[row]) if coming is None else coming.result()
        repeats = self.tensors[row].repeats
        if repeats == 1:
            return self._arrays[row]
        repeated = self._arrays[row].repeat(repeats, axis=1)  # not kept: unlike a view, it takes memory
        repeated.flags.writeable = False
        return repeated

    def read_ahead(self, golden: Golden) -> None:
        """Begin to check the payloads of a golden that is going to be asked for, in a thread beside this one."""
        for row in (*golden.inputs.values(), golden.output):
            if row not in self._arrays and row not in self._coming:
                self._coming[row] = self._thread.submit(self._read, self.tensors[row])

    @cached_property
    def _thread(self) -> ThreadPoolExecutor:
        from concurrent.futures import ThreadPoolExecutor

        return ThreadPoolExecutor(1, thread_name_prefix="goldens-read-ahead")

    def output(self, golden: Golden) -> np.ndarray:
        return self.tensor(golden.output)

    def inputs(self, golden: Golden) -> dict[str, np.ndarray]:
        """Argument name -> what the component took in."""
        return {argument: self.tensor(row) for argument, row in golden.inputs.items()}

    def case_inputs(self, case: str) -> dict[str, np.ndarray]:
        """`token_ids` (B T), `attention_mask` (B S), `positions` (B T), `query_index` (T)."""
        if case not in self._cases:
            raise GoldensError(f"{self.path} has no case {case!r}; it has {', '.join(self._cases)}")
        return {argument: self.tensor(row) for argument, row in self._cases[case].inputs.items()}

    def select(
        self,
        include: Collection[str] = (),
        exclude: Collection[str] = (),
        cases: Collection[str] = (),
        dtypes: Collection[str] = (),
    ) -> list[Golden]:
        """The goldens asked for: by dtype, then by case, then in forward order.

        `include` and `exclude` are glob patterns of component names; what is left empty leaves nothing out.
        Raises GoldensError for a pattern, case or dtype that the file has nothing for, and when
        nothing is left.
        """
        wanted = self._wanted(include, exclude, cases, dtypes)
        order = {name: position for position, name in enumerate(self._components)}
        dtype_order = {name: position for position, name in enumerate(self.dtypes)}
        case_order = {name: position for position, name in enumerate(self._cases)}
        selected = [
            golden
            for golden in self.contents.goldens
            if golden.component in wanted
            and (not cases or golden.case in cases)
            and (not dtypes or golden.dtype in dtypes)
        ]
        if not selected and not self.select_facts(include, exclude, cases, dtypes):
            raise GoldensError(
                f"nothing that was asked for is recorded in {self.path}: `goldens show` lists what is"
            )
        return sorted(selected, key=lambda g: (dtype_order[g.dtype], case_order[g.case], order[g.component]))

    def select_facts(
        self,
        include: Collection[str] = (),
        exclude: Collection[str] = (),
        cases: Collection[str] = (),
        dtypes: Collection[str] = (),
    ) -> list[FactIn]:
        """The facts asked for, as `select` does: in the first dtype, or in each where the answer depends on it."""
        wanted = self._wanted(include, exclude, cases, dtypes)
        asked = [dtype for dtype in self.dtypes if not dtypes or dtype in dtypes]
        return [
            FactIn(fact, dtype)
            for place, dtype in enumerate(asked)
            for fact in self.contents.facts
            if fact.component in wanted
            and (not cases or fact.case in cases)
            and _asked_in(fact, dtype, first=place == 0)
        ]

    def _wanted(
        self,
        include: Collection[str],
        exclude: Collection[str],
        cases: Collection[str],
        dtypes: Collection[str],
    ) -> set[str]:
        """The components asked for. Raises GoldensError for what the file has nothing for."""
        self._refuse_unknown("dtype", dtypes, self.dtypes)
        facts = dict.fromkeys(fact.case for fact in self.contents.facts)
        self._refuse_unknown("case", cases, self._cases | facts)
        included = self.matching(include) if include else set(self.order)
        return included - self.matching(exclude)

    def matching(self, patterns: Collection[str]) -> set[str]:
        """The components that any of the glob `patterns` names, facts too. Raises GoldensError when one names none."""
        matched: set[str] = set()
        for pattern in patterns:
            found = {name for name in self.order if fnmatchcase(name, pattern)}
            if not found:
                raise GoldensError(
                    f"no component of {self.path} matches {pattern!r}{nearest(pattern, self.order)}"
                )
            matched |= found
        return matched

    def _refuse_unknown(self, what: str, asked: Collection[str], recorded: Collection[str]) -> None:
        for name in asked:
            if name not in recorded:
                raise GoldensError(
                    f"{what} {name!r} was not recorded in {self.path}; recorded: {', '.join(recorded)}"
                )

    def _read(self, tensor: Tensor) -> np.ndarray:
        import numpy as np

        payload = memoryview(self._content)[tensor.offset : tensor.offset + tensor.nbytes]
        if hashlib.sha256(payload).hexdigest() != tensor.sha256:
            raise GoldensError(
                f"{self.path} is damaged at {tensor.path}: it does not hash to what was recorded;"
                " copy it again, or record it again"
            )
        return np.frombuffer(payload, numpy_dtype(tensor.dtype)).reshape(tensor.stored)


def _asked_in(fact: Fact, dtype: str, first: bool) -> bool:
    """Once, in the first dtype, unless the answer depends on it."""
    return fact.dtype == dtype if fact.dtype else first or FAMILIES[fact.family].every_dtype


def _fetched(path: Path) -> Path:
    """Where the file is in the cache, if a `remote.toml` says what it is; else `path`."""
    from harness.remote.fetch import located

    return located(path)


def _map(path: Path) -> mmap.mmap:
    try:
        with open(path, "rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError as error:
        raise GoldensError(f"there is no golden file {path}: record it with `goldens record`") from error
    except IsADirectoryError as error:
        raise GoldensError(f"{path} is a folder: name the golden file in it") from error
    except ValueError as error:  # what mmap raises for an empty file
        raise GoldensError(f"{path} is not a golden file: it is empty") from error
    except OSError as error:
        raise GoldensError(f"cannot read {path}: {error.strerror}") from error
