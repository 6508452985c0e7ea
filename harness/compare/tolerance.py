"""What is allowed: a multiple of the noise floor, for each mode. Never a number for its own sake."""

from harness.model import UNIT_ROUNDOFF, Floor, Mode, Views

NOTHING = Views(0.0, 0.0, 0.0)
MULTIPLE = {Mode.ISOLATED: 4.0, Mode.END_TO_END: 4.0}
"""k. docs/numerics.md shows, by kind and mode, the largest error over floor of correct ports."""


def greatest(a: Views, b: Views) -> Views:
    return Views(max(a.whole, b.whole), max(a.row, b.row), max(a.channel, b.channel))


def scaled(views: Views, factor: float) -> Views:
    return Views(views.whole * factor, views.row * factor, views.channel * factor)


def noise_floor(floor: Floor, dtype: str, exact: bool) -> Views:
    """The greatest of measured, modelled and a quarter of a unit roundoff, view by view.

    Nothing at all for an exact component: unless, end to end, what it takes in was rounded before.
    """
    explained = greatest(floor.measured, floor.modelled)
    if exact and explained == NOTHING:
        return NOTHING
    least = UNIT_ROUNDOFF[dtype] / 4
    return greatest(explained, Views(least, least, least))


def limit(floor: Floor, dtype: str, mode: Mode, exact: bool) -> Views:
    """The largest error that passes, view by view."""
    return scaled(noise_floor(floor, dtype, exact), MULTIPLE[mode])


def exceeds(error: Views, limit: Views) -> bool:
    """Whether any view of `error` is over its limit. NaN is over every limit."""
    return not (error.whole <= limit.whole and error.row <= limit.row and error.channel <= limit.channel)
