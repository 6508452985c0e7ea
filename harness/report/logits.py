"""Logits in people's terms, on the terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from harness.compare.logits import Interval, LogitsSummary

_HEADINGS = (
    "tokens",
    "same\ntop",
    "KL\nmedian",
    "\n95 %",
    "\n99 %",
    "\nmax",
    "\nperplexity",
    "\nless the reference's",
)
_EXACT = "KL to float64,\nover the reference's"


def show(summaries: Sequence[LogitsSummary], console: Console) -> None:
    """A row for each dtype and mode; nothing where no logits were compared."""
    if summaries:
        console.print(_table(summaries))


def _table(summaries: Sequence[LogitsSummary]) -> Table:
    with_exact = any(summary.further is not None for summary in summaries)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("logits", "\nmode"):
        table.add_column(heading, no_wrap=True)
    for heading in (*_HEADINGS, *([_EXACT] if with_exact else [])):
        table.add_column(heading, justify="right", no_wrap=True)
    for summary in summaries:
        table.add_row(*_cells(summary), *([_range(summary.further)] if with_exact else []))
    return table


def _cells(summary: LogitsSummary) -> list[str]:
    shares = (summary.kl_median, summary.kl_95, summary.kl_99, summary.kl_max)
    return [
        summary.dtype,
        summary.mode,
        f"{summary.tokens:,}",
        f"{summary.agreeing:,}",
        *(f"{share:.1e}" for share in shares),
        "-" if summary.perplexity_port is None else f"{summary.perplexity_port:.5g}",
        _error_bar(summary.perplexity_difference),
    ]


def _error_bar(difference: Interval | None) -> str:
    if difference is None:
        return "-"
    return f"{difference.value:+.1e} ± {difference.high - difference.value:.1e}"


def _range(ratio: Interval | None) -> str:
    return "-" if ratio is None else f"{ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"
