"""What is in a golden file: summarised once, and shown as tables or as JSON."""

import statistics
from collections import defaultdict
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.compare.tolerance import noise_floor
from harness.model import Floor, Golden
from harness.report.wording import amount, from_port
from harness.store.reader import GoldenFile

_PLACES = ("B", "T", "S")
_COUNTS = ("batch", "tokens", "padded", "components", "goldens", "facts", "bytes")


class CaseSummary(msgspec.Struct, frozen=True):
    """batch and tokens: the shape of its token ids; padded: how many of them are padding."""

    name: str
    origin: str
    detail: str
    batch: int
    tokens: int
    padded: int


class Spread(msgspec.Struct, frozen=True):
    """A noise floor over the components of a kind and all cases, as whole-tensor relative L2."""

    median: float
    max: float


class KindSummary(msgspec.Struct, frozen=True):
    """axes: with the sizes of those that no input decides; nbytes: of outputs, each tensor counted once."""

    kind: str
    dtype: str
    components: int
    goldens: int
    axes: str
    nbytes: int
    isolated: Spread | None
    end_to_end: Spread


class FamilySummary(msgspec.Struct, frozen=True):
    """components: as many as there are facts of; facts: of a component there may be one for each text, or each case."""

    family: str
    components: int
    facts: int


class Summary(msgspec.Struct, frozen=True):
    """A golden file, without its tensors."""

    format: int
    path: str
    digest: str
    nbytes: int
    parameters: int
    provenance: dict[str, Any]
    cases: list[CaseSummary]
    kinds: list[KindSummary]
    facts: list[FamilySummary] = []


def summarise(file: GoldenFile) -> Summary:
    return Summary(
        format=1,
        path=str(file.path),
        digest=file.digest,
        nbytes=file.local.stat().st_size,
        parameters=len(file.contents.parameters),
        provenance=file.contents.provenance,
        cases=[_case(file, case.name, case.origin, case.detail) for case in file.contents.cases],
        kinds=_kinds(file),
        facts=_facts(file),
    )


def _facts(file: GoldenFile) -> list[FamilySummary]:
    names: dict[str, list[str]] = defaultdict(list)
    for fact in file.contents.facts:
        names[fact.family].append(fact.component)
    return [FamilySummary(family, len(set(found)), len(found)) for family, found in names.items()]


def _case(file: GoldenFile, name: str, origin: str, detail: str) -> CaseSummary:
    mask = file.case_inputs(name)["attention_mask"]
    batch, tokens = mask.shape
    return CaseSummary(name, origin, detail, batch, tokens, int((mask == 0).sum()))


def _kinds(file: GoldenFile) -> list[KindSummary]:
    groups: dict[tuple[str, str], list[Golden]] = defaultdict(list)
    for golden in file.select():
        groups[golden.dtype, file.component(golden.component).kind].append(golden)
    return [_kind(file, kind, dtype, goldens) for (dtype, kind), goldens in groups.items()]


def _kind(file: GoldenFile, kind: str, dtype: str, goldens: list[Golden]) -> KindSummary:
    rows = {golden.output: file.tensors[golden.output] for golden in goldens}
    component = file.component(goldens[0].component)

    def spread(floors: list[Floor]) -> Spread | None:
        whole = [noise_floor(floor, dtype, component.exact).whole for floor in floors]
        return Spread(statistics.median(whole), max(whole)) if whole else None

    end_to_end = spread([golden.end_to_end for golden in goldens])
    assert end_to_end is not None, "a group has at least one golden"
    return KindSummary(
        kind=kind,
        dtype=dtype,
        components=len({golden.component for golden in goldens}),
        goldens=len(goldens),
        axes=_sized(component.axes, file.tensors[goldens[0].output].shape),
        nbytes=sum(row.nbytes for row in rows.values()),
        isolated=spread([golden.isolated for golden in goldens if golden.isolated is not None]),
        end_to_end=end_to_end,
    )


def _sized(axes: str, shape: tuple[int, ...]) -> str:
    """`B T C` of shape (1, 5, 64) -> `B T C=64`."""
    letters = axes.split()
    return " ".join(
        letter if letter in _PLACES else f"{letter}={size}"
        for letter, size in zip(letters, shape, strict=True)
    )


def show_contents(summary: Summary, console: Console) -> None:
    console.print(Text(summary.path, style="bold"))
    if from_port(summary.provenance):
        console.print(Text(f"{from_port(summary.provenance)}, not from the reference", style="yellow"))
    console.print(_table_of_provenance(summary))
    console.print()
    console.print(_table_of_cases(summary))
    console.print()
    console.print(_table_of_kinds(summary))
    if summary.facts:
        console.print()
        console.print(_table_of_facts(summary))


def _plain_table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in headings:
        table.add_column(heading, justify="right" if heading in _COUNTS else "left", overflow="fold")
    return table


def _table_of_provenance(summary: Summary) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("size", f"{size(summary.nbytes)}, {summary.parameters} parameters fingerprinted")
    table.add_row("digest", summary.digest)
    for name, value in summary.provenance.items():
        pairs = value.items() if isinstance(value, dict) else None
        table.add_row(name, str(value) if pairs is None else "\n".join(f"{k} {v}" for k, v in pairs))
    return table


def _table_of_cases(summary: Summary) -> Table:
    table = _plain_table("case", "origin", "batch", "tokens", "padded", "detail")
    for case in summary.cases:
        table.add_row(
            case.name, case.origin, str(case.batch), str(case.tokens), str(case.padded), _short(case.detail)
        )
    return table


def _table_of_kinds(summary: Summary) -> Table:
    table = _plain_table(
        "dtype", "kind", "components", "goldens", "axes", "bytes", "floor isolated", "floor end to end"
    )
    for kind in summary.kinds:
        table.add_row(
            kind.dtype,
            kind.kind,
            str(kind.components),
            str(kind.goldens),
            kind.axes,
            size(kind.nbytes),
            _spread(kind.isolated),
            _spread(kind.end_to_end),
        )
    table.caption = "floor: relative L2 that rounding explains, median and greatest"
    return table


def _table_of_facts(summary: Summary) -> Table:
    table = _plain_table("family", "components", "facts")
    for family in summary.facts:
        table.add_row(family.family, str(family.components), str(family.facts))
    return table


def _spread(spread: Spread | None) -> str:
    if spread is None:
        return "-"
    return f"{amount(spread.median)} {amount(spread.max)}" if spread.max else "exact"


def _short(text: str, limit: int = 60) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def size(nbytes: int) -> str:
    """`1.5 MB`: powers of ten, as disks are sold."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if nbytes >= factor:
            return f"{nbytes / factor:.1f} {unit}"
    return f"{nbytes} B"
