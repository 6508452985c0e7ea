"""`goldens record`: from a suite to a golden file, and what becomes of the file that is there already."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from harness.checkpoints import read_config, resolve
from harness.compare.files import Agreement, compare_files
from harness.errors import GoldensError, nearest
from harness.guard.blind_spot import BlindSpot
from harness.guard.blindness import blind_spots
from harness.prompts import load_prompts
from harness.record.generation import Writing
from harness.record.keep import parse
from harness.record.recorder import Request
from harness.record.recorder import record as write_goldens
from harness.record.reference import TORCH_DTYPES, embedding_rms
from harness.report.wording import amount, failure_line
from harness.store.reader import GoldenFile
from harness.suite import (
    Suite,
    build_cases,
    build_generations,
    default_suite,
    load_suite,
    prompts_of,
)
from harness.weights import Weights

_SHOWN = 10


@dataclass(frozen=True)
class Asked:
    """What the command line says. Without a suite, the default one; what is empty or None is the suite's own."""

    suite: Path | None
    checkpoint: str | None
    output: Path | None
    dtypes: tuple[str, ...]
    keep: tuple[str, ...]
    cases: tuple[str, ...]


def record(asked: Asked) -> bool:
    """Record, and say on stdout what became of it; progress goes to stderr.

    A golden file that is there is never replaced: a recording that agrees with it within the noise floor leaves it
    as it is, and one that does not is written beside it as NAME.h5.new. False if there is such a difference.
    """
    plan = _plan(asked)
    console = Console(highlight=False, soft_wrap=True)
    pending = plan.golden.with_name(plan.golden.name + ".new")
    old = _there(plan.golden)
    request = _request(plan)
    with _progress() as progress:
        write_goldens(request, pending, progress)
    _warn(blind_spots(GoldenFile.open(pending), Weights(request.folder)))
    if old is None:
        os.replace(pending, plan.golden)
        console.print(f"{plan.golden}: {_size(GoldenFile.open(plan.golden))}")
        return True
    return _settle(old, GoldenFile.open(pending), console)


def _warn(spots: list[BlindSpot]) -> None:
    """What the recording cannot show, a line each on stderr. It is a golden file all the same."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    for spot in spots:
        console.print(f"[yellow]warning[/]: {escape(str(spot))}")


def _there(path: Path) -> GoldenFile | None:
    """The golden file that a recording will be held against."""
    if not path.exists():
        return None
    try:
        return GoldenFile.open(path)
    except GoldensError as error:
        raise GoldensError(
            f"{path} is there already and is no whole golden file: move it away, then record again"
        ) from error


def _plan(asked: Asked) -> Suite:
    """The suite with what the command line says instead of it."""
    for dtype in asked.dtypes:
        if dtype not in TORCH_DTYPES:
            raise GoldensError(f"dtype {dtype!r} cannot be recorded: choose from {', '.join(TORCH_DTYPES)}")
    plan = default_suite(asked.checkpoint or "") if asked.suite is None else load_suite(asked.suite)
    plan = replace(
        plan,
        checkpoint=asked.checkpoint or plan.checkpoint,
        golden=asked.output or plan.golden,
        dtypes=tuple(dict.fromkeys(asked.dtypes or plan.dtypes)),
        keep=asked.keep or plan.keep,
    )
    return _only(plan, asked.cases) if asked.cases else plan


def _only(plan: Suite, cases: tuple[str, ...]) -> Suite:
    """The suite with these cases: its randomized ones, and any of its prompts file."""
    drawn = tuple(entry for entry in plan.randomized if entry.name in cases)
    generation = tuple(entry for entry in plan.generation if entry.name in cases)
    own = {entry.name for entry in plan.randomized} | {entry.name for entry in plan.generation}
    fixed = tuple(name for name in dict.fromkeys(cases) if name not in own)
    known = (*load_prompts(plan.prompts), *own)
    for name in fixed:
        if name not in known:
            raise GoldensError(f"there is no case {name!r} to record{nearest(name, known)}")
    return replace(plan, cases=fixed, randomized=drawn, generation=generation)


def _request(plan: Suite) -> Request:
    folder = resolve(plan.checkpoint)
    config = read_config(folder)
    vocab_size = config.get("vocab_size")
    if not isinstance(vocab_size, int):
        raise GoldensError(f"{folder / 'config.json'} has no vocab_size: it is no decoder's configuration")
    cases = build_cases(plan, folder, vocab_size, lambda: embedding_rms(folder))
    origin = "folder" if Path(plan.checkpoint).is_dir() else "hub id"
    written = zip(build_generations(plan, folder, vocab_size), plan.generation, strict=True)
    return Request(
        checkpoint=_seen_from(plan),
        origin=origin,
        folder=folder,
        config=config,
        cases=tuple(cases),
        dtypes=plan.dtypes,
        keep=parse(list(plan.keep)),
        generations=tuple(Writing(prompt, entry.new_tokens, entry.steps) for prompt, entry in written),
        facts=plan.facts,
        prompts=tuple(prompts_of(plan, [*plan.cases, *(entry.prompt for entry in plan.generation)])),
    )


def _seen_from(plan: Suite) -> str:
    """The checkpoint as the golden file names it: from its own folder, if it was not named absolutely."""
    path = Path(plan.checkpoint)
    if path.is_absolute() or not path.is_dir():
        return plan.checkpoint
    return Path(os.path.relpath(path, plan.golden.parent)).as_posix()


def _settle(old: GoldenFile, new: GoldenFile, console: Console) -> bool:
    """Drop a recording that agrees with the file there; keep one that does not, and show the difference."""
    agreement = compare_files(old, new)
    if agreement.holds:
        new.path.unlink()
        worst = agreement.worst
        said = (
            "bit by bit the same"
            if worst.over_limit == 0
            else f"within the noise floor (largest difference {amount(worst.over_limit)} of what passes, "
            f"at {worst.component}, {worst.case} {worst.dtype})"
        )
        console.print(f"{old.path}: recorded again, {said}; left as it is")
        return True
    console.print(f"[bold red]{escape(str(old.path))}: recorded again, and it differs; left as it is[/]")
    for line in _differences(agreement):
        console.print(f"  {line}", markup=False)
    console.print(f"  the new recording is {new.path}: to take it, move it to {old.path.name}", markup=False)
    return False


def _differences(agreement: Agreement) -> Iterator[str]:
    yield from agreement.terms
    for result in agreement.differing[:_SHOWN]:
        yield failure_line(result)
    if len(agreement.differing) > _SHOWN:
        yield f"and {len(agreement.differing) - _SHOWN} more of {len(agreement.results)} goldens"


def _size(file: GoldenFile) -> str:
    contents = file.contents
    return (
        f"{len(contents.goldens)} goldens of {len(contents.components)} components in {len(contents.cases)} cases, "
        f"{', '.join(file.dtypes)}, {file.path.stat().st_size / 1e6:.1f} MB"
    )


class _Bar:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("loading the reference", total=None)

    def start(self, total: int) -> None:
        self._progress.update(self._task, total=total)

    def step(self, done: str) -> None:
        self._progress.update(self._task, advance=1, description=escape(done))


@contextmanager
def _progress() -> Iterator[_Bar]:
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:60}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield _Bar(progress)
