"""What a collected test stands for. Imports nothing but pytest."""

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from harness.marker import Comparison, Missing


def comparison_of(item: pytest.Item) -> "Comparison | None":
    """The comparison of a marked test; None for any other test."""
    found = _param(item)
    return found if hasattr(found, "recorded") else None


def missing_of(item: pytest.Item) -> "Missing | None":
    """The golden file that is not there, of the test that stands for it."""
    found = _param(item)
    return found if hasattr(found, "says") else None


def _param(item: pytest.Item) -> Any:
    callspec: Any = getattr(item, "callspec", None)
    marked = callspec is not None and item.get_closest_marker("goldens") is not None
    return callspec.params.get("goldens") if marked else None
