"""Many small processes on few cores: JAX compiles once for all of them, and PyTorch has one thread in each."""

import os
import tempfile
from contextlib import suppress

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Workers of pytest-xdist, and the commands that tests start, inherit what is in the environment."""
    with suppress(ModuleNotFoundError):  # where golden files are only replayed, it is not installed
        from hypothesis import settings

        settings.register_profile("untimed", deadline=None)  # what is compiled takes long only once
        settings.load_profile("untimed")
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # with more, they mostly wait for each other
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    folder = tempfile.TemporaryDirectory(prefix="goldens-compiled-")
    config.add_cleanup(folder.cleanup)
    os.environ |= {
        "JAX_COMPILATION_CACHE_DIR": folder.name,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
