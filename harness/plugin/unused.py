"""Goldens that no test compares: when that is judged, and what is said of them."""

from collections.abc import Collection, Iterator, Sequence
from itertools import groupby
from pathlib import Path

import pytest

from harness.checks import shown
from harness.plugin.told import Collected, Told
from harness.report.wording import some_of

_CASES = 6


def not_judged(
    config: pytest.Config, told: Collection[Told], collected: Collected | None, crashed: bool, broken: bool
) -> str:
    """Why nothing can be said: whoever runs a part of the tests compares a part. Empty if all ran to their end.

    broken: whether a module was skipped, or could not be collected
    """
    if crashed or collected is None:
        return "a process crashed"
    if collected.missing:
        return "a golden file is not there"
    if broken:
        return "a module was skipped, or could not be collected"
    if collected.deselected or _left_out(config):
        return "a part of the tests was selected"
    selected = sum(of_file.selected for of_file in collected.files.values())
    if sum(each.compared for each in told) < selected:
        return "not every selected test compared something"
    return ""


def _left_out(config: pytest.Config) -> bool:
    """Whether the command line leaves out what no hook is told of."""
    return any(
        config.getoption(name, None) for name in ("lf", "ignore", "ignore_glob", "pyargs")
    ) or not _all_folders(config)


def _all_folders(config: pytest.Config) -> bool:
    """Whether what is collected takes in `testpaths`, or rootdir where these are not set."""
    if config.args_source is pytest.Config.ArgsSource.TESTPATHS:
        return True
    asked = [Path(config.invocation_params.dir, argument).resolve() for argument in config.args]
    whole = [config.rootpath / folder for folder in config.getini("testpaths")] or [config.rootpath]
    return all(any(folder.resolve().is_relative_to(path) for path in asked) for folder in whole)


def unused(collected: Collected, folder: Path | None, root: Path) -> Iterator[str]:
    """A line for each golden file that is left, or is left in part, and for what is left in it.

    folder: where golden files lie, if a setting says so: each of them is expected to be compared
    """
    for file, of_file in collected.files.items():
        if of_file.left:
            yield f"{file}: {len(of_file.left)} of {of_file.used + len(of_file.left)} goldens are compared by no test"
            yield from _parts(of_file.left)
    used = {Path(of_file.path).resolve() for of_file in collected.files.values()}
    for path in sorted(folder.rglob("*.h5")) if folder is not None else []:
        if path.resolve() not in used and _is_golden_file(path):
            yield f"{shown(path, root)}: no test compares anything of it"


def _parts(left: Sequence[tuple[str, str, str]]) -> Iterator[str]:
    """By dtype and case, the first few by name."""
    parts = [list(members) for _, members in groupby(left, key=lambda golden: golden[:2])]
    for members in parts[:_CASES]:
        dtype, case, _ = members[0]
        yield f"  {case}{dtype and f' {dtype}'}: {some_of([component for _, _, component in members])}"
    if len(parts) > _CASES:
        yield f"  and in {len(parts) - _CASES} more cases and dtypes"


def _is_golden_file(path: Path) -> bool:
    """Other HDF5 files may lie beside them."""
    from harness.store.layout import MAGIC

    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC.encode()
    except OSError:
        return False
