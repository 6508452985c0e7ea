"""Replay: run a port against a golden file, component by component or as a whole, and ask it for facts."""

import logging
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace

from harness.checkpoints import refuse_other, resolve
from harness.compare.arisen import arisen
from harness.compare.files import places
from harness.compare.judge import failed, judge, unmeasured
from harness.compare.logits import LogitsSummary, Rows, merged, rows, summarise
from harness.compare.pictures import Pictures
from harness.compare.sums import FEW, compiled
from harness.errors import GoldensError
from harness.facts.family import Found
from harness.facts.table import BEFORE, FAMILIES
from harness.model import BY_DEFAULT, LOGITS, Component, FactIn, Golden, Mode, Verdict
from harness.replay.decode import Decoded, Unfit, along_tokens, asked_in_decode, decode
from harness.replay.environment import platform_of_jax
from harness.replay.facts import replay_fact, result_of, weights_in
from harness.replay.modes import modes_of
from harness.replay.order import as_run
from harness.replay.port import (
    TRACE_INPUTS,
    Cached,
    Expecting,
    Isolated,
    NotOffered,
    Port,
    load_port,
    no_mapping,
    raised,
    wired,
)
from harness.replay.watch import UNWATCHED, Watch
from harness.report.result import Place, Result
from harness.store.layout import numpy_dtype
from harness.store.reader import GoldenFile
from harness.tolerances import NOTHING_SAID, Tolerances
from harness.weights import Weights

_LOG = logging.getLogger(__name__)

Array = Any
Recorded = Golden | FactIn
AHEAD = 4
"""So many comparisons before a golden is needed, its payloads are read, and the port's parameters."""
NOT_OFFERED = "the port does not offer this component"
NO_APPLY = "the port does not offer `apply`"
NO_CACHE = "the port does not offer `init_cache`, `step` and `read_cache`"


class Session:
    """One golden file, and the ports that are held against it, one a dtype.

    A port is made when it is first needed; a forward pass is run once for a case, dtype and mode, and kept until
    another one is asked for. names: the components to ask the port for in it; all, if not given.
    folder: the recorded checkpoint, if it is at hand: it tells more of a wrong parameter.
    pictures: where the pictures of errors are kept, if they are wanted.
    tolerances: what passes in place of noise floors, where somebody says so.
    watch: how long the port may take for one of them.
    """

    def __init__(
        self,
        file: GoldenFile,
        make_port: Callable[[str], Port],
        names: Collection[str] | None = None,
        folder: Path | None = None,
        pictures: Pictures | None = None,
        tolerances: Tolerances = NOTHING_SAID,
        watch: Watch = UNWATCHED,
    ) -> None:
        self.file = file
        self._make_port = make_port
        self._names = frozenset(names or (component.name for component in file.contents.components))
        self._ports: dict[str, Port] = {}
        self._latest: tuple[tuple[str, str, Mode], Any] | None = None
        self._begun: dict[tuple[str, str, str], Any] = {}
        self._found: dict[tuple[str, str, str], Found] = {}
        self._logits: dict[tuple[str, Mode], dict[str, Rows]] = {}
        self._folder = folder
        self._pictures = pictures
        self._tolerances = tolerances
        self.watch = watch

    @cached_property
    def weights(self) -> Weights | None:
        """The recorded checkpoint's tensors, if they are at hand."""
        return weights_in(self._folder)

    def replay(self, recorded: Iterable[Recorded], modes: Collection[Mode] = BY_DEFAULT) -> Iterator[Result]:
        """Everything in every mode that it has, in the order that asks the least of the port."""
        asked = [(each, mode) for each in recorded for mode in modes_of(self.file, each, modes)]
        runs = as_run(asked, self.file.order)
        self._begun.clear()
        self._have_compiled(each for each, _ in runs)
        for each, _ in runs[:1]:
            self.port(each.dtype)
        for each, mode in runs[:AHEAD]:
            self._expect(each, mode)
        for place, (each, mode) in enumerate(runs):
            for later, mode_then in runs[place + AHEAD : place + AHEAD + 1]:
                self._expect(later, mode_then)
            self._begin(runs[place : place + 2])
            yield self.result(each, mode)

    def _have_compiled(self, recorded: Iterable[Recorded]) -> None:
        """What compares large tensors, before the port's time is taken: it may take seconds, and is not the port's."""
        large = {
            each.dtype
            for each in recorded
            if isinstance(each, Golden) and math.prod(self.file.tensors[each.output].shape) > FEW
        }
        for dtype in large:
            compiled(numpy_dtype(dtype))

    def _expect(self, golden: Recorded, mode: Mode) -> None:
        """Have read what is going to be needed: payloads, and the parameters of a port that reads them one by one."""
        if not isinstance(golden, Golden):
            return
        self.file.read_ahead(golden)
        port = self._ports.get(golden.dtype)
        if mode is Mode.ISOLATED and isinstance(port, Expecting):
            port.expect(golden.component)

    def _begin(self, runs: Iterable[tuple[Recorded, Mode]]) -> None:
        """Have the port run the first component, and the next one if it computes while this goes on, as JAX does.

        What is judged is then computed beside. An array that is there at once may be one that the port uses again.
        """
        for golden, mode in runs:
            if not isinstance(golden, Golden) or mode is not Mode.ISOLATED or golden.dtype not in self._ports:
                return
            key = (golden.component, golden.case, golden.dtype)
            if key not in self._begun:
                with self._watched(golden, mode):
                    self._begun[key] = self._applied(golden)
            outputs = self._begun[key]
            value = outputs.get(golden.component) if isinstance(outputs, Mapping) else None
            if not hasattr(value, "block_until_ready"):
                return

    def _watched(self, recorded: Recorded, mode: Mode) -> AbstractContextManager[None]:
        alone = isinstance(recorded, FactIn) or mode is Mode.ISOLATED
        asked = recorded.component if alone else "a whole run"
        return self.watch.over(f"{asked} ({recorded.case} {recorded.dtype} {mode})")

    def result(self, recorded: Recorded, mode: Mode) -> Result:
        with self._watched(recorded, mode):
            if isinstance(recorded, FactIn):
                return result_of(recorded, self.found(recorded))
            run = {
                Mode.ISOLATED: self.isolated,
                Mode.END_TO_END: self.end_to_end,
                Mode.DECODE: self.decode,
            }
            return run[mode](recorded)

    def found(self, fact: FactIn) -> Found:
        """What became of the port's answer to a fact; it is asked once."""
        key = (fact.component, fact.case, fact.dtype)
        if key not in self._found:
            self._found[key] = replay_fact(self, fact)
        return self._found[key]

    def isolated(self, golden: Golden) -> Result:
        """Run one component on the golden's own inputs. Whatever the port raises is a failure of the component."""
        key = (golden.component, golden.case, golden.dtype)
        outputs = self._begun.pop(key) if key in self._begun else self._applied(golden)
        if isinstance(outputs, NotOffered):
            component = self.file.component(golden.component)
            return unmeasured(component, golden, Mode.ISOLATED, str(outputs))
        return self._judge(golden, Mode.ISOLATED, outputs)

    def _applied(self, golden: Golden) -> Any:
        """What the port gives for the golden's own inputs, or the exception that it raised."""
        port = self.port(golden.dtype)
        if not isinstance(port, Isolated):
            return NotOffered(NO_APPLY)
        inputs = self.file.inputs(golden)
        try:
            return port.apply(golden.component, inputs)
        except NotOffered:
            return NotOffered(NOT_OFFERED)
        except Exception as error:
            _LOG.debug("%s raised", golden.component, exc_info=True)
            return error

    def end_to_end(self, golden: Golden) -> Result:
        """Take one component of the port's own forward pass."""
        return self._judge(golden, Mode.END_TO_END, self._pass(golden, Mode.END_TO_END))

    def decode(self, golden: Golden) -> Result:
        """Take one component of the port's way through the case, token by token, and of its cache in the end.

        What the cache holds is compared where what the steps handed out passes.
        """
        component, port = self.file.component(golden.component), self.port(golden.dtype)
        if not isinstance(port, Cached):
            return unmeasured(component, golden, Mode.DECODE, NO_CACHE)
        decoded = self._pass(golden, Mode.DECODE)
        if isinstance(decoded, Exception):
            reason = str(decoded) if isinstance(decoded, Unfit) else raised(decoded)
            return failed(component, golden, Mode.DECODE, reason)
        recorded = self.file.output(golden)
        written = component.composite_of or "" if component.cached else component.name
        result = unmeasured(component, golden, Mode.DECODE, NOT_OFFERED)
        try:
            if decoded.offers(component.name):
                value = decoded.output(component, recorded)
                result = decoded.in_step(self._compared(component, golden, Mode.DECODE, value))
            if written in decoded.cache and result.verdict is not Verdict.FAIL:
                if written in decoded.miswritten:
                    return failed(component, golden, Mode.DECODE, decoded.miswritten[written].says)
                tokens = self.file.case_inputs(golden.case)[golden.tokens]
                held = decoded.cached(component, recorded, written, tokens)
                result = _in_cache(self._judged(component, golden, Mode.DECODE, held))
        except Unfit as error:
            return failed(component, golden, Mode.DECODE, str(error))
        return result

    def decoded(self, golden: Golden) -> Decoded | None:
        """What the port handed out of a golden's case, token by token; None if it cannot, or raised something."""
        port = self.port(golden.dtype)
        if not isinstance(port, Cached):
            return None
        with self._watched(golden, Mode.DECODE):
            found = self._pass(golden, Mode.DECODE)
        return found if isinstance(found, Decoded) else None

    def _pass(self, golden: Golden, mode: Mode) -> Any:
        """What the port hands out of a whole run of the golden's case, or the exception that it raised."""
        run = (golden.case, golden.dtype, mode)
        if self._latest is None or self._latest[0] != run:
            self._latest = None  # two forward passes need not fit in memory
            self._latest = (run, self._run(*run))
        return self._latest[1]

    def _run(self, case: str, dtype: str, mode: Mode) -> Any:
        port, given = self.port(dtype), self.file.case_inputs(case)
        inputs = {name: given[name] for name in TRACE_INPUTS}
        try:
            if mode is Mode.DECODE and isinstance(port, Cached):
                asked = asked_in_decode(self.file, self._of_run(case, dtype))
                return decode(port, inputs, asked, along_tokens(self.file), self.file.case(case).parts)
            return port.trace(inputs, self._names)
        except Exception as error:
            _LOG.debug("%s of %s raised", mode, case, exc_info=True)
            return error

    def _of_run(self, case: str, dtype: str) -> Iterator[Golden]:
        for golden in self.file.contents.goldens:
            if (golden.case, golden.dtype) == (case, dtype) and golden.component in self._names:
                yield golden

    def _judge(self, golden: Golden, mode: Mode, outputs: Any) -> Result:
        """Take the component out of what the port gave, and compare it if it can be compared at all."""
        component = self.file.component(golden.component)
        if isinstance(outputs, Exception):
            return failed(component, golden, mode, raised(outputs))
        if not isinstance(outputs, Mapping):
            return failed(component, golden, mode, no_mapping(outputs))
        if golden.component not in outputs:
            return unmeasured(component, golden, mode, NOT_OFFERED)
        recorded = self.file.output(golden)
        try:
            value = np.asarray(outputs[golden.component])
        except Exception as error:  # JAX computes when the array is asked for, and then finds what it cannot
            _LOG.debug("%s cannot be read", golden.component, exc_info=True)
            return failed(component, golden, mode, raised(error))
        if value.dtype.kind in "OSU":
            given = type(outputs[golden.component]).__name__
            reason = f"the port gave a {given}, where an array of numbers was expected"
            return failed(component, golden, mode, reason)
        if mode is Mode.END_TO_END:
            case = self.file.case_inputs(golden.case)
            whole = whole_shape(recorded.shape, component.axes, case["query_index"])
            if value.shape != whole:
                return failed(
                    component, golden, mode, f"shape {value.shape}, where the whole output has {whole}"
                )
            value = _rows(value, component.axes, case[golden.tokens])
        return self._compared(component, golden, mode, value)

    def _compared(self, component: Component, golden: Golden, mode: Mode, value: Array) -> Result:
        result = self._judged(component, golden, mode, value)
        if component.name == LOGITS and mode is not Mode.ISOLATED and result.error is not None:
            cases = self._logits.setdefault((golden.dtype, mode), {})
            cases[golden.case] = logits_rows(self.file, golden, value)
        return result

    def _judged(self, component: Component, golden: Golden, mode: Mode, value: Array) -> Result:
        recorded, where = self.file.output(golden), places(self.file, golden)
        place = Place(golden.component, golden.case, golden.dtype, mode)
        allowed = self._tolerances.allowed(place, platform_of_jax())
        result = judge(component, golden, mode, value, recorded, where, allowed)
        if result.verdict is Verdict.FAIL and result.error is None:
            tokens = self.file.case_inputs(golden.case)[golden.tokens]
            result = replace(result, arisen=arisen(value, recorded, component.axes, where, tokens))
        if self._pictures is not None:
            self._pictures.offer(component, result, value, recorded, where)
        return result

    def logits(self) -> list[LogitsSummary]:
        """The logits of all whole runs so far, in people's terms."""
        summaries = (
            summarise(merged(cases.values()), dtype, str(mode))
            for (dtype, mode), cases in self._logits.items()
        )
        return [summary for summary in summaries if summary is not None]

    def port(self, dtype: str) -> Port:
        """The port in a dtype; made when it is first asked for."""
        if dtype not in self._ports:
            self._ports = {}  # a model in one dtype at a time
            with self.watch.over_factory(dtype):
                self._ports[dtype] = wired(self._make_port(dtype), self.file.contents.components)
        return self._ports[dtype]


def _in_cache(result: Result) -> Result:
    """With where it was found, if it is a failure."""
    if result.verdict is not Verdict.FAIL:
        return result
    found = "the cache holds something else in the end"
    # What is computed came up elsewhere, and was judged there.
    return replace(result, reason=f"{found}: {result.reason}" if result.reason else found, arisen=None)


def logits_rows(file: GoldenFile, golden: Golden, port: Array) -> Rows:
    """Each token's logits, those of the port beside those of the golden; the token after it, where the case has it."""
    case, exact = file.case_inputs(golden.case), golden.exact
    after = np.where(case["attention_mask"] != 0, case["token_ids"], -1)[:, 1:]
    after = np.pad(after, ((0, 0), (0, 1)), constant_values=-1)
    return rows(
        port.astype(np.float32),
        file.output(golden).astype(np.float32),
        None if exact is None else file.tensor(exact),
        next_ids=after[:, case[golden.tokens]],
        valid=places(file, golden).queries,
    )


def in_order(file: GoldenFile, goldens: Iterable[Golden], facts: Iterable[FactIn]) -> list[Recorded]:
    """One dtype after another; facts of what a pass is given come before its goldens, all others after them."""
    facts = list(facts)
    before = [fact for fact in facts if FAMILIES[fact.fact.family] in BEFORE]
    after = [fact for fact in facts if FAMILIES[fact.fact.family] not in BEFORE]
    goldens = list(goldens)
    return [
        recorded
        for dtype in file.dtypes
        for group in (before, goldens, after)
        for recorded in group
        if recorded.dtype == dtype
    ]


def whole_shape(shape: tuple[int, ...], axes: str, query_index: Array) -> tuple[int, ...]:
    """The shape of an output at every token position, not only at the recorded ones."""
    letters = axes.split()
    return tuple(
        len(query_index) if letter == "T" else size for letter, size in zip(letters, shape, strict=True)
    )


def _rows(whole: Array, axes: str, kept: Array) -> Array:
    """The recorded token positions of a port's whole output."""
    letters = axes.split()
    if "T" not in letters or len(kept) == whole.shape[letters.index("T")]:
        return whole
    return np.take(whole, kept, axis=letters.index("T"))


def checked_factory(
    file: GoldenFile, spec: str, checkpoint: str | None, mesh: Any = None
) -> Callable[[str], Port]:
    """Make ports by `spec` from the checkpoint that was recorded; refuse any other checkpoint.

    checkpoint: where it is here; by default where it was recorded from, relative to the golden file if it was so.
    mesh: the devices to spread it over, if there are several
    """
    folder = checkpoint_folder(file, checkpoint)
    refuse_other(folder, file.contents.provenance["checkpoint_files"], file.contents.config)
    return lambda dtype: load_port(spec, str(folder), dtype, mesh)


def checkpoint_folder(file: GoldenFile, checkpoint: str | None) -> Path:
    """Where the recorded checkpoint is on this machine; `checkpoint` says so if it is not where it was."""
    return resolve(checkpoint or recorded_checkpoint(file))


def recorded_checkpoint(file: GoldenFile) -> str:
    """Where the checkpoint was when it was recorded: a hub id, or a folder, if it is still there."""
    recorded = str(file.contents.provenance["checkpoint"])
    if file.contents.provenance["checkpoint_is"] == "hub id":
        return recorded
    folder = file.path.parent / Path(recorded).expanduser()
    if not folder.is_dir():
        raise GoldensError(
            f"{file.path} was recorded from the folder {recorded}, which is not there as seen from the file: "
            "say where it is with --checkpoint DIR"
        )
    return str(folder)
