"""How a golden file is laid out: the user block at its front, the index behind it, the names in HDF5.

    0      user block, 512 bytes of text: what this is, format, where the index lies and what it hashes to
    512    HDF5: payloads, then the index as one string, then HDF5's own bookkeeping

The first two lines of the user block stay what they are in every format to come, so that any version of
this program can tell a newer file from something else. Imports nothing heavy: collecting tests reads this.
"""

import hashlib
from typing import TYPE_CHECKING, Any, Self

import msgspec

from harness.errors import GoldensError
from harness.model import Case, Contents, Golden, Tensor

if TYPE_CHECKING:
    import numpy as np

FORMAT = 1
USER_BLOCK = 512
MAGIC = "Golden file: recorded reference tensors, in HDF5; `goldens show FILE` lists them"

INDEX_PATH = "/index"
TEXT_PATHS = {"provenance": "/provenance", "config": "/config"}
"""Parts of the contents that a person with an HDF5 viewer looks for first, repeated as readable JSON."""

UNTIMED = frozenset({"recorded_at"})
"""Provenance that differs between two recordings of the same thing, so it is no part of the digest."""


class UserBlock(msgspec.Struct, frozen=True):
    """The first 512 bytes: place and SHA-256 of the index, and how long the whole file is, in bytes."""

    format: int
    index_offset: int
    index_nbytes: int
    index_sha256: str
    file_nbytes: int

    def render(self) -> bytes:
        lines = [
            MAGIC,
            f"format {self.format}",
            f"index {self.index_offset} {self.index_nbytes} {self.index_sha256}",
            f"file {self.file_nbytes}",
        ]
        return "\n".join([*lines, ""]).encode().ljust(USER_BLOCK - 1) + b"\n"

    @classmethod
    def parse(cls, block: bytes, name: str) -> Self:
        """Read the block of the file that messages call `name`. Raises GoldensError for any other file.

        No other byte than those that `render` writes: numbers have one spelling, and nothing hides behind them.
        """
        lines = block.decode("ascii", errors="replace").split("\n")
        if lines[0] != MAGIC:
            raise GoldensError(f"{name} is not a golden file: expected a file written by `goldens record`")
        try:
            version = int(_field(lines[1], "format"))
            if version > FORMAT:
                raise GoldensError(
                    f"{name} has golden file format {version}, and this version reads up to {FORMAT}:"
                    " upgrade it"
                )
            offset, nbytes, sha256 = _field(lines[2], "index").split(" ")
            parsed = cls(version, int(offset), int(nbytes), sha256, int(_field(lines[3], "file")))
            if parsed.render() != block or not parsed.makes_sense:
                raise ValueError("a header is written in one way")
        except (IndexError, ValueError) as error:
            raise GoldensError(f"{name} has a damaged header: copy it again, or record it again") from error
        return parsed

    @property
    def makes_sense(self) -> bool:
        """Whether the index is in the file, behind this."""
        end = self.index_offset + self.index_nbytes
        return self.format == FORMAT and USER_BLOCK <= self.index_offset < end <= self.file_nbytes


def _field(line: str, key: str) -> str:
    found, _, value = line.partition(" ")
    if found != key:
        raise ValueError(f"expected {key!r}, found {found!r}")
    return value


class Index(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All a golden file says, payloads apart. Rows of `tensors` are what the contents refer to."""

    format: int
    digest: str
    contents: Contents
    tensors: list[Tensor]

    @classmethod
    def of(cls, contents: Contents, tensors: list[Tensor]) -> Self:
        return cls(FORMAT, content_digest(contents, tensors), contents, tensors)

    def encode(self) -> bytes:
        return msgspec.json.encode(self, order="deterministic")


def decode_index(encoded: bytes, name: str) -> Index:
    """Raises GoldensError when `encoded`, whose hash was right, is still no index of this format."""
    try:
        index = msgspec.json.decode(encoded, type=Index)
        digest = content_digest(index.contents, index.tensors)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise GoldensError(
            f"{name} has an index that this version cannot read ({error}): record it again"
        ) from error
    if digest != index.digest:
        raise GoldensError(f"{name} has a digest that is not that of its contents: record it again")
    return index


def content_digest(contents: Contents, tensors: list[Tensor]) -> str:
    """SHA-256 of what was recorded; when it was recorded, and where payloads lie, leave it alone."""
    provenance = {key: value for key, value in contents.provenance.items() if key not in UNTIMED}
    timeless = msgspec.structs.replace(contents, provenance=provenance)
    rows = [(row.path, row.dtype, row.shape, row.sha256) for row in tensors]
    return hashlib.sha256(msgspec.json.encode((FORMAT, timeless, rows), order="deterministic")).hexdigest()


def numpy_dtype(name: str) -> "np.dtype":
    """How a payload lies in the file: little-endian; `ml_dtypes.bfloat16` for bfloat16."""
    import numpy as np

    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name).newbyteorder("<")


def case_path(case: str, argument: str) -> str:
    return f"/cases/{case}/{argument}"


def golden_group(dtype: str, case: str, component: str) -> str:
    return f"/goldens/{dtype}/{case}/{component}"


def golden_paths(golden: Golden) -> dict[str, int]:
    """Where a golden's output and inputs are found in HDF5 -> rows of the tensor table."""
    group = golden_group(golden.dtype, golden.case, golden.component)
    exact = {} if golden.exact is None else {f"{group}/exact": golden.exact}
    return (
        {f"{group}/output": golden.output}
        | exact
        | {f"{group}/inputs/{arg}": row for arg, row in golden.inputs.items()}
    )


def expected_paths(cases: list[Case], goldens: list[Golden]) -> dict[str, int]:
    """Every path that HDF5 must have, and no other -> rows of the tensor table."""
    paths = {case_path(case.name, argument): row for case in cases for argument, row in case.inputs.items()}
    for golden in goldens:
        paths |= golden_paths(golden)
    return paths


def readable(value: Any) -> str:
    """JSON for people."""
    return msgspec.json.format(msgspec.json.encode(value, order="deterministic"), indent=2).decode()
