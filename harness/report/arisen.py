"""NaN and infinities that a port makes: where they first arose, and what only has them from there.

Nothing before the first component in forward order has any, so all that it takes in is finite. In decode, the earliest
step comes first. Imports nothing heavy.
"""

from collections.abc import Iterable, Iterator, Sequence

from harness.model import Mode, Verdict
from harness.report.result import Result

_WHERE = {Mode.ISOLATED: "isolated", Mode.END_TO_END: "end to end", Mode.DECODE: "in decode"}
_PLACES = {"B": "text", "T": "token", "S": "key", "H": "head", "K": "key-value head", "V": "token id"}
"""What an index of an axis is called; of any other it is a channel."""


def where_arisen(results: Sequence[Result], order: Sequence[str]) -> Iterator[str]:
    """A sentence for each mode in which NaN or infinity arose, about the case that shows it earliest."""
    first = first_arisen(results, order)
    for mode in Mode:
        of_mode = [result for result in first if result.mode is mode]
        if of_mode:
            earliest = min(of_mode, key=lambda result: order.index(result.component))
            alike = [result for result in results if _run(result) == _run(earliest)]
            yield f"{_found(earliest)}{_beside(earliest, alike, order)}"


def first_arisen(results: Iterable[Result], order: Sequence[str]) -> list[Result]:
    """Of each case, dtype and mode the result in which NaN or infinity first arose, if it did in any."""
    position = {name: place for place, name in enumerate(order)}

    def when(result: Result) -> tuple[int, int]:
        step = result.arisen.step if result.arisen is not None else None
        return step or 0, position[result.component]

    runs: dict[tuple[str, str, Mode], list[Result]] = {}
    for result in results:
        if result.arisen is not None:
            runs.setdefault(_run(result), []).append(result)
    return [min(own, key=when) for own in runs.values()]


def without_followers(results: Sequence[Result], order: Sequence[str]) -> list[Result]:
    """Results, but not those of whole runs that have NaN or infinity since something before them has."""
    first = {id(result) for result in first_arisen(results, order)}
    return [
        result
        for result in results
        if result.arisen is None or result.mode is Mode.ISOLATED or id(result) in first
    ]


def _run(result: Result) -> tuple[str, str, Mode]:
    return result.case, result.dtype, result.mode


def _found(first: Result) -> str:
    arisen = first.arisen
    assert arisen is not None
    at = ", ".join(f"{_PLACES.get(letter, 'channel')} {place}" for letter, place in arisen.at.items())
    step = {None: "", 0: ", with what is read at once"}.get(arisen.step, f", in step {arisen.step}")
    return (
        f"NaN or infinity first arose {_WHERE[first.mode]} in {first.component} ({first.case} {first.dtype}): "
        f"{arisen.port} at {at}{step}"
    )


def _beside(first: Result, alike: Sequence[Result], order: Sequence[str]) -> str:
    """What there is of it in the same run, before and after."""
    others = sum(result.arisen is not None for result in alike) - 1
    if first.mode is not Mode.END_TO_END:
        then = "it does in" if first.mode is Mode.ISOLATED else "from then on it is in"
        return f"; {then} {others} more" if others else ""
    names = set(order[: order.index(first.component)])
    before = [result for result in alike if result.component in names]
    unmeasured = sum(result.verdict is Verdict.UNMEASURED for result in before)
    told = f"; of {len(before)} before it none has any"
    told += f" ({unmeasured} unmeasured)" if unmeasured else ""
    return told + (f", of those after it {others}" if others else "")
