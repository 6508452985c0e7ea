"""Replay: run a port against a golden file, component by component or as a whole."""

from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from harness.checkpoints import refuse_other, resolve
from harness.compare.files import places
from harness.compare.judge import judge, unmeasured
from harness.errors import GoldensError
from harness.model import Golden, Mode
from harness.replay.port import Isolated, NotOffered, Port, load_port
from harness.report.result import Result
from harness.store.reader import GoldenFile

Array = Any
_TRACE_INPUTS = ("token_ids", "attention_mask", "positions", "query_index")


class Session:
    """One golden file, and the ports that are held against it, one a dtype.

    A port is made when it is first needed; a forward pass is run once for a case and dtype, and kept until another
    one is asked for. names: the components to ask the port for end to end; all, if not given.
    """

    def __init__(
        self, file: GoldenFile, make_port: Callable[[str], Port], names: Collection[str] | None = None
    ) -> None:
        self._file = file
        self._make_port = make_port
        self._names = frozenset(names or (component.name for component in file.contents.components))
        self._ports: dict[str, Port] = {}
        self._traced: tuple[tuple[str, str], dict[str, Array]] | None = None

    def replay(self, goldens: Iterable[Golden], modes: Collection[Mode]) -> Iterator[Result]:
        """Every golden in every mode that it has, in the order given, isolated first for each dtype and case."""
        for group in _by_run(goldens):
            for mode in Mode:
                if mode in modes:
                    for golden in group:
                        if mode is Mode.END_TO_END or golden.isolated is not None:
                            yield self.result(golden, mode)

    def result(self, golden: Golden, mode: Mode) -> Result:
        return self.isolated(golden) if mode is Mode.ISOLATED else self.end_to_end(golden)

    def isolated(self, golden: Golden) -> Result:
        """Run one component on the golden's own inputs."""
        port = self._port(golden.dtype)
        component = self._file.component(golden.component)
        if not isinstance(port, Isolated):
            return unmeasured(component, golden, Mode.ISOLATED, "the port does not offer `apply`")
        try:
            outputs = port.apply(golden.component, self._file.inputs(golden))
        except NotOffered:
            return unmeasured(component, golden, Mode.ISOLATED, "the port does not offer this component")
        return self._judge(golden, Mode.ISOLATED, outputs)

    def end_to_end(self, golden: Golden) -> Result:
        """Take one component of the port's own forward pass."""
        run = (golden.case, golden.dtype)
        if self._traced is None or self._traced[0] != run:
            self._traced = None  # two forward passes need not fit in memory
            inputs = self._file.case_inputs(golden.case)
            traced = self._port(golden.dtype).trace(
                {name: inputs[name] for name in _TRACE_INPUTS}, self._names
            )
            self._traced = (run, dict(traced))
        component = self._file.component(golden.component)
        outputs = self._traced[1]
        if golden.component in outputs:
            kept = self._file.case_inputs(golden.case)["kept"]
            whole = np.asarray(outputs[golden.component])
            outputs = {golden.component: _rows(whole, component.axes, kept)}
        return self._judge(golden, Mode.END_TO_END, outputs)

    def _judge(self, golden: Golden, mode: Mode, outputs: Any) -> Result:
        component = self._file.component(golden.component)
        if golden.component not in outputs:
            return unmeasured(component, golden, mode, "the port does not offer this component")
        value = np.asarray(outputs[golden.component])
        return judge(
            component, golden, mode, value, self._file.output(golden), places(self._file, golden.case)
        )

    def _port(self, dtype: str) -> Port:
        if dtype not in self._ports:
            self._ports = {}  # a model in one dtype at a time
            self._ports[dtype] = self._make_port(dtype)
        return self._ports[dtype]


def _by_run(goldens: Iterable[Golden]) -> Iterator[list[Golden]]:
    """The goldens of one dtype and case together, in the order in which these first come."""
    groups: dict[tuple[str, str], list[Golden]] = {}
    for golden in goldens:
        groups.setdefault((golden.dtype, golden.case), []).append(golden)
    yield from groups.values()


def _rows(whole: Array, axes: str, kept: Array) -> Array:
    """The recorded token positions of a port's whole output."""
    letters = axes.split()
    if "T" not in letters or whole.ndim != len(letters) or len(kept) == whole.shape[letters.index("T")]:
        return whole
    return np.take(whole, kept, axis=letters.index("T"))


def checked_factory(file: GoldenFile, spec: str, checkpoint: str | None) -> Callable[[str], Port]:
    """Make ports by `spec` from the checkpoint that was recorded; refuse any other checkpoint.

    checkpoint: where it is here; by default where it was recorded from, relative to the golden file if it was so.
    """
    folder = resolve(checkpoint or recorded_checkpoint(file))
    refuse_other(folder, file.contents.provenance["checkpoint_files"], file.contents.config)
    return lambda dtype: load_port(spec, str(folder), dtype)


def recorded_checkpoint(file: GoldenFile) -> str:
    recorded = str(file.contents.provenance["checkpoint"])
    beside = Path(file.path).parent / recorded
    if beside.is_dir():
        return str(beside)
    if recorded.startswith((".", "/", "~")) and not Path(recorded).expanduser().is_dir():
        raise GoldensError(
            f"{file.path} was recorded from {recorded}, which is not here: say where with --checkpoint DIR"
        )
    return recorded
