"""Replay as it is asked for from outside: one golden file and one question make one run."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import track

from harness.errors import GoldensError
from harness.model import Golden, Mode
from harness.replay.session import Session, checked_factory
from harness.report.result import Run, with_listed
from harness.settings import port_setting
from harness.store.reader import GoldenFile


@dataclass(frozen=True)
class Question:
    """What to replay of a golden file, and on what. Empty selections leave nothing out.

    port: `MODULE:FACTORY`; checkpoint: where it is here, or None for where it was recorded from
    listed: glob of component names -> why these may stay unmeasured
    """

    port: str
    checkpoint: str | None
    modes: tuple[Mode, ...]
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    cases: tuple[str, ...]
    dtypes: tuple[str, ...]
    listed: Mapping[str, str]


def port_or_setting(port: str | None, folder: Path) -> str:
    """`port` if it is given, else what the nearest pyproject.toml says."""
    spec = port or port_setting(folder)
    if not spec:
        raise GoldensError(
            "no port is named: say which with --port MODULE:FACTORY,"
            " or as port under [tool.goldens] in pyproject.toml"
        )
    return spec


def replay(file: GoldenFile, question: Question, progress: Console) -> Run:
    """Run the port on all that is asked; a bar on `progress` shows how far it is."""
    selection = file.select(question.include, question.exclude, question.cases, question.dtypes)
    file.matching(question.listed)
    total = sum(_modes(golden, question.modes) for golden in selection)
    if not total:
        raise GoldensError(
            f"nothing selected of {file.path} has an isolated replay: composites run end to end only"
        )
    factory = checked_factory(file, question.port, question.checkpoint)
    session = Session(file, factory, [golden.component for golden in selection])
    bar = track(
        session.replay(selection, question.modes),
        description=file.path.name,
        total=total,
        console=progress,
        disable=not progress.is_terminal,
        transient=True,
    )
    results = [with_listed(result, question.listed) for result in bar]
    order = [component.name for component in file.contents.components]
    return Run.from_results(str(file.path), question.port, results, order)


def _modes(golden: Golden, modes: tuple[Mode, ...]) -> int:
    """How many of `modes` a golden has."""
    return sum(mode is Mode.END_TO_END or golden.isolated is not None for mode in modes)
