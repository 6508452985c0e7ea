"""Reports as files: one result model in several formats, by the file's suffix. Imports nothing heavy."""

from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from pathlib import Path

import msgspec
from msgspec.structs import astuple, replace

from harness.errors import GoldensError, first_line
from harness.history.entry import Entry
from harness.report.result import FORMAT, Run
from harness.whole import written_whole


def write_report(runs: Sequence[Run], path: Path, history: Sequence[Entry] = ()) -> None:
    """Write what `path` is to hold by its suffix; it appears whole or not at all. Raises GoldensError.

    history: earlier runs, which a page in HTML shows beside these
    """
    refuse_unwritable([path])
    text = _FORMATS[path.suffix](runs, history)
    with written_whole(path) as beside:
        beside.write_text(text, encoding="utf-8")


def refuse_unwritable(paths: Iterable[Path]) -> None:
    """Raises GoldensError for a report that could not be written, before anything is run for it."""
    for path in paths:
        if path.suffix not in _FORMATS:
            known = ", ".join(_FORMATS)
            raise GoldensError(f"{path}: no report has the suffix {path.suffix!r}; there are {known}")
        if not path.parent.is_dir():
            raise GoldensError(f"{path}: the folder {path.parent} is not there: make it first")


def read_runs(path: Path) -> list[Run]:
    """The runs of a file that `goldens replay --json` or a report in JSON has written, one a line."""
    try:
        lines = path.read_bytes().splitlines()
        runs = [Run.from_json(line) for line in lines if line.strip()]
    except OSError as error:
        raise GoldensError(f"cannot read {path}: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise GoldensError(
            f"{path} is not what `goldens replay --json` writes: {first_line(error)}"
        ) from error
    if not runs:
        raise GoldensError(f"{path} has no run: expected what `goldens replay --json` writes")
    return [_checked(run, path) for run in runs]


def _checked(run: Run, path: Path) -> Run:
    """The run, with the order that its results are in if it says no other."""
    if run.format != FORMAT:
        raise GoldensError(f"{path} has format {run.format}, and this version reads {FORMAT}")
    run = replace(run, order=run.order or list(dict.fromkeys(result.component for result in run.results)))
    named = {result.component for result in run.results}
    places = {(r.component, r.case, r.dtype, r.mode) for r in run.results}
    if not named <= set(run.order) or (run.first_wrong and astuple(run.first_wrong) not in places):
        raise GoldensError(f"{path} contradicts itself: write it again with `goldens replay --json`")
    return run


def _html(runs: Sequence[Run], history: Sequence[Entry]) -> str:
    from harness.report.html.page import render

    return render(runs, history)


def _json(runs: Sequence[Run], _: Sequence[Entry]) -> str:
    return "".join(run.to_json().decode() + "\n" for run in runs)


def _by(module: str) -> "_Render":
    """`render` of a module, which is imported when a report is written."""
    return lambda runs, _: import_module(module).render(runs)


_Render = Callable[[Sequence[Run], Sequence[Entry]], str]
_FORMATS: dict[str, _Render] = {
    ".html": _html,
    ".json": _json,
    ".md": _by("harness.report.markdown"),
    ".xml": _by("harness.report.junit"),
}
