"""The project in which misuses are done, and one run in it."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from harness.errors import GoldensError

ROOT = Path(__file__).parents[2]
OURS = (str(ROOT / "harness"), str(ROOT / "qwen_flax"))


@dataclass(frozen=True)
class Refusal:
    """says: the sentence; raised_at: `file:line` of each of the project's raises that led to it, and of what else."""

    says: str
    raised_at: tuple[str, ...]


@contextmanager
def refusals() -> Iterator[list[Refusal]]:
    """Every refusal that is made inside, with where it is made."""
    found: list[Refusal] = []

    def noting(error: Exception, *arguments: Any) -> None:
        Exception.__init__(error, *arguments)
        frame = sys._getframe(1)
        while frame.f_code.co_name == "__init__" and frame.f_back is not None:
            frame = frame.f_back
        here = f"{frame.f_code.co_filename}:{frame.f_lineno}"
        found.append(Refusal(str(arguments[0]) if arguments else "", (here, *_causes(sys.exc_info()[1]))))

    with pytest.MonkeyPatch.context() as patch:
        for kind in (GoldensError, pytest.UsageError):
            patch.setattr(kind, "__init__", noting, raising=False)
        yield found


def _causes(error: BaseException | None) -> Iterator[str]:
    """What is being handled while a refusal is made: its type, and the innermost line of this project's in it."""
    while error is not None:
        yield f"{type(error).__name__} {_innermost(error.__traceback__)}"
        error = error.__cause__ or error.__context__


def _innermost(trace: TracebackType | None) -> str:
    ours = [frame for frame in traceback.extract_tb(trace) if frame.filename.startswith(OURS)]
    return f"{ours[-1].filename}:{ours[-1].lineno}" if ours else ""


@contextmanager
def own_modules(folder: Path) -> Iterator[None]:
    """What is imported from the folder is forgotten afterwards, and so is the way to it."""
    paths = list(sys.path)
    yield
    sys.path[:] = paths
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(folder)):
            del sys.modules[name]
