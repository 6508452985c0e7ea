"""What a case gives to the model: rows of token ids padded into a batch, and the ways of drawing them.

Importing this costs nothing; numpy comes in when it is used.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from harness.errors import GoldensError

if TYPE_CHECKING:
    import numpy as np

Padding = Literal["none", "left", "right"]


@dataclass(frozen=True)
class CaseInputs:
    """One case, ready to be run.

    origin: `prompt` or `randomized`; detail: the texts, or the seed and how it was drawn
    token_ids, attention_mask, positions: int32 (B T). The mask is 1 for a real token and 0 for padding.
    Positions count from a row's first real token; padding has position 0.
    """

    name: str
    origin: str
    detail: str
    token_ids: "np.ndarray"
    attention_mask: "np.ndarray"
    positions: "np.ndarray"


@dataclass(frozen=True)
class Rows:
    """Token ids before they become a batch. start: the position of each row's first real token."""

    ids: Sequence[Sequence[int]]
    padding: Padding = "none"
    start: int = 0
    pad_id: int = 0


def assemble(name: str, origin: str, detail: str, rows: Rows, vocab_size: int) -> CaseInputs:
    """The case of `rows`. Raises GoldensError for an empty row, an id outside the vocabulary, or unequal
    rows without padding."""
    import numpy as np

    lengths = [len(row) for row in rows.ids]
    if not lengths or min(lengths) == 0:
        raise GoldensError(f"case {name} has no tokens in one of its rows: give it a text that is not empty")
    if rows.padding == "none" and len(set(lengths)) > 1:
        raise GoldensError(
            f"case {name} has rows of {min(lengths)} to {max(lengths)} tokens: "
            'say padding = "left" or "right"'
        )
    outside = [token for row in rows.ids for token in row if not 0 <= token < vocab_size]
    if outside:
        raise GoldensError(
            f"case {name} has token id {outside[0]}, outside the checkpoint's vocabulary of {vocab_size}"
        )
    shape = (len(lengths), max(lengths))
    token_ids = np.full(shape, rows.pad_id, np.int32)
    attention_mask = np.zeros(shape, np.int32)
    for place, row in enumerate(rows.ids):
        real = slice(shape[1] - len(row), None) if rows.padding == "left" else slice(0, len(row))
        token_ids[place, real] = row
        attention_mask[place, real] = 1
    counted = np.cumsum(attention_mask, axis=1, dtype=np.int32) - 1 + rows.start
    positions = np.where(attention_mask == 1, counted, 0).astype(np.int32)
    return CaseInputs(name, origin, detail, token_ids, attention_mask, positions)


def draw_rows(
    seed: int, vocab_size: int, batch: int, shortest: int, longest: int, padding: Padding
) -> list[list[int]]:
    """Rows of token ids from a seed; the same ones in every version of numpy.

    Without padding all rows have one length between the two; with padding the first row has the longest and
    the second the shortest. No token comes twice in a row while the vocabulary allows it: alike tokens hide
    mistakes of rotation, mask and scores. One in eight comes from the vocabulary's end, where special and
    unused rows lie.
    """
    import numpy as np

    generator = np.random.PCG64(seed)

    def below(limit: int) -> int:
        return int(generator.random_raw()) % limit

    def between(low: int, high: int) -> int:
        return low + below(high - low + 1)

    if padding == "none":
        lengths = [between(shortest, longest)] * batch
    else:
        lengths = [longest, shortest, *(between(shortest, longest) for _ in range(batch - 2))]
    end = min(max(vocab_size // 8, 1), 512)

    def token() -> int:
        return vocab_size - 1 - below(end) if below(8) == 0 else below(vocab_size)

    def row(length: int) -> list[int]:
        ids: list[int] = []
        while len(ids) < length:
            drawn = token()
            if drawn not in ids or 2 * length > vocab_size:
                ids.append(drawn)
        return ids

    return [row(length) for length in lengths]
