"""What JAX has compiled, kept from one run to the next: a port is compiled once, and then read from a folder."""

import os
import sys

from harness.caches import cache_folder
from harness.errors import GoldensError


def keep_compilations() -> None:
    """Have JAX keep them, if it is there; where it was told another folder, or none, that holds.

    By default it would leave out what compiled in less than a second, which every single component does.
    """
    jax = sys.modules.get("jax")
    if jax is None or jax.config.jax_compilation_cache_dir or not jax.config.jax_enable_compilation_cache:
        return
    try:
        folder = cache_folder() / "compiled"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, GoldensError):  # a home that nobody can write to, or none
        return
    if not os.access(folder, os.W_OK):
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
