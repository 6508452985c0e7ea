"""A recording in parts: golden files of their own, one for each case in each dtype, until they are joined into one.

So an interrupted recording goes on behind the last part that is whole. What a part was recorded of stands in its
provenance, and a part of anything else than what is asked for is not used.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from harness.errors import GoldensError
from harness.model import Case, Component, Contents, Fact, Golden
from harness.store.layout import case_path, golden_group
from harness.store.reader import GoldenFile
from harness.store.verify import damaged, verify
from harness.store.writer import GoldenWriter, Writer

SUFFIX = ".part"
OF = "part of"
"""In a part's provenance: what it was recorded of."""

Identity = Mapping[str, Any]
"""What a part is recorded of, as JSON has it: what it is called in a sentence -> what it is."""


class Parts:
    """The parts of one golden file. Raises GoldensError where `folder` is something else.

    told: takes a line about each part that cannot be used, and one about those that can
    """

    def __init__(self, folder: Path, told: Callable[[str], None]) -> None:
        self.folder, self._told = folder, told
        self._of: dict[str, Identity] = {}
        self._there: dict[str, GoldenFile] = {}
        if folder.exists() and not folder.is_dir():
            raise GoldensError(
                f"{folder} is there, and is no folder of a recording's parts: move it away, or record without --resume"
            )

    @property
    def nbytes(self) -> int:
        """What is there takes on the disk."""
        return sum(path.stat().st_size for path in found(self.folder))

    def take_over(self, wanted: Mapping[str, Identity]) -> None:
        """wanted: name of a part -> what it has to be recorded of. Those that are there and are it are used."""
        self._of = {name: msgspec.to_builtins(of) for name, of in wanted.items()}
        began = bool(found(self.folder))
        for name in wanted:
            if (path := self._path(name)).exists():
                file = _opened(path)
                problem = "is damaged" if file is None else _differs(file, self._of[name])
                if file is not None and not problem:
                    self._there[name] = file
                else:
                    self._told(f"{path}: {problem}, so it is recorded again")
        if began:
            self._told(f"resumed: {len(self._there)} of {len(wanted)} parts were there")

    def part(self, name: str, record: Callable[[GoldenWriter], Contents]) -> GoldenFile:
        """The part that was taken over, or else the one that `record` writes."""
        if name not in self._there:
            path = self._path(name)
            self.folder.mkdir(exist_ok=True)
            with GoldenWriter(path) as writer:
                contents = record(writer)
                provenance = contents.provenance | {OF: self._of[name]}
                writer.finish(replace(contents, provenance=provenance))
            self._there[name] = GoldenFile.open(path)
        return self._there[name]

    def has(self, name: str) -> bool:
        return name in self._there

    def refuse_unless_in(self, golden: GoldenFile) -> None:
        """Raise GoldensError unless `golden` has what the parts have, to the bit, and holds."""
        digests = {tensor.path: tensor.sha256 for tensor in golden.tensors}
        tensors = [tensor for part in self._there.values() for tensor in part.tensors]
        problems = [f"{each.path} is another" for each in tensors if digests.get(each.path) != each.sha256]
        if problems := problems or verify(golden.path):
            raise GoldensError(f"{golden.path} is not what its parts in {self.folder} are: {problems[0]}")

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}{SUFFIX}"


def found(folder: Path) -> list[Path]:
    """The parts that are in a folder, if it is there."""
    return sorted(folder.glob(f"*{SUFFIX}"))


def remove(folder: Path) -> None:
    """The parts, and the folder unless somebody put something else into it."""
    for path in found(folder):
        path.unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _opened(path: Path) -> GoldenFile | None:
    """The part, every byte of it checked; None if it is damaged."""
    try:
        file = GoldenFile.open(path)
    except GoldensError:
        return None
    return None if any(damaged(file)) else file


def _differs(file: GoldenFile, of: Identity) -> str:
    """What a part was recorded of that is not what is asked for; empty if there is nothing."""
    its = file.contents.provenance.get(OF)
    if not isinstance(its, dict):
        return "is no part of a recording"
    other = [name for name in of if its.get(name) != of[name]]
    return f"is of another {' and another '.join(other)}" if other else ""


class Joining:
    """A part on its way into the golden file that is written, tensor by tensor in the order of the recorder.

    case: as it is there already; None to take it from the part
    """

    def __init__(self, part: GoldenFile, writer: Writer, case: Case | None = None) -> None:
        self._part, self._writer = part, writer
        self._rows: dict[int, int] = {}  # of the part's tensor table -> of the golden file's
        self._goldens = {golden.component: golden for golden in part.contents.goldens}
        self.case = self._case(part.contents.cases[0], case)

    @property
    def facts(self) -> list[Fact]:
        return self._part.contents.facts

    def golden(self, component: Component) -> Golden:
        golden = self._goldens[component.name]
        group = golden_group(golden.dtype, golden.case, golden.component)
        return replace(
            golden,
            output=self._row(f"{group}/output", golden.output),
            inputs={
                argument: self._row(f"{group}/inputs/{argument}", golden.inputs[argument])
                for argument in component.inputs
                if argument in golden.inputs
            },
            exact=None if golden.exact is None else self._row(f"{group}/exact", golden.exact),
        )

    def _case(self, own: Case, there: Case | None) -> Case:
        by_row = sorted(own.inputs.items(), key=lambda each: each[1])
        if there is not None:
            self._rows = {row: there.inputs[name] for name, row in by_row}
            return there
        return replace(own, inputs={name: self._row(case_path(own.name, name), row) for name, row in by_row})

    def _row(self, path: str, row: int) -> int:
        """Write a tensor once, and link it wherever else it is taken in."""
        if row in self._rows:
            self._writer.link(path, self._rows[row])
        else:
            tensor = self._part.tensor(row)
            self._rows[row] = self._writer.tensor(path, tensor, self._part.tensors[row].repeats)
        return self._rows[row]
