"""Which replays there are of a golden. Imports nothing heavy."""

from harness.model import Golden, Mode
from harness.store.reader import GoldenFile


def replays(file: GoldenFile, golden: Golden, mode: Mode) -> bool:
    """Whether `golden` is replayed in `mode`: a composite is not run by itself, and one token is not decoded."""
    if mode is Mode.ISOLATED:
        return golden.isolated is not None
    return mode is Mode.END_TO_END or _tokens(file, golden.case) > 1


def _tokens(file: GoldenFile, name: str) -> int:
    """How many tokens each text of a case has, padding counted."""
    case = next(case for case in file.contents.cases if case.name == name)
    return file.tensors[case.inputs["token_ids"]].shape[1]
