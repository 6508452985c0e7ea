"""Golden files that lie elsewhere: a URL and the digest that says which file it is.

`remote.toml` in the folder of golden files has those that a project uses, by the name that they would have there:

    [[golden]]
    name = "model.h5"
    url = "hf://datasets/ORGANISATION/NAME/model.h5"
    sha256 = "..."
"""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

import msgspec

from harness import toml
from harness.errors import GoldensError
from harness.whole import written_whole

PINS = "remote.toml"
_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_SHA256 = r"^[0-9a-f]{64}$"


@dataclass(frozen=True)
class Pin:
    """sha256: of the golden file itself, unpacked if it comes packed."""

    url: str
    sha256: str

    @classmethod
    def of_url(cls, named: str) -> Self:
        """`URL#sha256=DIGEST`, read. Raises GoldensError where there is no digest."""
        url, _, digest = named.partition("#sha256=")
        if re.fullmatch(_SHA256, digest):
            return cls(url, digest)
        wrong = f"has the digest {digest!r}, which is no SHA-256" if digest else "has no digest"
        raise GoldensError(
            f"{shown(url)} {wrong}, and what is fetched is held against one: write URL#sha256=DIGEST, or pin it"
            " with `goldens fetch URL --pin FOLDER/NAME.h5` and ask for FOLDER/NAME.h5"
        )


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: Annotated[str, msgspec.Meta(min_length=1)]
    url: Annotated[str, msgspec.Meta(min_length=1)]
    sha256: Annotated[str, msgspec.Meta(pattern=_SHA256)]


class _Pins(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`remote.toml`, as it is written."""

    golden: tuple[_Entry, ...] = ()

    def __post_init__(self) -> None:
        names = [entry.name for entry in self.golden]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"golden {twice[0]} is there twice")


def is_url(named: str | os.PathLike[str]) -> bool:
    return isinstance(named, str) and _URL.match(named) is not None


def shown(url: str) -> str:
    """A URL without what may be a password or a signature."""
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("?")[0].partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def refuse_password(url: str) -> None:
    """Raise GoldensError for a URL with a password: who pins a file shares its URL."""
    authority = url.partition("://")[2].partition("/")[0]
    if ":" in authority.rpartition("@")[0]:
        raise GoldensError(
            f"{shown(url)} is given with a password, and {PINS} is there to be shared: pin it without, and put the "
            "password into fsspec's own settings"
        )


def pin_of(path: Path) -> Pin | None:
    """Where the golden file that would be at `path` is, if the `remote.toml` beside it says so."""
    pins = path.parent / PINS
    entries = toml.read(pins, _Pins).golden if pins.is_file() else ()
    return next((Pin(entry.url, entry.sha256) for entry in entries if entry.name == path.name), None)


def add_pin(path: Path, pin: Pin) -> None:
    """Say in `remote.toml` where the golden file `path` is. Raises GoldensError where another one is said."""
    there = pin_of(path)
    if there == pin:
        return
    pins = path.parent / PINS
    if there is not None:
        raise GoldensError(f"{pins} pins {path.name} already, as {shown(there.url)}: take that out first")
    lines = {"name": path.name, "url": pin.url, "sha256": pin.sha256}
    entry = "\n".join(f"{name} = {json.dumps(value)}" for name, value in lines.items())
    before = pins.read_text(encoding="utf-8").rstrip() + "\n\n" if pins.is_file() else ""
    with written_whole(pins) as beside:
        beside.write_text(f"{before}[[golden]]\n{entry}\n", encoding="utf-8")
