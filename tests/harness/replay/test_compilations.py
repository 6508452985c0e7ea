"""Where JAX keeps what it has compiled, if nobody said otherwise."""

import os
import sys
from types import SimpleNamespace

import pytest

from harness.replay.compilations import keep_compilations


class Config(SimpleNamespace):
    def update(self, name, value):
        setattr(self, name, value)


@pytest.fixture
def settings(monkeypatch, tmp_path):
    """JAX, as far as it is asked, and a home with nothing in it."""
    found = Config(jax_compilation_cache_dir=None, jax_enable_compilation_cache=True)
    monkeypatch.setitem(sys.modules, "jax", SimpleNamespace(config=found))
    monkeypatch.delenv("GOLDENS_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return found


def test_it_is_a_folder_of_the_users_cache(settings, tmp_path):
    keep_compilations()
    assert settings.jax_compilation_cache_dir == str(tmp_path / "cache" / "flax-goldens" / "compiled")
    assert os.path.isdir(settings.jax_compilation_cache_dir)
    assert settings.jax_persistent_cache_min_compile_time_secs == 0


def test_it_lies_beside_what_is_fetched(settings, monkeypatch, tmp_path):
    monkeypatch.setenv("GOLDENS_CACHE", str(tmp_path / "own"))
    keep_compilations()
    assert settings.jax_compilation_cache_dir == str(tmp_path / "own" / "compiled")


def test_another_folder_stays(settings, tmp_path):
    settings.jax_compilation_cache_dir = "elsewhere"
    keep_compilations()
    assert settings.jax_compilation_cache_dir == "elsewhere"
    assert not (tmp_path / "cache").exists()


def test_jax_own_switch_turns_it_off(settings, tmp_path):
    settings.jax_enable_compilation_cache = False
    keep_compilations()
    assert settings.jax_compilation_cache_dir is None
    assert not (tmp_path / "cache").exists()


def test_a_home_in_which_there_can_be_no_folder_is_none(settings, tmp_path):
    (tmp_path / "cache").write_text("a file")
    keep_compilations()
    assert settings.jax_compilation_cache_dir is None


def test_a_user_without_a_home_has_none(settings, monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("pathlib.Path.home", homeless)
    keep_compilations()
    assert settings.jax_compilation_cache_dir is None


def test_without_jax_there_is_nothing_to_keep(monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, "jax", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    keep_compilations()
    assert list(tmp_path.iterdir()) == []
