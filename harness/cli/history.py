"""`goldens history`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import Json, console, write_json
from harness.errors import GoldensError

if TYPE_CHECKING:
    from harness.history.entry import Entry

_FILE = "goldens/history.jsonl"


def history(
    file: Annotated[
        Path, typer.Argument(metavar="HISTORY.jsonl", help="What `goldens replay --history` has kept.")
    ] = Path(_FILE),
    golden: Annotated[
        str | None, typer.Option(metavar="FILE.h5", help="Only runs of this golden file, as it was named.")
    ] = None,
    against: Annotated[
        int, typer.Option(metavar="N", min=1, help="Hold the last run against the one N runs before it.")
    ] = 1,
    json: Json = False,
) -> None:
    """Show the runs that were kept, and what got worse from one to the last, and since when."""
    import msgspec

    from harness.history.comparison import compare, since
    from harness.history.log import read
    from harness.report.history import show_difference, show_runs
    from harness.report.result import writable

    told = console(stderr=json)
    holds = True
    for entries in _series(read(file), golden, file):
        show_runs(entries, told)
        if len(entries) > against:
            difference = since(entries, compare(entries[-1 - against], entries[-1]))
            show_difference(difference, told)
            holds = holds and not difference.worse
            if json:
                of_what = {"golden": entries[-1].golden, "port": entries[-1].port}
                document = of_what | msgspec.to_builtins(difference)
                write_json(msgspec.json.encode(writable(document)))
        else:
            told.print(f"{len(entries)} run{'s' * (len(entries) > 1)}: none to hold the last one against")
        told.print()
    raise typer.Exit(0 if holds else 1)


def _series(entries: "list[Entry]", golden: str | None, file: Path) -> "list[list[Entry]]":
    """Runs of one golden file and port, those apart that are of others."""
    kept = [entry for entry in entries if golden in (None, entry.golden)]
    if not kept:
        known = ", ".join(dict.fromkeys(entry.golden for entry in entries)) or "none"
        raise GoldensError(f"{file} has no run{f' of {golden}' if golden else ''}; it has runs of {known}")
    found: dict[tuple[str, str], list[Entry]] = {}
    for entry in kept:
        found.setdefault(entry.series, []).append(entry)
    return list(found.values())
