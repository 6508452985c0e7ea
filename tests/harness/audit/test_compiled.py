"""While programs are kept, a port made again compiles nothing; afterwards JAX is as it was."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from harness.audit.compiled import compiled_once

SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


def settings():
    return {name: getattr(jax.config, name) for name in SETTINGS}


def programs():
    return sorted(path.name for path in Path(jax.config.jax_compilation_cache_dir).glob("*-cache"))


def compile_again():
    """A function of its own each time, as a module that is imported again has."""
    return jax.jit(lambda x: jnp.cos(x) * 7)(jnp.ones(13)).block_until_ready()


def test_what_is_alike_is_compiled_once():
    with compiled_once():
        compile_again()
        first = programs()
        compile_again()
        assert first
        assert programs() == first


def test_settings_and_folder_are_gone_afterwards():
    before = settings()
    with compiled_once():
        folder = Path(jax.config.jax_compilation_cache_dir)
        assert folder.is_dir()
        assert settings() != before
    assert settings() == before
    assert not folder.exists()


def leave_by_an_error():
    with compiled_once():
        raise ArithmeticError


def test_after_an_error_too():
    before = settings()
    with pytest.raises(ArithmeticError):
        leave_by_an_error()
    assert settings() == before
