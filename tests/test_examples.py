"""The ports in examples/: what their documents show is told, all that they claim passes, and a mistake is seen."""

import json
import re
import shlex
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import examples.linen_scan.model as scanned
from examples.linen_scan import port as scan_port
from examples.tutorial_port import port as tutorial_port
from qwen_flax import port as built_in_port
from tests.commandline import runner
from tests.documents import Example, examples, first_untold

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/port-tutorial.md").read_text(encoding="utf-8")
README = (ROOT / "examples/linen_scan/README.md").read_text(encoding="utf-8")
SCANNED = "examples.linen_scan.port:make"
RIGHT = dict(vars(scanned))
Goldens = Callable[..., str]
make = built_in_port.make  # under a name that pyproject.toml does not give, without the faults of its source
GIVEN = re.compile(r"`my_port\.py`:\n\n((?:    .*\n|\n)+)")


@pytest.fixture
def clone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A folder like the clone, to write files into."""
    for name in ("goldens", "examples", "qwen_flax", "tests", "pyproject.toml"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("CI", raising=False)
    yield tmp_path
    sys.modules.pop("my_port", None)


@pytest.fixture
def goldens(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], clone: Path) -> Goldens:
    """Run `goldens` in it, on what `my_port.py` says now."""
    run = runner(monkeypatch, capsys)
    monkeypatch.setenv("COLUMNS", "200")

    def tell(*arguments: str) -> str:
        sys.modules.pop("my_port", None)
        told = run(*arguments)
        assert told.status in (0, 1), told.err
        return told.out

    return tell


def my_port(until: int) -> str:
    """`my_port.py` as it is for a reader who has come so far: all that was to be written to it."""
    return "\n".join(textwrap.dedent(block) for block in GIVEN.findall(PAGE[:until]))


SHOWN = [
    pytest.param(place.start(), example, id=example.command)
    for place, example in zip(re.finditer(r"^    \$ ", PAGE, re.MULTILINE), examples(PAGE), strict=True)
]


@pytest.mark.parametrize(("place", "example"), SHOWN)
def test_what_the_tutorial_shows_is_told(place: int, example: Example, clone: Path, goldens: Goldens) -> None:
    (clone / "my_port.py").write_text(my_port(until=place), encoding="utf-8")
    program, *arguments = shlex.split(example.command)
    assert program == "goldens"
    told = goldens(*arguments)
    assert first_untold(example.shown, told) is None, told


@pytest.mark.parametrize("example", [pytest.param(each, id=each.command) for each in examples(README)])
def test_what_the_readme_shows_is_told(example: Example, goldens: Goldens) -> None:
    assert first_untold(example.shown, goldens(*shlex.split(example.command)[1:])) is None


def test_the_port_of_the_tutorial_is_the_example() -> None:
    namespace: dict[str, Any] = {}
    exec(my_port(until=len(PAGE)), namespace)
    assert namespace["COMPONENTS"] == tutorial_port.COMPONENTS


@pytest.mark.parametrize(
    ("folder", "model", "adapter"), [("tutorial_port", 100, 59), ("linen_scan", 135, 80)]
)
def test_examples_are_as_short_as_is_said(folder: str, model: int, adapter: int) -> None:
    for name, most in {"model.py": model, "port.py": adapter}.items():
        assert len((ROOT / "examples" / folder / name).read_text(encoding="utf-8").splitlines()) <= most


@pytest.mark.parametrize(
    ("asked", "passing"),
    [
        ("qwen2-tiny.h5 --dtype float32 --case checkpoint", 40),
        pytest.param(
            *("qwen3-tiny.h5 --dtype bfloat16 --case left-padded --case checkpoint --include *.1.*", 57),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_scanned_model_passes(asked: str, passing: int, goldens: Goldens) -> None:
    """Components in both modes, and parameters, under scan and in fused projections."""
    others = "--exclude config.* --exclude sampling.*"
    told = goldens(*f"replay goldens/{asked} --port {SCANNED} {others}".split())
    assert told.splitlines()[-1].endswith(f"{passing} pass, 0 fail, 0 unmeasured"), told


@pytest.mark.parametrize(
    ("function", "mistake", "wrong"),
    [
        ("rotate", lambda x, cos, sin: x * jnp.concatenate([cos, sin], axis=-1), {"q_rope", "k_rope"}),
        ("swiglu", lambda gate, up: jax.nn.silu(gate) * (up + 1), {"gated"}),
        ("turns", lambda positions, cfg: RIGHT["turns"](positions + 1, cfg), {"cos", "sin"}),
    ],
)
def test_a_mistake_in_the_model_is_found_where_it_is(
    function: str, mistake: Any, wrong: set[str], monkeypatch: pytest.MonkeyPatch, goldens: Goldens
) -> None:
    """What runs by itself is the code of the model: of a mistake in it, only the components that it is in fail."""
    monkeypatch.setattr(scanned, function, mistake)
    asked = "--dtype float32 --case left-padded --mode isolated --include layers.0.* --include rotary* --json"
    told = json.loads(goldens(*f"replay goldens/qwen2-tiny.h5 --port {SCANNED} {asked}".split()))
    failed = {each["component"].rpartition(".")[2] for each in told["results"] if each["verdict"] == "fail"}
    assert failed == wrong


@pytest.mark.slow
def test_an_audit_of_the_scanned_model_has_the_verdicts_of_the_built_in_one(goldens: Goldens) -> None:
    """Of all faults that are planted through the contract alone."""

    def verdicts(port: str) -> dict[str, tuple[str, ...]]:
        told = json.loads(
            goldens(*f"audit goldens/qwen2-tiny.h5 --port {port} --case left-padded --json".split())
        )
        contract = [r for r in told["results"] if r["planting"] in ("answer", "overrides", "rewired")]
        return {r["fault"]: (r["verdict"], r["mode"], r["first"], r["naming"]) for r in contract}

    scanned, built_in = verdicts(SCANNED), verdicts("tests.test_examples:make")
    assert scanned == built_in
    assert sum(verdict == "caught" for verdict, *_ in scanned.values()) >= 180


def test_a_checkpoint_that_the_scanned_model_is_not_is_refused(clone: Path) -> None:
    with pytest.raises(ValueError, match="scales its rotary frequencies"):
        scan_port.make("goldens/checkpoints/qwen2-yarn", dtype="float32")
