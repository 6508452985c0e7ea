import pytest

from tests.qwen_flax import tiny


@pytest.fixture(params=["qwen2", "qwen3"])
def raw(request):
    return {"qwen2": tiny.QWEN2, "qwen3": tiny.QWEN3}[request.param]


@pytest.fixture
def folder(tmp_path, raw):
    return tiny.write(tmp_path / raw["model_type"], raw)
