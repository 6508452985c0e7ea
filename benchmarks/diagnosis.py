"""How well are mistakes named? The audit of the built-in golden files, as a table of confusion and its figures.

    python benchmarks/diagnosis.py [--dtype float32 --dtype bfloat16] [--shard 2/7] [FILE.h5 ...]
    python benchmarks/diagnosis.py --seconds FILE.h5 [--checkpoint DIR]      # what naming costs, as ratios

Prints, for each dtype: how many faults are caught, and whether at the planted component; how many of those that have a
hypothesis are named by it alone, or are among several; every name that is wrong; and what is said when the right
hypotheses are withheld from those of the catalogue, where any name at all is wrong. Exits with 1 when a name is wrong
in float32.
"""

import argparse
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from harness.audit import command
from harness.audit.compiled import compiled_once
from harness.audit.fault import DoesNotApply, Fault, Patch
from harness.audit.outcome import FaultResult, Naming, Verdict
from harness.audit.run import Auditor, Refused
from harness.diagnose.explain import explain, find, pose
from harness.diagnose.problem import Sample
from harness.diagnose.search import under
from harness.diagnose.subject import Subject
from harness.model import Mode
from harness.replay.port import Port, Weighted, load_port
from harness.replay.session import Session, checkpoint_folder
from harness.report.result import Result
from harness.settings import fault_settings, port_setting
from harness.store.reader import GoldenFile
from harness.weights import Weights

ROOT = Path(__file__).parent.parent
GOLDENS = [ROOT / "goldens" / f"{name}.h5" for name in ("qwen2-tiny", "qwen3-tiny", "qwen2-deep")]


@dataclass(frozen=True)
class Audited:
    """One fault in one golden file. withheld: what was named when its right names were withheld."""

    golden: str
    fault: Fault
    result: FaultResult
    withheld: tuple[str, ...]


def audited(path: Path, dtype: str, checkpoint: str | None, faults: Sequence[Fault]) -> Iterator[Audited]:
    """Every fault in one golden file. One in the port's source, which compiles anew, in its last case first."""
    file = GoldenFile.open(path)
    spec, folder = port_setting(ROOT), checkpoint_folder(file, checkpoint)
    goldens = file.select(dtypes=[dtype])
    last = [goldens[-1].case]
    auditor = Auditor(file, goldens, dtype, spec, folder)
    of_source = Auditor(file, file.select(dtypes=[dtype], cases=last), dtype, spec, folder)
    auditor.refuse_wrong(faults)
    for fault in track(faults, f"{path.name} {dtype}", console=Console(stderr=True), transient=True):
        patch = isinstance(fault.planting, Patch)
        result = (of_source if patch else auditor).audit(fault)
        if patch and result.verdict is Verdict.MISSED:
            result = auditor.audit(fault)
        if result.verdict is not Verdict.NOT_PLANTED:
            named = result.mode == Mode.ISOLATED and fault.named_by and not patch
            yield Audited(path.stem, fault, result, without_names(auditor, fault) if named else ())


def without_names(auditor: Auditor, fault: Fault) -> tuple[str, ...]:
    """What is named, falsely, when the right hypotheses are withheld."""
    try:
        with auditor.planted(fault) as faulty:
            results = auditor.replay(faulty.port, Mode.ISOLATED)
            subject = Subject(auditor.file, lambda dtype: faulty.port, auditor.weights, fault.named_by)
            return tuple({name for told in explain(subject, results) for name in told.hypotheses})
    except (DoesNotApply, Refused):
        return ()


def show(found: Sequence[Audited], dtype: str, console: Console) -> int:
    """Print the figures; return how many names are wrong."""
    caught = [a for a in found if a.result.verdict is Verdict.CAUGHT]
    missed = {a.result.key for a in found if a.result.verdict is Verdict.MISSED}
    missed -= {a.result.key for a in caught}
    tried = {a.result.key for a in found if a.result.verdict in (Verdict.CAUGHT, Verdict.MISSED)}
    ran = [a for a in caught if a.result.mode != "loading"]
    right = sum(a.result.planted for a in ran)
    namable = [a for a in ran if a.result.namable]
    names = Counter(a.result.naming for a in namable)
    wrong = [a for a in ran if a.result.naming is Naming.WRONG]
    false = [a for a in found if a.withheld]
    tested = [
        a for a in namable if not isinstance(a.fault.planting, Patch) and a.result.mode == Mode.ISOLATED
    ]
    console.print(f"\n[bold]{dtype}[/]: {len(tried)} faults, {len(found)} plantings")
    plantings = sum(a.result.verdict is not Verdict.EQUIVALENT for a in found)
    figures = {
        "caught by some golden file": (len(tried) - len(missed), len(tried)),
        "plantings caught": (len(caught), plantings),
        "first wrong is planted": (right, len(ran)),
        "named uniquely": (names[Naming.NAMED], len(namable)),
        "among the names": (names[Naming.NAMED] + names[Naming.ONE_OF], len(namable)),
        "wrong names": (len(wrong), len(ran)),
        "false names when withheld": (len(false), len(tested)),
    }
    for figure, (part, whole) in figures.items():
        console.print(f"{figure:28}{share(part, whole)}")
    console.print(confusion(ran))
    for a in wrong:
        console.print(f"wrong: {a.golden} {a.fault.name}: {a.fault.says}: {a.result.misnamed}")
    for a in false:
        console.print(f"false when withheld: {a.golden} {a.fault.name}: {', '.join(a.withheld)}")
    for a in namable:
        if a.result.naming in (Naming.NOT_NAMED, Naming.ONE_OF):
            console.print(
                f"{a.result.naming}: {a.golden} {a.fault.name} at {a.result.first}: {a.result.text}"
            )
    if missed:
        console.print(f"missed by all: {', '.join(' '.join(key) for key in sorted(missed))}")
    return len(wrong) + len(false)


def share(part: int, whole: int) -> str:
    return f"{part} of {whole}" + (f" ({part / whole:.1%})" if whole else "")


def confusion(ran: Sequence[Audited]) -> Table:
    """By area of the fault: what the diagnosis made of it."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("area")
    columns = (Naming.NAMED, Naming.ONE_OF, Naming.NOT_NAMED, Naming.WRONG)
    for heading in (*columns, "has no name: described", "has no name: named"):
        table.add_column(str(heading), justify="right")
    for area in dict.fromkeys(a.result.area for a in ran):
        own = [a for a in ran if a.result.area == area]
        named = Counter(a.result.naming for a in own if a.result.namable)
        bare = [a for a in own if not a.result.namable]
        counts = [named[naming] for naming in columns]
        counts += [sum(not a.result.hypotheses for a in bare), sum(bool(a.result.hypotheses) for a in bare)]
        table.add_row(area, *map(str, counts))
    return table


def costs(path: Path, checkpoint: str | None, console: Console) -> None:
    """What naming costs: of one component in its own float64 evaluations, of a whole replay in replays."""
    file = GoldenFile.open(path)
    folder = checkpoint_folder(file, checkpoint)
    dtype = file.dtypes[0]
    right = load_port(port_setting(ROOT), str(folder), dtype)
    assert isinstance(right, Weighted), "parameters are replaced"
    port = seed_rule(right)
    session = Session(file, lambda _: port)
    goldens = file.select(dtypes=[dtype])
    list(session.replay(goldens, [Mode.ISOLATED, Mode.END_TO_END]))  # compiles
    start = time.perf_counter()
    results = list(session.replay(goldens, [Mode.ISOLATED, Mode.END_TO_END]))
    replayed = time.perf_counter() - start
    subject = Subject(file, session.port, Weights(folder))
    start = time.perf_counter()
    explained = explain(subject, results)
    console.print(
        f"{len(explained)} failed components of a replay of {len(results)} comparisons are explained in "
        f"{(time.perf_counter() - start) / replayed:.2f} times its time"
    )
    ratios = [cost_of(subject, results, told.component) for told in explained[:10]]
    console.print(
        f"one failed component: {statistics.median(ratios):.2f} evaluations of it in float64, with their rounding "
        f"model, in the cases that are looked at (median of {len(ratios)}, at most {max(ratios):.2f})"
    )


def cost_of(subject: Subject, results: Sequence[Result], name: str) -> float:
    """The time of explaining a component over that of evaluating it in the same cases."""
    component = subject.file.component(name)
    own = [result for result in results if result.component == name and result.mode is Mode.ISOLATED]
    problem = pose(subject, component, own[0].dtype, own)

    def evaluate() -> None:
        for observation in problem.observations:
            under(problem, observation, None, Sample())

    return median_time(lambda: find(subject, component, own)) / median_time(evaluate)


def median_time(run: Callable[[], object], times: int = 5) -> float:
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def seed_rule(port: Weighted) -> Port:
    """Square projections of attention left untransposed, in every layer."""
    square = {
        name: weight.T
        for name, weight in port.parameters().items()
        if "self_attn" in name and weight.ndim == 2 and weight.shape[0] == weight.shape[1]
    }
    return port.with_parameters(square)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE.h5", default=GOLDENS)
    parser.add_argument("--dtype", action="append", choices=["float32", "bfloat16"])
    parser.add_argument("--fault", action="append", default=[], metavar="GLOB")
    parser.add_argument("--shard", type=command.Shard.parse, metavar="K/N")
    parser.add_argument("--checkpoint", metavar="DIR")
    parser.add_argument(
        "--seconds", type=Path, metavar="FILE.h5", help="measure what naming costs, on this file"
    )
    asked = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 160)
    if asked.seconds:
        costs(asked.seconds, asked.checkpoint, console)
        return
    question = command.Question(
        port_setting(ROOT), asked.checkpoint, (), None, tuple(asked.fault), fault_settings(ROOT), asked.shard
    )
    faults = command.chosen_faults(question)
    wrong = {}
    with compiled_once():
        for dtype in asked.dtype or ["float32", "bfloat16"]:
            files = [path for path in asked.files if dtype in GoldenFile.open(path).dtypes]
            found = [a for path in files for a in audited(path, dtype, asked.checkpoint, faults)]
            wrong[dtype] = show(found, dtype, console)
    sys.exit(1 if wrong.get("float32") else 0)


if __name__ == "__main__":
    main()
