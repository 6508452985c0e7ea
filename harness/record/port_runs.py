"""What a port puts out of a case, run as the case was recorded: at once, or through its cache. Needs no torch."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from harness.compare.metrics import Places
from harness.errors import GoldensError, told
from harness.kinds.table import at_keys
from harness.model import Component, Golden
from harness.replay.decode import Asked, Decoded, along_tokens, decode
from harness.replay.port import TRACE_INPUTS, Cached, Isolated, Port, no_mapping
from harness.store.layout import numpy_dtype
from harness.store.reader import GoldenFile

Array = Any


@dataclass(frozen=True)
class PortRun:
    """A port on one case in one dtype. spec: its name; goldens: what the frame has of the case, one a component."""

    frame: GoldenFile
    spec: str
    port: Port
    goldens: Sequence[Golden]

    def values(self) -> dict[str, Array]:
        """component -> its output at every token, of those that the port hands out.

        Raises GoldensError when the port raises, and when what it puts out could not be compared.
        """
        try:
            found = self._decoded() if self._parts else self._traced()
        except GoldensError:
            raise
        except Exception as error:  # whatever a stranger's port raises
            raise self._refused(f"it raised {told(error)}") from error
        for name, value in found.items():
            if name in self._framed:
                self._check(self._framed[name], value)
        return found

    @cached_property
    def _case(self) -> dict[str, Array]:
        return self.frame.case_inputs(self.goldens[0].case)

    @property
    def _parts(self) -> tuple[int, ...]:
        return self.frame.case(self.goldens[0].case).parts

    @property
    def _given(self) -> dict[str, Array]:
        return {name: self._case[name] for name in TRACE_INPUTS}

    @cached_property
    def _framed(self) -> dict[str, Golden]:
        return {golden.component: golden for golden in self.goldens}

    @property
    def _components(self) -> list[Component]:
        return [self.frame.component(name) for name in self._framed]

    def _traced(self) -> dict[str, Array]:
        """A whole pass. What a component takes in is asked for, too: the frame may not have it by itself."""
        sources = {source for component in self._components for source in component.inputs.values()}
        names = set(self._framed) | sources
        found = self.port.trace(self._given, names)
        if not isinstance(found, Mapping):
            raise self._refused(no_mapping(found))
        return {name: np.asarray(found[name]) for name in names if name in found}

    def _decoded(self) -> dict[str, Array]:
        """A text that the reference wrote, read through the port's cache in the same parts; nothing without one."""
        if not isinstance(self.port, Cached):
            return {}
        tokens = range(self._parts[-1])
        passed = [component for component in self._components if not component.cached]
        asked = Asked({c.name: tokens for c in passed}, at_keys(self.frame.contents.components))
        run = decode(self.port, self._given, asked, along_tokens(self.frame), self._parts)
        for name in (component.name for component in passed if component.name in run.miswritten):
            raise self._refused(f"{name}: {run.miswritten[name].says}")
        return self._out_of(run, passed) | self._in_cache(run, tokens)

    def _out_of(self, run: Decoded, passed: Collection[Component]) -> dict[str, Array]:
        blank = {c.name: np.zeros(self._whole(self._framed[c.name]), self._dtype) for c in passed}
        found = {c.name: run.output(c, blank[c.name]) for c in passed if run.offers(c.name)}
        for component in passed:
            if component.step in ("scores", "capped_scores") and component.name in found:
                found[component.name] = self._with_unread(component, found)
        return found

    def _with_unread(self, component: Component, found: Mapping[str, Array]) -> Array:
        """With the scores of keys that a step had not read, as the port's own component has them.

        They reach nothing; by itself, the component is asked for all of them.
        """
        read, sources = found[component.name], component.inputs
        if not isinstance(self.port, Isolated) or not all(source in found for source in sources.values()):
            return read
        inputs = {argument: found[source] for argument, source in sources.items()}
        every = np.asarray(self.port.apply(component.name, inputs)[component.name])
        ends = np.asarray(self._parts)
        until = ends[np.searchsorted(ends, np.arange(ends[-1]), side="right")][:, None]
        return np.where(np.arange(ends[-1]) < until, read, every)

    def _in_cache(self, run: Decoded, tokens: Sequence[int]) -> dict[str, Array]:
        """What the cache held in the end, by the components that stand for it."""
        held = {}
        for component in self._components:
            written = component.composite_of or ""
            if component.cached and written in run.cache:
                blank = np.zeros(self._whole(self._framed[component.name]), self._dtype)
                held[component.name] = run.cached(component, blank, written, tokens)
        return held

    @property
    def _dtype(self) -> Any:
        return numpy_dtype(self.goldens[0].dtype)

    def _whole(self, golden: Golden) -> tuple[int, ...]:
        """The shape of an output at every token, not only at the recorded ones."""
        letters = self.frame.component(golden.component).axes.split()
        kept = self.frame.tensors[golden.output].shape
        tokens = len(self._case["query_index"])
        return tuple(tokens if letter == "T" else size for letter, size in zip(letters, kept, strict=True))

    def _check(self, golden: Golden, value: Array) -> None:
        """What could not be compared is no golden."""
        component, shape = self.frame.component(golden.component), self._whole(golden)
        if value.dtype.name != golden.dtype or value.shape != shape:
            raise self._refused(
                f"{component.name} is {value.dtype.name} {value.shape}, where {golden.dtype} {shape} was expected"
            )
        real = self._case["attention_mask"] != 0
        valid = np.broadcast_to(Places(queries=real, keys=real).valid(component.axes), shape)
        if golden.dtype != "float16" and not np.isfinite(value[valid].astype(np.float32)).all():
            raise self._refused(f"{component.name} is NaN or infinite")

    def _refused(self, trouble: str) -> GoldensError:
        golden = self.goldens[0]
        return GoldensError(
            f"port {self.spec!r} cannot be recorded: in case {golden.case}, {golden.dtype}, {trouble}"
        )
