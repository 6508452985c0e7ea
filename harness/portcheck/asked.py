"""What a port is asked: one case of a golden file, in one dtype."""

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from harness.errors import told
from harness.model import Component, Golden
from harness.portcheck.trouble import Trouble
from harness.replay.port import TRACE_INPUTS, Arrays, Port, no_mapping
from harness.replay.session import whole_shape
from harness.replay.watch import UNWATCHED, Watch
from harness.store.reader import GoldenFile

Array = Any
_PASS = "a whole run"


class Broken(Exception):
    """A method that gave nothing to go on with."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.what)
        self.trouble = trouble


@dataclass(frozen=True)
class Asked:
    """port: made in the dtype, and told the wiring; watch: how long it may take for one answer."""

    file: GoldenFile
    port: Port
    case: str
    dtype: str
    watch: Watch = UNWATCHED

    @cached_property
    def inputs(self) -> Arrays:
        given = self.file.case_inputs(self.case)
        return {name: given[name] for name in TRACE_INPUTS}

    @cached_property
    def goldens(self) -> Mapping[str, Golden]:
        goldens = self.file.contents.goldens
        return {g.component: g for g in goldens if (g.case, g.dtype) == (self.case, self.dtype)}

    @cached_property
    def components(self) -> list[Component]:
        """Those that the golden file has in this case and dtype, in forward order."""
        return [c for c in self.file.contents.components if c.name in self.goldens and not c.cached]

    def whole_shape(self, component: Component) -> tuple[int, ...]:
        """Of its output at every token, not only at the recorded ones."""
        recorded = self.file.tensors[self.goldens[component.name].output].shape
        return whole_shape(recorded, component.axes, self.inputs["query_index"])

    def trace(self, names: Collection[str], port: Port | None = None) -> dict[str, Any]:
        """What `trace` hands out of these, nothing else, as it is. Raises Broken."""
        try:
            with self.watched(_PASS):
                outputs: Any = (port or self.port).trace(self.inputs, frozenset(names))
        except Exception as error:
            raise Broken(
                Trouble(
                    "trace", f"`trace` raised {told(error)}", "it has to run every case of the golden file"
                )
            ) from error
        if not isinstance(outputs, Mapping):
            way_out = "hand out {name: array}"
            raise Broken(Trouble("trace", no_mapping(outputs).replace("the port", "`trace`", 1), way_out))
        return dict(outputs)

    def logits(self, name: str, port: Port | None = None) -> Array:
        """The logits of a pass that is asked for nothing else. Raises Broken."""
        outputs = self.trace({name}, port)
        if name not in outputs:
            raise Broken(
                Trouble("trace", f"asked for {name} alone, `trace` has none", f"hand out {name} always")
            )
        return self.copied(outputs[name])

    def watched(self, what: str) -> AbstractContextManager[None]:
        """While the port gives one answer."""
        return self.watch.over(f"{what} ({self.case} {self.dtype})")

    def copied(self, value: Any) -> Array:
        """A numpy array that nobody can write to: neither the port, which may write into its own again, nor `apply`.

        Raises Broken for what is none: JAX computes when an array is asked for, and a row of a table may find no value.
        """
        try:
            with self.watched(_PASS):
                array = np.array(value)
        except Exception as error:
            what = f"what `trace` hands out cannot be read: {told(error)}"
            raise Broken(Trouble("trace", what, "mend the call, or the row of the table")) from error
        array.flags.writeable = False
        return array


def misshapen(value: Array, shape: tuple[int, ...], dtype: str) -> str:
    """How an array is none of those that were asked for; empty if it is one."""
    if value.dtype.name != dtype:
        return f"is in {value.dtype.name}, where the port was made in {dtype}"
    return f"has shape {value.shape}, where {shape} was expected" if value.shape != shape else ""
