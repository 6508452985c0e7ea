"""The reference, loaded once and asked again and again. With recorder.py's, the only torch in this room."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.fuzz.drawn import Drawn
from harness.fuzz.memory import MemoryFile, MemoryWriter
from harness.model import Case, Contents, Golden, Parameter
from harness.record import reference
from harness.record.decoder import find_decoder
from harness.record.discover import discover
from harness.record.floors import WHOLE, Depth
from harness.record.keep import Keep
from harness.record.recorder import Recorder, Silent, write_case


class Reference:
    """A checkpoint's reference in one dtype. name: what it is called in messages."""

    def __init__(self, name: str, folder: Path, config: dict[str, Any], dtype: str) -> None:
        self._name, self._folder, self._config, self._dtype = name, folder, config, dtype
        self._decoder = find_decoder(reference.load(folder, dtype))
        self._components = [component for component in discover(self._decoder) if not component.cached]

    def recorded(self, inputs: Mapping[str, Drawn], depth: Depth = WHOLE) -> MemoryFile:
        """Goldens of inputs by name. depth: how much is found out of their floors."""
        writer, everything = MemoryWriter(), Keep()
        components = self._components
        recorder = Recorder(writer, self._decoder, components, components, self._dtype, Silent(), depth)
        cases: list[Case] = []
        goldens: list[Golden] = []
        for name, drawn in inputs.items():
            case_inputs = drawn.case(name, self._config["vocab_size"])
            case = write_case(writer, case_inputs, everything)
            goldens += recorder.whole([(case_inputs, case)], everything)
            cases.append(case)
        told = depth == WHOLE  # hashing a checkpoint takes as long as many inputs
        contents = Contents(
            provenance=self._provenance if told else {},
            config=self._config,
            parameters=self._fingerprints if told else [],
            components=components,
            cases=cases,
            goldens=goldens,
        )
        return MemoryFile(self._name, contents, writer)

    @cached_property
    def _provenance(self) -> dict[str, Any]:
        return reference.provenance(self._name, "folder", self._folder, self._decoder.model)

    @cached_property
    def _fingerprints(self) -> list[Parameter]:
        return reference.fingerprints(self._folder)
