"""The commands as a user runs them: what is written where, and the exit status."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commandline import Told, runner
from tests.fakes import write_checkpoint, write_golden

PORT = ("--port", "tests.fakes:make")
FAULTY = ("--port", "tests.fakes:make_faulty")
PARTIAL = ("--port", "tests.fakes:make_partial")


@pytest.fixture
def goldens(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., Told]:
    """Run `goldens` in an empty folder that has `tiny.h5`, of two cases and two dtypes."""
    checkpoint = write_checkpoint(tmp_path / "checkpoint")
    write_golden(tmp_path / "tiny.h5", ("float32", "bfloat16"), ("hello", "padded"), checkpoint)
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    monkeypatch.chdir(tmp_path)
    return runner(monkeypatch, capsys)


def test_a_right_port_holds(goldens: Callable[..., Told]) -> None:
    told = goldens("replay", "tiny.h5", *PORT)
    assert told.status == 0, told
    assert "tiny.h5: 36 pass, 0 fail, 0 unmeasured" in told.out
    assert told.err == ""


def test_a_wrong_port_does_not_hold(goldens: Callable[..., Told]) -> None:
    told = goldens("replay", "tiny.h5", *FAULTY)
    assert told.status == 1
    assert "layers.0.q_proj   hello float32 isolated   FAIL   error 1e+06 x noise floor" in told.out
    assert "first wrong component in forward order (1 of 4 before it pass)" in told.out


def test_json_is_one_document_and_the_rest_is_told_aside(goldens: Callable[..., Told]) -> None:
    told = goldens("replay", "tiny.h5", *FAULTY, "--json", "--dtype", "float32")
    assert told.status == 1
    run = json.loads(told.out)
    assert run["golden"] == "tiny.h5"
    assert run["port"] == "tests.fakes:make_faulty"
    assert run["first_wrong"]["component"] == "layers.0.q_proj"
    isolated = {r["component"] for r in run["results"] if r["mode"] == "isolated" and r["verdict"] == "fail"}
    assert isolated == {"layers.0.q_proj"}
    assert "first wrong component" in told.err


def test_several_files_make_a_line_each(goldens: Callable[..., Told], tmp_path: Path) -> None:
    write_golden(tmp_path / "other.h5", checkpoint=tmp_path / "checkpoint")
    told = goldens("replay", "tiny.h5", "other.h5", *PORT, "--json")
    assert [json.loads(line)["golden"] for line in told.out.splitlines()] == ["tiny.h5", "other.h5"]


def test_only_what_was_asked_is_replayed(goldens: Callable[..., Told]) -> None:
    asked = ("--include", "layers.*", "--exclude", "*.act", "--case", "padded", "--dtype", "bfloat16")
    told = goldens("replay", "tiny.h5", *PORT, *asked, "--mode", "end-to-end", "--json")
    results = json.loads(told.out)["results"]
    assert [(r["component"], r["case"], r["dtype"], r["mode"]) for r in results] == [
        ("layers.0.q_proj", "padded", "bfloat16", "end-to-end"),
        ("layers.0", "padded", "bfloat16", "end-to-end"),
    ]


def test_unmeasured_does_not_hold_unless_listed(goldens: Callable[..., Told]) -> None:
    told = goldens("replay", "tiny.h5", *PARTIAL)
    assert told.status == 1
    assert "the port does not offer this component\n  layers.0.act" in told.out
    told = goldens("replay", "tiny.h5", *PARTIAL, "--unmeasured", "*.act=fused into the product")
    assert told.status == 0
    assert "listed: fused into the product" in told.out


def test_by_kind(goldens: Callable[..., Told]) -> None:
    told = goldens("replay", "tiny.h5", *PORT, "--by-kind", "--mode", "isolated")
    assert any(line.split()[:4] == ["float32", "isolated", "q_proj", "2"] for line in told.out.splitlines())


def test_the_port_of_the_project_is_the_default(goldens: Callable[..., Told], tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.goldens]\nport = "tests.fakes:make_faulty"\n')
    assert goldens("replay", "tiny.h5").status == 1
    assert goldens("replay", "tiny.h5", *PORT).status == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["replay", "no.h5", *PORT], "there is no golden file no.h5: record it with `goldens record`"),
        (["replay", "checkpoint/config.json", *PORT], "checkpoint/config.json is not a golden file"),
        (["replay", "tiny.h5"], "no port is named: say which with --port"),
        (["replay", "tiny.h5", "--port", "no_such_module:make"], "no module named 'no_such_module'"),
        (["replay", "tiny.h5", *PORT, "--include", "layers.0.p_proj"], "nearest: layers.0.q_proj"),
        (
            ["replay", "tiny.h5", *PORT, "--unmeasured", "none*=why"],
            "no component of tiny.h5 matches 'none*'",
        ),
        (["replay", "tiny.h5", *PORT, "--unmeasured", "*"], "write it as GLOB=REASON"),
        (["replay", "tiny.h5", *PORT, "--case", "bye"], "recorded: hello, padded"),
        (["replay", "tiny.h5", *PORT, "--dtype", "float16"], "recorded: float32, bfloat16"),
        (
            ["replay", "tiny.h5", *PORT, "--include", "layers.0", "--mode", "isolated"],
            "composites run end to end only",
        ),
        (["show", "no.h5"], "there is no golden file no.h5"),
        (["verify", "no.h5"], "there is no golden file no.h5"),
        (["record"], "nothing to record: name a SUITE.toml"),
    ],
)
def test_what_cannot_be_asked_gets_one_sentence(
    goldens: Callable[..., Told], arguments, sentence: str
) -> None:
    told = goldens(*arguments)
    assert told.status == 2
    assert told.out == ""
    assert sentence in told.err
    assert told.err.count("\n") == 1


def test_another_checkpoint_is_refused(goldens: Callable[..., Told], tmp_path: Path) -> None:
    other = write_checkpoint(tmp_path / "other")
    (other / "model.safetensors").write_bytes(b"trained on")
    told = goldens("replay", "tiny.h5", *PORT, "--checkpoint", "other")
    assert told.status == 2
    assert "is not the recorded one" in told.err


def test_show(goldens: Callable[..., Told]) -> None:
    told = goldens("show", "tiny.h5")
    assert told.status == 0
    rows = [line.split() for line in told.out.splitlines()]
    assert ["hello", "prompt", "2", "3", "1", "Hello"] in rows
    kinds = [" ".join(row) for row in rows]
    assert "float32 q_proj 1 2 B T O=4 192 B 1e-07 1e-07 3e-07 3e-07" in kinds
    assert "float32 embed_tokens 1 2 B T C=4 192 B exact exact" in kinds


def test_show_as_json(goldens: Callable[..., Told]) -> None:
    shown = json.loads(goldens("show", "tiny.h5", "--json").out)
    assert shown["cases"][0] == {
        "name": "hello", "origin": "prompt", "detail": "Hello", "batch": 2, "tokens": 3, "padded": 1
    }  # fmt: skip
    assert {kind["dtype"] for kind in shown["kinds"]} == {"float32", "bfloat16"}


def test_verify(goldens: Callable[..., Told], tmp_path: Path) -> None:
    assert goldens("verify", "tiny.h5").status == 0
    content = bytearray((tmp_path / "tiny.h5").read_bytes())
    content[5000] ^= 1
    (tmp_path / "damaged.h5").write_bytes(content)
    told = goldens("verify", "tiny.h5", "damaged.h5")
    assert told.status == 1
    assert "tiny.h5: holds\n" in told.out
    assert "damaged.h5: does not hold\n" in told.out


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from harness.cli.app import app\n"
        "try: app(['replay', '--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('numpy', 'h5py', 'jax', 'torch') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip().endswith("[]")


def test_what_a_component_raises_is_its_failure(
    goldens: Callable[..., Told], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.fakes.NumpyPort.apply", lambda *_: 1 / 0)
    told = goldens("replay", "tiny.h5", *PORT, "--json")
    assert told.status == 1
    results = json.loads(told.out)["results"]
    assert {r["reason"] for r in results if r["mode"] == "isolated"} == {
        "the port raised ZeroDivisionError: division by zero"
    }
    assert {r["verdict"] for r in results if r["mode"] == "end-to-end"} == {"pass"}


@pytest.mark.parametrize("method", ["apply", "trace"])
def test_what_is_no_mapping_is_said_to_be_none(
    goldens: Callable[..., Told], monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(f"tests.fakes.NumpyPort.{method}", lambda *_: None)
    told = goldens("replay", "tiny.h5", *PORT)
    assert told.status == 1
    assert "the port gave a NoneType, where a mapping of names to arrays was expected" in told.out


def test_a_crash_is_no_verdict(goldens: Callable[..., Told], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.compare.metrics.views", lambda *_, **__: 1 / 0)
    monkeypatch.setattr("harness.compare.judge.apart", lambda *_, **__: 1 / 0)
    told = goldens("replay", "tiny.h5", *PORT)
    assert told.status == 2
    assert "ZeroDivisionError" in told.err
