"""Golden files fetched into a cache on this machine, each in a folder that is called by its digest.

fsspec reads them, whatever the URL's scheme, and unpacks what ends in .gz, .xz or .bz2. A file takes its place
in the cache when all of it has come and its digest is right, so what is there is used without a network.
"""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.parse import urlsplit

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from harness.caches import cache_folder
from harness.errors import GoldensError, first_line
from harness.remote.pins import Pin, is_url, pin_of, shown

PACKED = (".gz", ".xz", ".bz2")
BLOCK = 1 << 22


def located(named: str | os.PathLike[str]) -> Path:
    """Where the golden file is on this machine: as it is named, or in the cache, fetched if need be.

    A name of which nothing is known is given back as it is.
    """
    if is_url(named):
        return fetched(Pin.of_url(str(named)))
    path = Path(named)
    pin = None if path.exists() else pin_of(path)
    return path if pin is None else fetched(pin)


def fetched(pin: Pin, again: bool = False) -> Path:
    """The file in the cache. again: hash what is there, and fetch it once more where it is not what was pinned.

    Otherwise what is there is believed: a golden file holds all that is read of it against digests of its own.
    """
    path = _place(pin.sha256, pin.url)
    if not path.is_file() or (again and _digest(path) != pin.sha256):
        _download(pin.url, pin.sha256)
    return path


def fetched_first(url: str) -> tuple[Pin, Path]:
    """Fetch what nobody has pinned yet, and say what to pin."""
    digest = _download(url, None)
    return Pin(url, digest), _place(digest, url)


def _place(digest: str, url: str) -> Path:
    name = PurePosixPath(urlsplit(url).path).name or "golden.h5"
    suffix = next((suffix for suffix in PACKED if name.endswith(suffix)), "")
    return cache_folder() / digest / name.removesuffix(suffix)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(url: str, expected: str | None) -> str:
    """Into the cache; returns the digest. Raises GoldensError when it is another one than expected."""
    cache = cache_folder()
    with _opened(url) as source:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetching-", dir=cache) as folder:
            partial = Path(folder) / "partial"
            digest = _copy(source, partial)
            if expected not in (None, digest):
                raise GoldensError(
                    f"{shown(url)} is not the file that was pinned: its SHA-256 is {digest}, and {expected} was"
                    " expected; nothing of it was kept"
                )
            place = _place(digest, url)
            place.parent.mkdir(exist_ok=True)
            os.replace(partial, place)
    return digest


def _copy(source: IO[bytes], partial: Path) -> str:
    digest = hashlib.sha256()
    with partial.open("wb") as target:
        while block := source.read(BLOCK):
            digest.update(block)
            target.write(block)
        target.flush()
        os.fsync(target.fileno())
    return digest.hexdigest()


@contextmanager
def _opened(url: str) -> Iterator[IO[bytes]]:
    """What is at a URL, unpacked. Whatever goes wrong while it is open is told as a GoldensError."""
    try:
        import fsspec
    except ModuleNotFoundError as error:
        raise GoldensError(
            f"fetching {shown(url)} needs {error.name}: install this package with its extra [remote]"
        ) from error
    try:
        filesystem, path = fsspec.core.url_to_fs(url)
        packing = fsspec.utils.infer_compression(path)
        with _progress(url) as progress, filesystem.open(path, "rb") as raw:
            size = filesystem.info(path).get("size")
            watched = progress.wrap_file(raw, total=size, description=escape(shown(url)))
            yield fsspec.compression.compr[packing](watched, mode="rb") if packing else watched
    except GoldensError:
        raise
    except ImportError as error:
        raise GoldensError(f"fetching {shown(url)} needs a package more: {first_line(error)}") from error
    except FileNotFoundError as error:
        raise GoldensError(f"there is nothing at {shown(url)}") from error
    except Exception as error:  # each kind of storage raises errors of its own
        raise GoldensError(f"cannot fetch {shown(url)}: {first_line(error)}") from error


@contextmanager
def _progress(url: str) -> Iterator[Progress]:
    """At a terminal a bar, elsewhere one line, on stderr."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    if not console.is_terminal:
        console.print(f"fetching {shown(url)}", markup=False)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield progress
