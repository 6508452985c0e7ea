"""HDF5's own checksums, so that damage to what they guard reaches what is behind them."""

import struct

_MASK = 0xFFFFFFFF
_SIZES = {b"FRHP": 142, b"BTHD": 34, b"FSHD": 78}
"""Bytes before the checksum, for files of 8-byte offsets and lengths."""


def _rotate(value: int, by: int) -> int:
    return ((value << by) | (value >> (32 - by))) & _MASK


def lookup3(data: bytes) -> int:
    """Bob Jenkins' hashlittle, as HDF5 calls it: with 0 to begin with."""
    a = b = c = (0xDEADBEEF + len(data)) & _MASK
    while len(data) > 12:
        x, y, z = struct.unpack_from("<III", data)
        a, b, c = (a + x) & _MASK, (b + y) & _MASK, (c + z) & _MASK
        for by in (4, 6, 8, 16, 19, 4):
            a = (a - c) & _MASK ^ _rotate(c, by)
            c = (c + b) & _MASK
            a, b, c = b, c, a
        data = data[12:]
    if not data:
        return c
    x, y, z = struct.unpack("<III", data.ljust(12, b"\0"))
    a, b, c = (a + x) & _MASK, (b + y) & _MASK, (c + z) & _MASK
    for by in (14, 11, 25, 16, 4, 14, 24):
        c = ((c ^ b) - _rotate(b, by)) & _MASK
        a, b, c = b, c, a
    return b  # what was c in the last round


def guarded(content: bytes, user_block: int) -> dict[int, int]:
    """Where each part of HDF5's bookkeeping begins -> how long it is before its checksum. Of an undamaged file."""
    found = {user_block: 44}
    place = content.find(b"OHDR", user_block)
    while place >= 0:
        if end := _ends(content, place):
            found[place] = end - place
        place = content.find(b"OHDR", place + 4)
    for signature in (b"OCHK", b"BTLF", b"FHIB", b"FSSE", *_SIZES):
        place = content.find(signature, user_block)
        while place >= 0:
            if end := _searched(content, place, _SIZES.get(signature)):
                found[place] = end - place
            place = content.find(signature, place + 4)
    return found


def _holds(content: bytes, place: int, end: int) -> bool:
    return content[end : end + 4] == struct.pack("<I", lookup3(content[place:end]))


def _ends(content: bytes, place: int) -> int | None:
    """Where the checksum of an object header is."""
    flags = content[place + 5]
    start = place + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
    width = 1 << (flags & 3)
    end = start + width + int.from_bytes(content[start : start + width], "little")
    return end if _holds(content, place, end) else None


def _searched(content: bytes, place: int, size: int | None) -> int | None:
    ends = [place + size] if size else range(place + 8, min(place + 2048, len(content) - 3))
    return next((end for end in ends if _holds(content, place, end)), None)
