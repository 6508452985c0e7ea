"""The port of this project against its golden files, as any project would write it."""

import pytest


@pytest.mark.goldens(
    "goldens/qwen2-tiny.h5",
    "goldens/qwen3-tiny.h5",
    cases=["left-padded", "random-1"],
    dtypes="float32",
)
def test_component(goldens, port):
    goldens.check(port)
