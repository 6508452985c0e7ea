"""What becomes of a recording: a golden file, nothing, since it agrees with the one there, or pending beside it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from harness.errors import GoldensError
from harness.report.diff import show_changes, show_values, versions_told
from harness.report.wording import amount
from harness.review.diff import Agreement, Diff, compare
from harness.review.pending import accept, pending_of, refuse_other_origin
from harness.store.reader import GoldenFile
from harness.whole import alone

_SHOWN = 5


@contextmanager
def recording(
    golden: Path, provenance: Mapping[str, object], told: Callable[[str], None]
) -> Iterator[GoldenFile | None]:
    """While the context is open, no other process records or accepts `golden`. Gives the file there, if there is one.

    provenance: of what is recorded, `port` above all; told: lines about what an interrupted recording left
    Raises GoldensError where such a recording may not be made.
    """
    with alone(golden, told):
        old = golden_there(golden)
        if old is not None:
            refuse_other_origin(golden, provenance)
        yield old


def golden_there(path: Path) -> GoldenFile | None:
    """The golden file that a recording will be held against. Raises GoldensError when it is damaged."""
    if not path.exists():
        return None
    try:
        return GoldenFile.open(path)
    except GoldensError as error:
        raise GoldensError(
            f"{path} is there already and is no whole golden file: move it away, then record again"
        ) from error


def settle(old: GoldenFile | None, golden: Path, console: Console) -> bool:
    """Say what became of the recording beside `golden`; False if it differs from the file there, and waits.

    The file there is never replaced. old: the file there, if there is one
    """
    pending = pending_of(golden)
    if old is None:
        accept(golden)
        console.print(f"{golden}: {sized(GoldenFile.open(golden))}", markup=False)
        return True
    diff = compare(old, GoldenFile.open(pending))
    if diff.agrees:
        pending.unlink()
        console.print(f"{golden}: recorded again, {_agreed(diff)}; left as it is", markup=False)
        return True
    console.print(f"[bold red]{escape(str(golden))}: recorded again, and it differs; left as it is[/]")
    show_changes(diff, console, _SHOWN)
    show_values(diff, console, _SHOWN)
    told = f"{pending} waits: `goldens diff {golden}` shows it, `goldens accept` takes it, `goldens reject` drops it"
    console.print(f"  {told}", markup=False)
    return False


def _agreed(diff: Diff) -> str:
    worst, versions = diff.worst, versions_told(diff)
    said = (
        "bit by bit the same"
        if worst is None or not diff.counts[Agreement.WITHIN]
        else f"within the noise floor (largest difference {amount(worst.over_limit)} of what passes, "
        f"at {worst.component}, {worst.case} {worst.dtype})"
    )
    return f"{said}, with {versions}" if versions else said


def sized(file: GoldenFile) -> str:
    """How much a golden file holds."""
    contents = file.contents
    return (
        f"{len(contents.goldens)} goldens of {len(contents.components)} components in {len(contents.cases)} cases, "
        f"{', '.join(file.dtypes)}, {file.path.stat().st_size / 1e6:.1f} MB"
    )
