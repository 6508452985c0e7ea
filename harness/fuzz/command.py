"""`goldens fuzz`: from a checkpoint and a port to the smallest input on which they differ."""

import random
import shlex
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis.configuration import set_hypothesis_home_dir
from hypothesis.errors import NoSuchExample
from msgspec.structs import replace
from rich.console import Console

from harness.checkpoints import read_config, resolve
from harness.diagnose.diagnosis import diagnose
from harness.errors import GoldensError
from harness.fuzz.drawn import Bounds, Drawn, drawn
from harness.fuzz.outcome import FORMAT, Failure, Fuzz, Input, Unmeasured
from harness.fuzz.reference import Reference
from harness.fuzz.save import refuse_taken, save
from harness.fuzz.shrink import shrink
from harness.fuzz.simpler import simplest
from harness.fuzz.trials import Compared, Seen, Trials
from harness.model import Mode, Verdict
from harness.record.reference import TORCH_DTYPES
from harness.replay.environment import environment
from harness.replay.port import Isolated, Port, load_port
from harness.replay.watch import Watch
from harness.report.arisen import where_arisen
from harness.report.result import Run, with_listed

_DRAWS = 20
"""How many times more inputs may be drawn than are run: some are drawn again and again."""
_POSITIONS = 4_096
"""How many there are, where a configuration does not say."""


@dataclass(frozen=True)
class Question:
    """What to fuzz.

    checkpoint: a folder or a hub id; port: `MODULE:FACTORY`
    tokens: at most, of all rows together; seconds: how long inputs are drawn, and again how long one is shrunk
    listed: glob of component names -> why these may stay unmeasured
    save: the prompts file that a failing input is added to, under `name`
    timeout: the seconds that the port may take for one answer
    """

    checkpoint: str
    port: str
    dtype: str
    compared: Compared
    seed: int
    examples: int
    seconds: float
    tokens: int
    rows: int
    listed: Mapping[str, str]
    save: Path | None
    name: str
    timeout: float | None = None

    @property
    def command(self) -> str:
        """What repeats it. `--seconds` is no part of it: with less time, less is found."""
        return shlex.join(
            [
                *(
                    "goldens",
                    "fuzz",
                    "--checkpoint",
                    self.checkpoint,
                    "--port",
                    self.port,
                    "--dtype",
                    self.dtype,
                ),
                *("--seed", str(self.seed), "--examples", str(self.examples)),
                *("--max-tokens", str(self.tokens), "--max-rows", str(self.rows)),
                *(part for mode in self.compared.modes for part in ("--mode", mode)),
                *(part for glob in self.compared.include for part in ("--include", glob)),
                *(part for glob in self.compared.exclude for part in ("--exclude", glob)),
            ]
        )


def fuzz(question: Question, progress: Console) -> Fuzz:
    """Draw inputs until one fails or there are enough; how far it is is told on `progress`."""
    if question.dtype not in TORCH_DTYPES:
        raise GoldensError(f"dtype {question.dtype!r} is none of {', '.join(TORCH_DTYPES)}")
    if question.save is not None:
        refuse_taken(question.save, question.name)
    folder = resolve(question.checkpoint)
    config = read_config(folder)
    bounds = _bounds(question, config, folder)
    port = _port(question, folder)
    began = time.monotonic()
    with progress.status("loading the reference") as status:
        reference = Reference(question.checkpoint, folder, config, question.dtype)
        told = _teller(status.update, began)
        trials = _trials(question, reference, port, question.examples, told)
        found = _Found(question, folder, port, trials)
        failure, smallest = found.failure(bounds)
        if failure is not None and smallest is not None:
            failure = replace(failure, configuration=_simplest(question, folder, smallest, told))
    if smallest is not None and question.save is not None:
        save(question.save, question.name, smallest)
    return _outcome(question, trials, failure, time.monotonic() - began)


def _port(question: Question, folder: Path) -> Port:
    with Watch(question.timeout).over_factory(question.dtype):
        return load_port(question.port, str(folder), question.dtype)


def _trials(
    question: Question, reference: Reference, port: Port, examples: int, told: Callable[[Seen], None]
) -> Trials:
    watch = Watch(question.timeout)
    return Trials(reference, port, question.compared, examples, question.seconds, told, watch)


def _simplest(question: Question, folder: Path, smallest: Drawn, told: Callable[[Seen], None]) -> list[str]:
    """What the checkpoint can do without while the smallest input fails. What refuses a simpler one needs it all."""

    def fails(simpler: Path) -> bool:
        try:
            port = _port(question, simpler)
            reference = Reference(question.checkpoint, simpler, read_config(simpler), question.dtype)
            return _trials(question, reference, port, 1, told).fails(smallest)
        except GoldensError:
            return False

    return simplest(folder, fails)


def _bounds(question: Question, config: Mapping[str, Any], folder: Path) -> Bounds:
    vocab_size, positions = config.get("vocab_size"), config.get("max_position_embeddings", _POSITIONS)
    if not isinstance(vocab_size, int) or not isinstance(positions, int):
        raise GoldensError(f"{folder / 'config.json'} has no vocab_size: it is no decoder's configuration")
    return Bounds(vocab_size, min(question.tokens, positions), question.rows, positions)


def _teller(tell: Callable[[str], None], began: float) -> Callable[[Seen], None]:
    def told(seen: Seen) -> None:
        tell(f"{seen.inputs} inputs, up to {seen.longest} tokens, {time.monotonic() - began:.0f} s")

    return told


@dataclass(frozen=True)
class _Found:
    """What becomes of a failing input."""

    question: Question
    folder: Path
    port: Port
    trials: Trials

    def failure(self, bounds: Bounds) -> tuple[Failure, Drawn] | tuple[None, None]:
        """The smallest failure, if there is one, by the whole rule."""
        for _ in ("trusting the first look", "not"):
            smallest = self._smallest(bounds)
            if smallest is None or self.trials.first is None:
                return None, None
            run = self._run({"smallest": smallest})
            if any(r.verdict is Verdict.FAIL and r.mode in self.question.compared.modes for r in run.results):
                return self._explained(run, smallest, self.trials.first), smallest
            self.trials.distrust()
        return None, None

    def _smallest(self, bounds: Bounds) -> Drawn | None:
        asked = hypothesis.settings(
            max_examples=_DRAWS * self.question.examples,
            database=None,
            deadline=None,
            phases=(hypothesis.Phase.generate, hypothesis.Phase.shrink),
        )
        with tempfile.TemporaryDirectory() as home:
            set_hypothesis_home_dir(home)  # it would leave a folder in the user's
            try:
                found = hypothesis.find(
                    drawn(bounds), self.trials.fails, settings=asked, random=random.Random(self.question.seed)
                )
            except NoSuchExample:
                found = None
        if self.trials.refused is not None:
            raise self.trials.refused
        return None if found is None else shrink(found, self.trials.fails)

    def _explained(self, run: Run, smallest: Drawn, first: Drawn) -> Failure:
        """With both inputs together, where the smallest alone leaves open what explains it."""
        told = [e for e in run.explanations if run.first_wrong and e.component == run.first_wrong.component]
        open_ = smallest != first and not any(len(each.hypotheses) == 1 for each in told)
        both = self._run({"smallest": smallest, "found": first}) if open_ else None
        return Failure(Input.of(smallest), Input.of(first), run, both)

    def _run(self, inputs: Mapping[str, Drawn]) -> Run:
        """The replay of inputs by the whole rule, explained; each component by itself, too, where the port can."""
        asked = {*self.question.compared.modes, *([Mode.ISOLATED] if isinstance(self.port, Isolated) else [])}
        session = self.trials.session(inputs, folder=self.folder)
        results = self.trials.replay(session, tuple(mode for mode in Mode if mode in asked))
        explanations, notes = diagnose(session, self.folder, results)
        listed = [with_listed(result, self.question.listed) for result in results]
        run = Run.from_results(" and ".join(inputs), self.question.port, listed, session.file.order)
        return replace(
            run,
            explanations=explanations,
            notes=[*where_arisen(listed, session.file.order), *notes],
            logits=session.logits(),
            recorded=dict(session.file.contents.provenance),
            environment=environment(Path.cwd()),
        )


def _outcome(question: Question, trials: Trials, failure: Failure | None, seconds: float) -> Fuzz:
    seen = trials.seen
    listed = [with_listed(result, question.listed) for result in seen.unmeasured.values()]
    unmeasured = [Unmeasured(result.component, result.reason, result.listed) for result in listed]
    wrong = failure is not None or any(not each.listed for each in unmeasured)
    nothing = Verdict.PASS if seen.measured else Verdict.UNMEASURED
    before = seen.inputs if failure is None else trials.before
    return Fuzz(
        format=FORMAT,
        checkpoint=question.checkpoint,
        port=question.port,
        dtype=question.dtype,
        modes=[str(mode) for mode in question.compared.modes],
        seed=question.seed,
        verdict=Verdict.FAIL if wrong else nothing,
        inputs=before,
        shrinking=seen.inputs - before,
        longest=seen.longest,
        rows=seen.rows,
        position=seen.position,
        seconds=seconds,
        cut=trials.cut,
        command=question.command,
        unmeasured=unmeasured,
        failure=failure,
        saved=str(question.save) if failure is not None and question.save is not None else "",
    )
