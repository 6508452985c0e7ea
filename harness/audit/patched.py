"""Faults written as edits of a port's source, and the ports they make.

The port is made from a copy of its package with the text replaced. The copy is imported under the package's own name
beside the right one, which stays as it is: any number of copies can be replayed in one process.
"""

import importlib
import importlib.util
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Annotated, Any

import msgspec

from harness import toml
from harness.audit.fault import Area, Fault, Patch
from harness.errors import GoldensError, first_line, told
from harness.replay.port import Port, load_port

Text = Annotated[str, msgspec.Meta(min_length=1)]
Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]


class Broken(GoldensError):
    """A fault with which the port does not run at all: a mistake in the fault, which no golden file has to catch."""

    def __init__(self, fault: Fault, how: str) -> None:
        super().__init__(f"fault {fault.name} breaks the port: {how}; mend the fault")


class _Replacement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """file: in the package; find: text that is there exactly once; with: text in its place."""

    file: Text
    find: Text
    put: str = msgspec.field(name="with")


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A fault as it is written; the fields are those of `Fault` and `Patch`."""

    name: Name
    area: Area
    says: Text
    at: Annotated[tuple[Text, ...], msgspec.Meta(min_length=1)]
    replace: Annotated[tuple[_Replacement, ...], msgspec.Meta(min_length=1)]
    named_by: tuple[Text, ...] = ()
    equivalent: str = ""

    def fault(self) -> Fault:
        replace = tuple((each.file, each.find, each.put) for each in self.replace)
        patch = Patch(self.at, replace)
        return Fault(self.name, self.area, self.says, patch, frozenset(self.named_by), self.equivalent)


class _FaultsFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    fault: Annotated[tuple[_Entry, ...], msgspec.Meta(min_length=1)]

    def __post_init__(self) -> None:
        names = [entry.name for entry in self.fault]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"fault {twice[0]} is there twice")


def read_faults(path: Path) -> list[Fault]:
    """The faults in the TOML file at `path`, in its order, each planted by a `Patch`.

    Raises GoldensError naming the file and the field.
    """
    return [entry.fault() for entry in toml.read(path, _FaultsFile).fault]


def patched_factory(spec: str, fault: Fault, mesh: Any = None) -> Callable[[str, str], Port]:
    """What makes the port `spec` (`MODULE:FACTORY`) with `fault` in it, called as `load_port` is: (checkpoint, dtype).

    The copy is in the package's place while it is imported and the factory runs. A module that the port first imports
    later is the right package's.
    Raises GoldensError for text that the package does not have exactly once, and for a checkpoint that the factory
    refuses; Broken for a port that is not made for any other reason.
    """
    package = _package(spec)
    texts = _patched(package, fault)

    def make(checkpoint: str, dtype: str) -> Port:
        with _copied(package, texts):
            try:
                importlib.import_module(spec.partition(":")[0])
            except Exception as error:
                raise Broken(fault, f"importing it raised {told(error)}") from error
            try:
                return load_port(spec, checkpoint, dtype, mesh)
            except GoldensError as error:
                if isinstance(error.__cause__, ValueError | OSError):
                    raise
                raise Broken(fault, first_line(error)) from error

    return make


def copied_factory(spec: str, mesh: Any = None) -> Callable[[str, str], Port]:
    """What makes the port `spec` from a copy of its package that is not patched: what holds of it, holds of copies."""
    package = _package(spec)

    def make(checkpoint: str, dtype: str) -> Port:
        with _copied(package, {}):
            return load_port(spec, checkpoint, dtype, mesh)

    return make


@contextmanager
def _copied(package: Path, texts: dict[str, str]) -> Iterator[None]:
    """Inside, the package is imported from a copy with these texts in it."""
    with TemporaryDirectory(prefix="goldens-") as folder:
        _copy(package, Path(folder), texts)
        with _imported_from(Path(folder), package.stem):
            yield


def _package(spec: str) -> Path:
    """The folder of the package that `spec` names a factory of, or its file if it is a single module."""
    name = spec.partition(":")[0].partition(".")[0]
    try:
        found = importlib.util.find_spec(name) if name else None
    except ValueError:  # a module without a specification, such as __main__
        found = None
    places = [] if found is None else found.submodule_search_locations or [found.origin or ""]
    path = next((Path(place) for place in places if Path(place).suffix in ("", ".py")), None)
    if path is None or not path.exists():
        raise GoldensError(
            f"port {spec!r}: there is no source of {name!r} to patch; is it installed, or in this folder?"
        )
    return path


def _patched(package: Path, fault: Fault) -> dict[str, str]:
    """File in the package -> its text with the fault in it, of the files that the fault edits."""
    if not isinstance(fault.planting, Patch):
        raise GoldensError(f"fault {fault.name} is no patch: it is not planted by editing source")
    texts: dict[str, str] = {}
    for file, find, put in fault.planting.replace:
        text = texts.get(file) or _source(package, file, fault)
        count = text.count(find)
        if count != 1:
            raise GoldensError(
                f"fault {fault.name}: {file} of {package.stem} holds {find!r} {count} times where once was expected: "
                "bring the fault up to date with the source"
            )
        texts[file] = text.replace(find, put)
    return texts


def _source(package: Path, file: str, fault: Fault) -> str:
    path = package / file if package.is_dir() else package.with_name(file)
    if not path.is_file() or not path.resolve().is_relative_to(package.resolve()):
        raise GoldensError(f"fault {fault.name}: there is no file {file} in {package.stem}")
    return path.read_text(encoding="utf-8")


def _copy(package: Path, folder: Path, texts: dict[str, str]) -> None:
    if package.is_dir():
        shutil.copytree(package, folder / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(package, folder)
    copy = folder / package.name if package.is_dir() else folder
    for file, text in texts.items():
        (copy / file).write_text(text, encoding="utf-8")


@contextmanager
def _imported_from(folder: Path, name: str) -> Iterator[None]:
    """Inside, the package `name` is imported from `folder`; outside, what was imported before is, as if nothing was."""
    right = _take_out(name)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        _take_out(name)
        sys.modules.update(right)
        sys.path.remove(str(folder))
        sys.path_importer_cache.pop(str(folder), None)


def _take_out(name: str) -> dict[str, ModuleType]:
    """The package's modules, which are imported no more."""
    return {
        module: sys.modules.pop(module)
        for module in [*sys.modules]
        if module == name or module.startswith(f"{name}.")
    }
