"""`goldens record`: from a suite to a golden file, and what becomes of the file that is there already."""

import os
import shutil
from collections.abc import Iterator, Mapping
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
from torch import nn

from harness.checkpoints import read_config, resolve
from harness.errors import GoldensError, nearest
from harness.guard.blind_spot import BlindSpot
from harness.guard.blindness import blind_spots
from harness.model import Component
from harness.prompts import load_prompts
from harness.record.generation import Writing
from harness.record.keep import parse
from harness.record.plan import found_by, planned
from harness.record.recorder import Request
from harness.record.recorder import record as write_goldens
from harness.record.reference import TORCH_DTYPES, embedding_rms
from harness.record.resumed import Resuming
from harness.report.contents import size
from harness.report.plan import shares, show_plan
from harness.review.pending import pending_of
from harness.review.settle import recording, settle
from harness.store.parts import Parts, found, remove
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
from harness.whole import parts_of

LARGE = 100_000_000
"""From so many bytes on, a recording says beforehand how large it will be."""


@dataclass(frozen=True)
class Asked:
    """What the command line says. Without a suite, the default one; what is empty or None is the suite's own.

    resume: go on with a recording in parts, or begin one
    """

    suite: Path | None
    checkpoint: str | None
    output: Path | None
    dtypes: tuple[str, ...]
    keep: tuple[str, ...]
    cases: tuple[str, ...]
    resume: bool = False


def record(asked: Asked) -> bool:
    """Record, and say on stdout what became of it; progress goes to stderr.

    A golden file that is there is never replaced: a recording that agrees with it within the noise floor leaves it
    as it is, and one that does not is written beside it as NAME.h5.new. False if there is such a difference.
    """
    plan = _plan(asked)
    pending, folder = pending_of(plan.golden), parts_of(plan.golden)
    with recording(plan.golden, {}, _tell) as old:
        request = _request(plan)
        if asked.resume:
            _write_in_parts(request, pending, folder)
        else:
            _write(request, pending, folder)
        recorded = GoldenFile.open(pending)
        _tell_modules(recorded.contents.provenance.get("modules", {}))
        _warn(blind_spots(recorded, Weights(request.folder)))
        holds = settle(old, plan.golden, Console(highlight=False, soft_wrap=True))
        left = found(folder)
        remove(folder)
        if left and not asked.resume:
            _tell(f"{folder}: removed, an interrupted recording left it")
        return holds


def _write(request: Request, pending: Path, folder: Path) -> None:
    """In one go. What parts of an interrupted recording are there stay until this one is whole."""
    if there := len(found(folder)):
        parts = f"{there} parts" if there > 1 else "one part"
        _tell(f"{folder}: {parts} of an interrupted recording, which --resume goes on with; not used now")
    with _progress(request, pending.parent) as progress:
        write_goldens(request, pending, progress)


def _write_in_parts(request: Request, pending: Path, folder: Path) -> None:
    parts = Parts(folder, _tell)
    with _progress(request, pending.parent, parts) as progress:
        write_goldens(request, pending, progress, Resuming(request, parts))
    try:
        parts.refuse_unless_in(GoldenFile.open(pending))
    except GoldensError:
        pending.unlink()
        raise


def plan_only(asked: Asked) -> None:
    """Say on stdout how large the recording would be, and what is dearest. Nothing is written."""
    console = Console(highlight=False, soft_wrap=True)
    show_plan(found_by(_request(_plan(asked))).plan(), console)


def _tell(line: str) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(line, markup=False)


def _tell_modules(modules: Mapping[str, str]) -> None:
    """What is recorded more coarsely than step by step, a line on stderr for each reason."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    for because in dict.fromkeys(modules.values()):
        names = ", ".join(name for name, reason in modules.items() if reason == because)
        console.print(f"[yellow]coarser[/]: {escape(f'{names} recorded as a module: {because}')}")


def _warn(spots: list[BlindSpot]) -> None:
    """What the recording cannot show, a line each on stderr. It is a golden file all the same."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    for spot in spots:
        console.print(f"[yellow]warning[/]: {escape(str(spot))}")


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


class _Bar:
    """folder: where the golden file goes; parts: those it is recorded in"""

    def __init__(self, progress: Progress, request: Request, folder: Path, parts: Parts | None) -> None:
        self._progress, self._request, self._folder, self._parts = progress, request, folder, parts
        self._task = progress.add_task("loading the reference", total=None)

    def found(self, components: list[Component], kept: list[Component], model: nn.Module) -> None:
        """Say how large the file will be, if it will be large; refuse one for which there is no room."""
        wanted = planned(self._request, components, kept, model)
        plan = wanted.plan()
        free = shutil.disk_usage(self._folder).free
        needed = plan.nbytes + self._in_parts(plan.nbytes)
        if needed > free:
            less = replace(wanted, keep=replace(wanted.keep, tokens=None, sample=8)).plan()
            raise GoldensError(
                f"{size(needed)} would be written to {self._folder}, where {size(free)} are free: keep less; "
                f"with --keep tokens=sample:8 it is {size(less.nbytes + self._in_parts(less.nbytes))}"
            )
        if plan.nbytes >= LARGE:
            told = ", ".join(f"{share} {part}" for part, _, share in shares(plan)[:3])
            self._progress.console.print(f"writing {size(plan.nbytes)}: {told}", markup=False)

    def _in_parts(self, nbytes: int) -> int:
        """What is written beside a golden file of so many bytes, until it is whole."""
        return 0 if self._parts is None else max(0, nbytes - self._parts.nbytes)

    def start(self, total: int) -> None:
        self._progress.update(self._task, total=total)

    def step(self, done: str) -> None:
        self._progress.update(self._task, advance=1, description=escape(done))


@contextmanager
def _progress(request: Request, folder: Path, parts: Parts | None = None) -> Iterator[_Bar]:
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:60}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield _Bar(progress, request, folder, parts)
