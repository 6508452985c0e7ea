"""What the port follows of the newest `transformers` only."""

from importlib.metadata import PackageNotFoundError, version

import pytest
from packaging.version import Version


def _transformers() -> Version:
    try:
        return Version(version("transformers"))
    except PackageNotFoundError:
        return Version("0")


of_5_23 = pytest.mark.skipif(
    _transformers() < Version("5.23"),
    reason="until 5.23 transformers wrote chats without content, and penalised padding, in other ways",
)
