"""pytest-xdist: which tests stay together with `--dist loadgroup`. Imported only where it is active.

xdist takes a test's group from the end of its id, where `xdist_group` puts it; then the id is no longer one that pytest
finds again. The ids of parity tests tell their group as they are.
"""

import re

from xdist.scheduler import LoadGroupScheduling

from harness.model import Mode

_COMPARISON = re.compile(rf"\[(.+)/(?:{'|'.join(Mode)})/[^/\]]+\]$")


def group_of(nodeid: str) -> str | None:
    """Golden file, case and dtype of a comparison; None for any other test."""
    comparison = _COMPARISON.search(nodeid)
    return None if comparison is None else comparison.group(1)


class Grouped(LoadGroupScheduling):  # type: ignore[misc]
    """Comparisons of one golden file, case and dtype are one group: one forward pass serves them."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid) or super()._split_scope(nodeid)
