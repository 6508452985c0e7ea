"""A port held against itself on the terminal: what it offers, what stays unmeasured, what contradicts itself."""

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.portcheck.outcome import Contradiction, PortCheck, Power, Unmeasured
from harness.report.wording import some_of


def show_portcheck(check: PortCheck, console: Console) -> None:
    asked = "; ".join(f"{dtype} with {', '.join(cases)}" for dtype, cases in check.asked.items())
    console.print(Text(f"{check.port}   {check.golden}   {asked}", style="bold"), soft_wrap=True)
    console.print(_offered(check.powers))
    _show_unmeasured(check.unmeasured, console)
    if check.unverified:
        why = "run by `apply`, and not held against `trace`, which does not hand out what they take in or put out"
        console.print(Text(f"\n{why}", style="yellow"), soft_wrap=True)
        console.print(Text(f"  {', '.join(check.unverified)}"), soft_wrap=True)
    console.print()
    for says, places in _alike(check.contradictions).items():
        console.print(Text(says, style="red"), soft_wrap=True)
        console.print(Text(f"  {', '.join(places)}", style="dim"), soft_wrap=True)
    console.print(_conclusion(check), soft_wrap=True)


def _offered(powers: Iterable[Power]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("the port has", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("so that")
    for power in powers:
        yes = Text("yes", style="green") if power.offered else Text("no", style="yellow")
        why = f" ({power.why})" if power.why else ""
        table.add_row(
            ", ".join(power.methods), yes, Text(f"{power.lets}{why}", style="" if power.offered else "dim")
        )
    return table


def _show_unmeasured(unmeasured: Iterable[Unmeasured], console: Console) -> None:
    """Kind by kind, so that a whole model is a few lines; what is the same in several dtypes once."""
    dtypes: dict[tuple[str, ...], list[str]] = {}
    for each in unmeasured:
        kinds = (f"  {kind}: {some_of(names)}" for kind, names in each.kinds.items())
        dtypes.setdefault((each.mode, each.reason, *kinds), []).append(each.dtype)
    for (mode, reason, *lines), alike in dtypes.items():
        head = f"\nunmeasured, {', '.join(alike)} {mode}: {reason}"
        console.print(Text(head, style="yellow"), soft_wrap=True)
        for line in lines:
            console.print(Text(line), soft_wrap=True)


def _alike(contradictions: Iterable[Contradiction]) -> dict[str, list[str]]:
    """Sentence -> the cases and dtypes in which it was found."""
    alike: dict[str, list[str]] = {}
    for contradiction in contradictions:
        alike.setdefault(contradiction.says, []).append(f"{contradiction.case} {contradiction.dtype}")
    return alike


def _conclusion(check: PortCheck) -> Text:
    number = len(_alike(check.contradictions))
    if check.holds:
        told = (
            "holds: the port does not contradict itself; whether it is right is for `goldens replay` to say"
        )
        return Text(f"{check.port}: {told}", style="bold green")
    told = f"does not hold: {number} contradiction{'' if number == 1 else 's'}"
    return Text(f"{check.port}: {told}", style="bold red")
