"""Where things are kept that can be made again: what was fetched, and what was compiled. Imports nothing heavy."""

import os
from pathlib import Path

from harness.errors import GoldensError


def cache_folder() -> Path:
    """`GOLDENS_CACHE`, or flax-goldens among the user's caches. Raises GoldensError for a user without a home."""
    own = os.environ.get("GOLDENS_CACHE")
    if own:
        return Path(own)
    try:
        caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError as error:
        raise GoldensError(
            "this user has no home to keep a cache in: name a folder in GOLDENS_CACHE"
        ) from error
    return Path(caches) / "flax-goldens"
