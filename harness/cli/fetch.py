"""`goldens fetch`."""

from pathlib import Path
from typing import Annotated

import typer

from harness.errors import GoldensError


def fetch(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME",
            help="URL#sha256=DIGEST, or a file that the remote.toml beside it names.",
            show_default=False,
        ),
    ],
    pin: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.h5",
            help="Take what is at the URL now, and name it so in the remote.toml beside it.",
        ),
    ] = None,
) -> None:
    """Fetch golden files that lie elsewhere, hold them against their digests, and say where they are on this machine.

    Needs the extra [remote]. Other commands fetch what they are given by themselves; this does it beforehand.
    """
    from harness.remote.fetch import fetched, fetched_first
    from harness.remote.pins import Pin, add_pin, is_url, pin_of, refuse_password, shown
    from harness.store.reader import GoldenFile

    if pin is not None:
        if len(names) != 1 or not is_url(names[0]) or "#" in names[0]:
            raise GoldensError("--pin names one file: give it one URL, without a digest")
        if pin.exists():
            raise GoldensError(f"{pin} is a file of its own: pin another name, or take it away first")
        refuse_password(names[0])
        found, path = fetched_first(names[0])
        GoldenFile.open(path)
        add_pin(pin, found)
        print(f"{pin}: {shown(found.url)} sha256 {found.sha256}")
        return
    for name in names:
        wanted = Pin.of_url(name) if is_url(name) else pin_of(Path(name))
        if wanted is None:
            raise GoldensError(
                f"nothing says where {name} is: pin it with `goldens fetch URL --pin {name}`, or give a URL"
            )
        path = fetched(wanted, again=True)
        GoldenFile.open(path)
        print(path)
