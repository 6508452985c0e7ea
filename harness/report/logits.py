"""Logits in people's terms, on the terminal: a line for each dtype and mode."""

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.text import Text

from harness.compare.logits import LogitsSummary


def show(summaries: Sequence[LogitsSummary], console: Console) -> None:
    """Nothing where no logits were compared."""
    for summary in summaries:
        told = f"logits, {summary.dtype} {summary.mode}: {'; '.join(sentences(summary))}"
        console.print(Text(told, style="dim"), soft_wrap=True)


def sentences(summary: LogitsSummary) -> Iterator[str]:
    yield f"{summary.agreeing:,} of {summary.tokens:,} tokens have the reference's likeliest next one"
    shares = (summary.kl_median, summary.kl_95, summary.kl_99, summary.kl_max)
    median, upper, most, largest = (f"{share:.1e}" for share in shares)
    yield f"KL {median} (median), {upper} (95 %), {most} (99 %), {largest} (most)"
    difference = summary.perplexity_difference
    if summary.perplexity_port is not None and difference is not None:
        bar = difference.high - difference.value
        yield f"perplexity {summary.perplexity_port:.5g}, {difference.value:+.1e} ± {bar:.1e} from the reference's"
    if summary.further is not None:
        low, high = summary.further.low, summary.further.high
        yield f"KL to float64 {summary.further.value:.2f} ({low:.2f} to {high:.2f}) times the reference's"
