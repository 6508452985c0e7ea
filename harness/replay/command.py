"""Replay as it is asked for from outside: one golden file and one question make one run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from rich.console import Console
from rich.progress import track

from harness.compare.pictures import Pictures
from harness.diagnose.advice import advise
from harness.diagnose.diagnosis import diagnose
from harness.errors import GoldensError
from harness.model import Mode, Verdict
from harness.replay.environment import environment, platform_of_jax
from harness.replay.modes import modes_of
from harness.replay.order import as_told
from harness.replay.session import Recorded, Session, checked_factory, checkpoint_folder, in_order
from harness.replay.watch import Watch
from harness.report.arisen import where_arisen
from harness.report.result import Place, Run, with_listed
from harness.settings import port_setting
from harness.store.reader import GoldenFile
from harness.tolerances import NOTHING_SAID, Tolerances


@dataclass(frozen=True)
class Selection:
    """Which goldens of a file: globs of components, names of cases and dtypes. What is empty leaves nothing out."""

    include: tuple[str, ...]
    exclude: tuple[str, ...]
    cases: tuple[str, ...]
    dtypes: tuple[str, ...]


@dataclass(frozen=True)
class Question:
    """What to replay of a golden file, and on what.

    port: `MODULE:FACTORY`; checkpoint: where it is here, or None for where it was recorded from
    listed: glob of component names -> why these may stay unmeasured
    always_diagnose: look for other orders of roundings, too, where nothing fails
    tolerances: what passes in place of noise floors, and what is expected to fail
    timeout: the seconds that the port may take for one answer
    mesh: the devices to spread the port over, as a `jax.sharding.Mesh`
    """

    port: str
    checkpoint: str | None
    modes: tuple[Mode, ...]
    selection: Selection
    listed: Mapping[str, str]
    always_diagnose: bool = False
    tolerances: Tolerances = NOTHING_SAID
    timeout: float | None = None
    mesh: Any = None


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
    asked = question.selection
    chosen = (asked.include, asked.exclude, asked.cases, asked.dtypes)
    goldens = file.select(*chosen)
    selection = in_order(file, goldens, file.select_facts(*chosen))
    file.matching(question.listed)
    question.tolerances.refuse_all(file)
    places = _places(file, question, selection)
    factory = checked_factory(file, question.port, question.checkpoint, question.mesh)
    folder = checkpoint_folder(file, question.checkpoint)
    pictures = Pictures(file.order)
    names, tolerances = [golden.component for golden in goldens], question.tolerances
    session = Session(file, factory, names, folder, pictures, tolerances, Watch(question.timeout))
    session.port(selection[0].dtype)  # it brings JAX along, whose platform rows may ask for
    tolerances.refuse_ambiguous(places, platform_of_jax())
    bar = track(
        session.replay(selection, question.modes),
        description=file.path.name,
        total=len(places),
        console=progress,
        disable=not progress.is_terminal,
        transient=True,
    )
    judged = [with_listed(result, question.listed) for result in as_told(bar, places)]
    results = [tolerances.expected(result, platform_of_jax()) for result in judged]
    run = Run.from_results(str(file.path), question.port, results, file.order)
    run = replace(
        run,
        logits=session.logits(),
        digest=file.digest,
        recorded=dict(file.contents.provenance),
        environment=environment(Path.cwd(), question.mesh),
        pictures=pictures.all(),
    )
    if question.always_diagnose or any(result.verdict is Verdict.FAIL for result in judged):
        with progress.status(f"{file.path.name}: looking for what explains it"):
            explanations, notes = diagnose(session, folder, judged)
        run = replace(run, explanations=explanations, notes=notes)
    arisen = where_arisen(results, file.order)
    return replace(run, notes=[*arisen, *run.notes, *advise(file.contents.components, results)])


def _places(file: GoldenFile, question: Question, selection: Sequence[Recorded]) -> list[Place]:
    """Everything that is going to be compared. Raises GoldensError when there is nothing."""
    places = [
        Place(recorded.component, recorded.case, recorded.dtype, mode)
        for recorded in selection
        for mode in modes_of(file, recorded, question.modes)
    ]
    if not places:
        isolated = Mode.ISOLATED in question.modes
        why = "composites run end to end only" if isolated else "a case of one token has nothing to decode"
        raise GoldensError(
            f"nothing selected of {file.path} has a golden for {', '.join(question.modes)} replay: {why}"
        )
    return places
