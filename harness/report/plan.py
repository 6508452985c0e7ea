"""How large a recording will be, and what of it is dearest."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from harness.report.contents import size

if TYPE_CHECKING:
    from harness.record.plan import Plan


def shares(plan: "Plan") -> list[tuple[str, str, str]]:
    """Whose outputs, how large, which share of the whole; the dearest first."""
    return [(part, size(nbytes), f"{nbytes / plan.nbytes:.0%}") for part, nbytes in plan.by_part()]


def show_plan(plan: "Plan", console: Console) -> None:
    table = Table(box=None, pad_edge=False, header_style="")
    table.add_column("outputs of")
    for title in ("size", "share"):
        table.add_column(title, justify="right")
    for row in shares(plan):
        table.add_row(*row)
    console.print(table)
    for dtype, nbytes in plan.by_dtype().items():
        console.print(f"{dtype or 'inputs of cases'}: {size(nbytes)}", markup=False)
    console.print(f"{size(plan.nbytes)} in all", markup=False)
