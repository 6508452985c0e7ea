"""Programs that JAX compiled, kept in a folder for as long as many ports are made that are nearly alike."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def compiled_once() -> Iterator[None]:
    """While this is open, what a fault leaves as it is compiles once for all ports, which halves an audit's time.

    JAX's settings are as they were afterwards.
    """
    import jax

    with tempfile.TemporaryDirectory(prefix="goldens-") as folder:
        settings = {
            "jax_compilation_cache_dir": folder,
            "jax_persistent_cache_min_compile_time_secs": 0,
            "jax_persistent_cache_min_entry_size_bytes": -1,
        }
        before = {name: getattr(jax.config, name) for name in settings}
        _configure(settings)
        try:
            yield
        finally:
            _configure(before)


def _configure(settings: dict[str, Any]) -> None:
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    config: Any = jax.config
    compilation_cache.reset_cache()
    for name, value in settings.items():
        config.update(name, value)
