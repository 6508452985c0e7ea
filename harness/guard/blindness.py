"""What a golden file cannot show, whatever the port does: found from its cases, its tensors and the weights.

A blind spot is no fault of anybody's. It says which mistakes would pass, and what to record to catch them.
Needs numpy only.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.guard.blind_spot import BlindSpot, add_case, recorded_positions
from harness.guard.blind_tensors import of_tensors, of_weights
from harness.store.reader import GoldenFile

Array = Any

SAMPLE = "tokens=sample:8"
_DISTINCT = 256
"""From here on bfloat16, with 8 bits, no longer tells every whole number from the next."""


def blind_spots(file: GoldenFile, weights: Mapping[str, Array]) -> list[BlindSpot]:
    """All that the golden file as a whole cannot show. weights: the recorded checkpoint's, by the reference's names."""
    prompts = [_prompt(file, case.name) for case in file.contents.cases]
    lacks = [
        BlindSpot(lack.name, lack.of_file, lack.hides, add_case(file, lack.case))
        for lack in _LACKS
        if lack.lacking(prompts)
    ]
    lacks += [spot for case in file.contents.cases for spot in _lost(file, case.name)]
    return lacks + [*of_tensors(file), *of_weights(file, weights)]


def blind_spots_of_case(file: GoldenFile, case: str) -> list[BlindSpot]:
    """What one case by itself cannot show, whatever the others do: what a reader of its failure must know."""
    prompt = _prompt(file, case)
    return [
        BlindSpot(lack.name, lack.of_case, lack.hides, add_case(file, lack.case), lack.misleads)
        for lack in _LACKS
        if lack.of_case and lack.lacking([prompt])
    ]


@dataclass(frozen=True)
class _Prompt:
    """A case's inputs, each (B T). real: True where a token is no padding."""

    token_ids: Array
    real: Array
    positions: Array

    @property
    def rows(self) -> list[Array]:
        """The real tokens of each row."""
        return [ids[real] for ids, real in zip(self.token_ids, self.real, strict=True)]

    @property
    def pads_left(self) -> bool:
        return not self.real[:, 0].all()

    @property
    def pads_right(self) -> bool:
        return not self.real[:, -1].all()


def _whole(file: GoldenFile, case: str) -> _Prompt:
    inputs = file.case_inputs(case)
    return _Prompt(inputs["token_ids"], inputs["attention_mask"] != 0, inputs["positions"])


def _prompt(file: GoldenFile, case: str) -> _Prompt:
    """What the recorded tokens see: no text that has none of them, and nothing behind the last of them."""
    whole, recorded = _whole(file, case), recorded_positions(file, case)
    texts, end = whole.real[:, recorded].any(axis=1), int(recorded.max()) + 1
    if not texts.any():  # padding alone shows as little as one token
        first = np.s_[:1, :1]
        return _Prompt(whole.token_ids[first], np.ones((1, 1), bool), whole.positions[first])
    return _Prompt(*(array[texts, :end] for array in (whole.token_ids, whole.real, whole.positions)))


def _lost(file: GoldenFile, case: str) -> Iterator[BlindSpot]:
    """What a case would show if more of its tokens were kept."""
    seen, whole = _prompt(file, case), _whole(file, case)
    for lack in _LACKS:
        if lack.lacking([seen]) and not lack.lacking([whole]):
            yield BlindSpot(
                lack.name,
                f"by the tokens that are kept of it, case {case} is one of {lack.name}",
                lack.hides,
                f"keep more of them, or a sample: --keep {SAMPLE}",
            )


@dataclass(frozen=True)
class _Lack:
    """Something that prompts can lack, and which of the built-in cases has it.

    of_file, of_case: as a clause about all cases, or about one; empty where one case need not have it
    """

    name: str
    lacking: Callable[[Sequence[_Prompt]], bool]
    of_file: str
    of_case: str
    hides: str
    case: str
    misleads: bool = False


def _single(prompts: Sequence[_Prompt]) -> bool:
    return all(len(row) == 1 for prompt in prompts for row in prompt.rows)


def _identical(prompts: Sequence[_Prompt]) -> bool:
    """Then all values are alike, and their mean is the same however they are weighted."""
    return not _single(prompts) and all((row == row[0]).all() for prompt in prompts for row in prompt.rows)


def _unpadded(prompts: Sequence[_Prompt]) -> bool:
    return not any(prompt.pads_left or prompt.pads_right for prompt in prompts)


def _right_only(prompts: Sequence[_Prompt]) -> bool:
    """Padding behind all real tokens is hidden by the causal mask already."""
    return not _unpadded(prompts) and not any(prompt.pads_left for prompt in prompts)


def _left_only(prompts: Sequence[_Prompt]) -> bool:
    return not _unpadded(prompts) and not any(prompt.pads_right for prompt in prompts)


def _one_row(prompts: Sequence[_Prompt]) -> bool:
    return all(len(prompt.token_ids) == 1 for prompt in prompts)


def _near(prompts: Sequence[_Prompt]) -> bool:
    return all(prompt.positions.max() < _DISTINCT for prompt in prompts)


def _from_zero(prompts: Sequence[_Prompt]) -> bool:
    return all(
        positions[real][0] == 0
        for prompt in prompts
        for positions, real in zip(prompt.positions, prompt.real, strict=True)
    )


_LACKS = (
    _Lack(
        name="single token",
        lacking=_single,
        of_file="every case is one token",
        of_case="this case has one token",
        hides="RoPE, mask, scores and softmax",
        case="english",
        misleads=True,
    ),
    _Lack(
        name="identical tokens",
        lacking=_identical,
        of_file="every row repeats one token",
        of_case="every row of this case repeats one token",
        hides="RoPE, mask and scores from all that comes after them",
        case="english",
        misleads=True,
    ),
    _Lack(
        name="no padding",
        lacking=_unpadded,
        of_file="no case has padding",
        of_case="this case has no padding",
        hides="the padding mask, and positions that count padding",
        case="left-padded",
    ),
    _Lack(
        name="right padding only",
        lacking=_right_only,
        of_file="padding is on the right only",
        of_case="this case has padding on the right only",
        hides="the padding mask, and positions that count padding",
        case="left-padded",
    ),
    _Lack(
        name="left padding only",
        lacking=_left_only,
        of_file="padding is on the left only",
        of_case="",
        hides="masks and positions made as if padding were always there",
        case="right-padded",
    ),
    _Lack(
        name="batch of one",
        lacking=_one_row,
        of_file="every case is a batch of one",
        of_case="",
        hides="rows of a batch mixed up, and what is taken from one row for all",
        case="left-padded",
    ),
    _Lack(
        name="short positions",
        lacking=_near,
        of_file=f"no position is beyond {_DISTINCT - 1}",
        of_case="",
        hides="positions and angles computed in too little precision",
        case="far",
    ),
    _Lack(
        name="positions from 0",
        lacking=_from_zero,
        of_file="every row starts at position 0",
        of_case="",
        hides="positions that are counted where they should be taken as given",
        case="past-256",
    ),
)
