"""What is allowed: a multiple of the noise floor, for each mode; another limit only where somebody says so, and why."""

import math
from dataclasses import dataclass

from harness.model import UNIT_ROUNDOFF, Floor, Mode, Views

NOTHING = Views(0.0, 0.0, 0.0)


def greatest(a: Views, b: Views) -> Views:
    return Views(max(a.whole, b.whole), max(a.row, b.row), max(a.channel, b.channel))


def noise_floor(floor: Floor, dtype: str, exact: bool) -> Views:
    """The greatest of measured, modelled and a quarter of a unit roundoff, view by view.

    Nothing at all for an exact component: unless, end to end, what it takes in was rounded before.
    """
    explained = greatest(floor.measured, floor.modelled)
    if exact and explained == NOTHING:
        return NOTHING
    least = UNIT_ROUNDOFF[dtype] / 4
    return greatest(explained, Views(least, least, least))


def multiple(mode: Mode, count: float) -> float:
    """How many noise floors pass in a view whose norm is taken over `count` elements.

    Isolated, errors of many elements average out, and few scatter: a single one of thousands is 6 times the floor's
    standard deviation by chance. End to end, elements move together, driven by a few roundings early on, so that
    their number says nothing. docs/numerics.md has the largest error over floor of correct ports.
    """
    return 4.0 + 4.0 / math.sqrt(count) if mode is Mode.ISOLATED else 6.0


def limit(floor: Floor, dtype: str, mode: Mode, exact: bool, counts: Views) -> Views:
    """The largest error that passes, view by view. counts: the least elements that a norm of each view is over."""
    least = noise_floor(floor, dtype, exact)
    return Views(
        least.whole * multiple(mode, counts.whole),
        least.row * multiple(mode, counts.row),
        least.channel * multiple(mode, counts.channel),
    )


@dataclass(frozen=True)
class Allowed:
    """What passes because somebody says so. It says nothing of what has no noise floor: that is exact.

    who: who says so, and why
    rtol: the largest relative error, in every view; atol: elements that differ by no more count as equal
    floors: how many noise floors pass in every view, in place of `rtol`
    """

    who: str
    rtol: float | None = None
    atol: float = 0.0
    floors: float | None = None

    @property
    def says(self) -> str:
        sizes = {"rtol": self.rtol, "atol": self.atol, "floors": self.floors}
        return f"{', '.join(f'{name} = {size:g}' for name, size in sizes.items() if size)} by {self.who}"

    def limit(self, noise: Views) -> Views:
        """The largest error that passes, view by view."""
        if self.floors is None:
            assert self.rtol is not None, "either rtol or floors"
            return Views(self.rtol, self.rtol, self.rtol)
        return Views(*(floor * self.floors for floor in (noise.whole, noise.row, noise.channel)))


def exceeds(error: Views, limit: Views) -> bool:
    """Whether any view of `error` is over its limit. NaN is over every limit."""
    return not (error.whole <= limit.whole and error.row <= limit.row and error.channel <= limit.channel)
