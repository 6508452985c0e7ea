"""Bytes of a golden file changed at random, region by region: as they are, or with every checksum made to hold."""

import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

from harness.store.layout import USER_BLOCK, UserBlock, decode_index
from tests.robust.checksums import guarded, lookup3

Extent = tuple[int, int]
"""First byte, and the one after the last."""

_NAMES = {b"OHDR": "headers", b"OCHK": "links", b"\x89HDF": "superblock"}


@dataclass(frozen=True)
class Base:
    """An undamaged golden file."""

    content: bytes

    @cached_property
    def guarded(self) -> dict[int, int]:
        return guarded(self.content, USER_BLOCK)

    @cached_property
    def regions(self) -> dict[str, list[Extent]]:
        block = UserBlock.parse(self.content[:USER_BLOCK], "base")
        index = (block.index_offset, block.index_offset + block.index_nbytes)
        tensors = decode_index(self.content[slice(*index)], "base").tensors
        found: dict[str, list[Extent]] = {
            "user block": [(0, USER_BLOCK)],
            "index": [index],
            "payload": [(tensor.offset, tensor.offset + tensor.nbytes) for tensor in tensors],
        }
        for place, length in self.guarded.items():
            name = _NAMES.get(self.content[place : place + 4], "heaps")
            found.setdefault(name, []).append((place, place + length))
        found["anywhere"] = [(0, len(self.content))]
        return found


Change = Callable[[random.Random, bytearray, Extent], None]


def flip(draw: random.Random, content: bytearray, extent: Extent) -> None:
    for _ in range(draw.choice((1, 1, 1, 2, 8))):
        content[draw.randrange(*extent)] ^= 1 << draw.randrange(8)


def _run(draw: random.Random, extent: Extent) -> slice:
    start = draw.randrange(*extent)
    return slice(start, min(extent[1], start + draw.choice((1, 2, 4, 8, 64, 512))))


def zeros(draw: random.Random, content: bytearray, extent: Extent) -> None:
    where = _run(draw, extent)
    content[where] = bytes(where.stop - where.start)


def ones(draw: random.Random, content: bytearray, extent: Extent) -> None:
    where = _run(draw, extent)
    content[where] = b"\xff" * (where.stop - where.start)


def noise(draw: random.Random, content: bytearray, extent: Extent) -> None:
    where = _run(draw, extent)
    content[where] = draw.randbytes(where.stop - where.start)


def exchange(draw: random.Random, content: bytearray, extent: Extent) -> None:
    """Two blocks in each other's place: one of the region, the other of anywhere."""
    here = _run(draw, extent)
    length = here.stop - here.start
    other = draw.randrange(0, len(content) - length)
    if abs(other - here.start) >= length:
        there = slice(other, other + length)
        content[here], content[there] = content[there], content[here]


def cut(draw: random.Random, content: bytearray, extent: Extent) -> None:
    del content[draw.randrange(*extent) :]


def take_out(draw: random.Random, content: bytearray, extent: Extent) -> None:
    del content[_run(draw, extent)]


def twice(draw: random.Random, content: bytearray, extent: Extent) -> None:
    where = _run(draw, extent)
    content[where.start : where.start] = content[where]


IN_PLACE: tuple[Change, ...] = (flip, flip, zeros, ones, noise, exchange)
CHANGES: tuple[Change, ...] = (*IN_PLACE, cut, take_out, twice)
BOOKKEEPING = ("superblock", "headers", "links", "heaps")


def damaged(draw: random.Random, base: Base) -> tuple[str, bytes]:
    """Bytes changed, and nothing else. Returns what was done, and the file."""
    name = draw.choice(list(base.regions))
    change, content = draw.choice(CHANGES), bytearray(base.content)
    change(draw, content, draw.choice(base.regions[name]))
    return f"{name}: {change.__name__}", bytes(content)


def forged(draw: random.Random, base: Base) -> tuple[str, bytes]:
    """Bytes of HDF5's bookkeeping changed, and its checksums made to hold."""
    name = draw.choice([name for name in BOOKKEEPING if name in base.regions])
    change, content = draw.choice(IN_PLACE[:-1]), bytearray(base.content)
    extent = draw.choice(base.regions[name])
    change(draw, content, extent)
    for place, length in _touched(base, extent):
        struct.pack_into("<I", content, place + length, lookup3(bytes(content[place : place + length])))
    return f"{name}, checksums recomputed: {change.__name__}", bytes(content)


def _touched(base: Base, extent: Extent) -> Iterator[Extent]:
    return ((place, length) for place, length in base.guarded.items() if extent[0] <= place < extent[1])
