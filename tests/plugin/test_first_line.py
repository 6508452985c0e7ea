"""What the first line of a failure says, and what of it is left in pytest's short summary."""

from collections.abc import Callable
from pathlib import Path

import pytest

# Before pytester takes stock: it forgets what a run imports, and JAX cannot be imported twice in a process.
import tests.ports  # noqa: F401

pytest_plugins = ["pytester"]
Run = Callable[..., pytest.RunResult]
GOLDEN = Path(__file__).parents[2] / "goldens" / "qwen2-tiny.h5"
FIRST = (
    "error * x limit: weight_not_transposed   layers.0.self_attn.q_proj   left-padded float32 isolated   FAIL"
)


@pytest.fixture
def failed(project: pytest.Pytester) -> pytest.Pytester:
    project.makeini("[pytest]\ngoldens_port = tests.ports:seed_rule\n")
    project.makepyfile(
        test_it=f"""
        import pytest

        @pytest.mark.goldens("{GOLDEN}", cases="left-padded", dtypes="float32", modes="isolated",
                             include="layers.0.self_attn.q_proj")
        def test_it(goldens, port):
            goldens.check(port)
        """
    )
    return project


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        ("200", "error * x limit: weight_not_transposed   layers.0.self_attn.q_proj*"),
        ("150", "error * x limit: weight_not_transp*..."),
    ],
)
def test_a_narrow_terminal_leaves_what_matters(
    failed: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, width: str, shown: str
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    result = failed.runpytest("-p", "no:cacheprovider")
    name = "test_it.py::test_it?qwen2-tiny/left-padded/float32/isolated/layers.0.self_attn.q_proj?"
    result.stdout.fnmatch_lines([FIRST, f"FAILED {name} - Failed: {shown}"])


def test_a_log_has_all_of_it(failed: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    monkeypatch.setenv("COLUMNS", "80")
    result = failed.runpytest("-p", "no:cacheprovider")
    result.stdout.fnmatch_lines([f"FAILED *isolated/layers.0.self_attn.q_proj? - Failed: {FIRST}"])


def test_a_reason_is_not_said_twice(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import pytest
        from tests.fakes import NumpyPort

        @pytest.mark.goldens("tiny.h5", include="lm_head", cases="hello", dtypes="float32", modes="isolated")
        def test_it(goldens):
            goldens.check(NumpyPort("bfloat16"))
        """
    )
    result = project.runpytest("-p", "no:cacheprovider")
    result.stdout.fnmatch_lines(
        ["the port answered in bfloat16, asked for float32: not compared   lm_head *"]
    )
