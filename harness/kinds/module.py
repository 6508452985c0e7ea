"""A module of the reference whose steps are not known: what it takes in and puts out, and nothing about how."""

from typing import NoReturn

from harness.errors import GoldensError
from harness.kinds.step import Step


def _not_known(*_: object) -> NoReturn:
    raise GoldensError(
        "a component was recorded as a module, whose steps are not known: it cannot be evaluated"
    )


MODULE = Step("module", {"x": "B T I"}, "B T O", _not_known, _not_known, opaque=True)
