"""The eps of a norm, whatever the norm: hypotheses about its value."""

from functools import partial

from harness.kinds.step import Evaluation, Hypothesis


def _eps(value: float, e: Evaluation) -> Evaluation | None:
    return None if value == e.settings["eps"] else e.with_settings(eps=value)


EPS = tuple(
    Hypothesis(
        f"eps_{value:g}",
        f"eps is {f'{value:g}' if value else '0, or next to it'}",
        change=partial(_eps, value),
    )
    for value in (0.0, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3)
)
