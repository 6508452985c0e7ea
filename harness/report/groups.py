"""Results by dtype and mode, for tables of any face. Imports nothing heavy."""

from collections import defaultdict
from collections.abc import Iterable

from harness.model import Mode
from harness.report.result import Result


def grouped(results: Iterable[Result], by_kind: bool = False) -> dict[tuple[str, ...], list[Result]]:
    """(dtype, mode), and kind if asked -> its results; dtypes as they come first, modes from isolated on."""
    results = list(results)
    dtypes = list(dict.fromkeys(result.dtype for result in results))
    groups: dict[tuple[str, ...], list[Result]] = defaultdict(list)
    for result in sorted(results, key=lambda r: (dtypes.index(r.dtype), list(Mode).index(r.mode))):
        groups[result.dtype, result.mode, *([result.kind] if by_kind else [])].append(result)
    return groups


def nearest_to_limit(results: Iterable[Result]) -> Result | None:
    """The one with the largest error over its limit; None where no numbers were compared."""
    return max((r for r in results if r.error is not None), key=lambda r: r.over_limit, default=None)
