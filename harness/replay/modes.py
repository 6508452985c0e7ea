"""Which replays there are of what is recorded. Imports nothing heavy."""

import sys
from collections.abc import Collection

from harness.facts.table import FAMILIES
from harness.kinds.frequencies import depend_on_length
from harness.model import FactIn, Golden, Mode
from harness.store.reader import GoldenFile


def modes_of(file: GoldenFile, recorded: Golden | FactIn, asked: Collection[Mode]) -> list[Mode]:
    """Those of `asked` that there are, isolated first; where nothing is asked for, those that it was recorded for."""
    if not asked:
        whole = Mode.DECODE if _parts(file, recorded) else Mode.END_TO_END
        asked = tuple(Mode) if isinstance(recorded, FactIn) else (Mode.ISOLATED, whole)
    return [mode for mode in Mode if mode in asked and replays(file, recorded, mode)]


def replays(file: GoldenFile, recorded: Golden | FactIn, mode: Mode) -> bool:
    """Whether there is a replay in `mode`.

    A composite is not run by itself, one token is not decoded, and a whole pass is none of a case that was read
    through the cache. A fact has the mode of its family.
    """
    if isinstance(recorded, FactIn):
        return FAMILIES[recorded.fact.family].mode is mode
    if mode is Mode.ISOLATED:
        return recorded.isolated is not None
    if mode is Mode.END_TO_END:
        return not _parts(file, recorded)
    return _tokens(file, recorded.case) > 1 and (
        bool(_parts(file, recorded)) or not angles_change(file, recorded.case)
    )


def angles_change(file: GoldenFile, case: str) -> bool:
    """Whether what is known of a whole pass says nothing of decode: dynamic RoPE turns by the longest position."""
    angles = [component for component in file.contents.components if component.step in ("cos", "sin")]
    if not any(depend_on_length(component.settings, sys.maxsize) for component in angles):
        return False  # without a look at any tensor
    longest = 1 + int(file.case_inputs(case)["positions"].max())
    return any(depend_on_length(component.settings, longest) for component in angles)


def _parts(file: GoldenFile, recorded: Golden | FactIn) -> tuple[int, ...]:
    return () if isinstance(recorded, FactIn) else file.case(recorded.case).parts


def _tokens(file: GoldenFile, name: str) -> int:
    """How many tokens each text of a case has, padding counted."""
    return file.tensors[file.case(name).inputs["token_ids"]].shape[1]
