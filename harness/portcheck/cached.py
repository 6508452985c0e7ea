"""`init_cache`, `step` and `read_cache` against `trace`: read in parts, a text gives what it gives at once."""

from collections.abc import Iterator, Mapping
from typing import Any

from harness.errors import nearest, told
from harness.kinds.table import at_keys
from harness.model import Component, Mode, Verdict
from harness.portcheck.asked import Asked
from harness.portcheck.trouble import Trouble, difference
from harness.portcheck.whole import Whole
from harness.replay.decode import Asked as AskedInDecode
from harness.replay.decode import Decoded, Unfit, along_tokens, decode, slots
from harness.replay.modes import angles_change
from harness.replay.port import Cached, NotOffered, no_mapping

Array = Any
_CONTRACT = "docs/ports.md says what a cache is asked"
_NO_TRACE = "let it attend to the cache as to the text itself, and leave out slots that are not written"


class InParts:
    """The case read at once through a cache, and then in parts. lacking: components that `step` does not hand out."""

    def __init__(self, asked: Asked, whole: Whole) -> None:
        self._asked, self._forward = asked, whole.forward
        self._components = [c for c in asked.components if c.name in self._forward.values]
        self.lacking: list[Component] = []
        self.troubles: list[Trouble] = []
        tokens = asked.inputs["token_ids"].shape[1]
        if not isinstance(asked.port, Cached) or tokens < 2:
            return
        self.troubles += self._names(asked.port, tokens)
        if not self.troubles:
            self.troubles += self._read(asked.port, (tokens,), "at once")
        if not self.troubles and not angles_change(asked.file, asked.case):
            self.troubles += self._read(asked.port, (), "in parts")

    def _names(self, port: Cached, tokens: int) -> Iterator[Trouble]:
        """What a cache holds is named by the components that are written to it."""
        along = along_tokens(self._asked.file)
        try:
            held: Any = port.read_cache(
                port.init_cache(len(self._asked.inputs["token_ids"]), slots(tokens), float("nan"))
            )
        except NotOffered:
            return
        except Exception as error:
            yield Trouble(
                "init_cache", f"a cache that nothing was read into: the port raised {told(error)}", _CONTRACT
            )
            return
        if not isinstance(held, Mapping):
            what = no_mapping(held).replace("the port", "`read_cache`", 1)
            yield Trouble("read_cache", what, "hand out {name: array}")
            return
        for name in held if along else ():
            if name not in along:
                what = f"`read_cache` names {name}, which no cache of this model holds{nearest(str(name), along)}"
                yield Trouble("read_cache", what, "name what is cached by the component that puts it out")

    def _read(self, port: Cached, read: tuple[int, ...], how: str) -> Iterator[Trouble]:
        tokens = self._asked.inputs["token_ids"].shape[1]
        wanted = AskedInDecode({c.name: range(tokens) for c in self._components}, at_keys(self._components))
        try:
            with self._asked.watched(f"a run {how} through a cache"):
                decoded = decode(port, self._asked.inputs, wanted, along_tokens(self._asked.file), read)
        except Unfit as error:
            yield Trouble("step", str(error).replace("the port", "`step`", 1), _CONTRACT)
            return
        except NotOffered:
            return
        except Exception as error:
            yield Trouble("step", f"read {how} through a cache: the port raised {told(error)}", _CONTRACT)
            return
        self.lacking = [c for c in self._components if not decoded.offers(c.name)]
        yield from self._compared(decoded, how)
        for name, miswritten in decoded.miswritten.items():
            what = f"read {how}, the cache does not hold what `step` handed out"
            component = self._asked.file.component(name)
            yield Trouble("read_cache", what, "read what was written, by slots", component, miswritten.says)

    def _compared(self, decoded: Decoded, how: str) -> Iterator[Trouble]:
        what = f"read {how} through a cache, `step` does not give what `trace` gave"
        for component in self._components:
            if not decoded.offers(component.name):
                continue
            there = self._forward.values[component.name]
            try:
                value = decoded.output(component, there)
            except Unfit as error:
                yield Trouble("step", what, _CONTRACT, component, str(error))
                continue
            result = self._forward.again(component, value, Mode.END_TO_END)
            if result.verdict is Verdict.FAIL:
                yield Trouble("step", what, _NO_TRACE, component, difference(result))
