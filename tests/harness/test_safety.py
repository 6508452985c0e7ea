"""Nothing is let in: no pickle, no code of a checkpoint or a golden file, no secret of the environment."""

import ast
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.errors import GoldensError, first_line, without_secrets
from tests.commandline import tell
from tests.fakes import write_checkpoint, write_golden

ROOT = Path(__file__).parents[2]
SOURCES = [path for room in ("harness", "qwen_flax") for path in sorted((ROOT / room).rglob("*.py"))]
UNPICKLING = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "jsonpickle"}
EVALUATING = {"eval", "exec", "compile", "__import__"}
SECRETS = {
    "HF_TOKEN": "hf_planted0token",
    "AWS_SECRET_ACCESS_KEY": "planted1secret",
    "HTTPS_PROXY": "http://someone:planted2password@127.0.0.1:9",
}


def trees() -> Iterator[tuple[Path, ast.AST]]:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            yield path, node


def test_nothing_unpickles() -> None:
    found = []
    for path, node in trees():
        if isinstance(node, ast.Import):
            names = {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {(node.module or "").partition(".")[0]}
        else:
            continue
        found += [(path, node.lineno, name) for name in names & UNPICKLING]
    assert not found


def test_no_text_is_run_as_code_and_no_array_unpickled() -> None:
    found = []
    for path, node in trees():
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        wrong = called in EVALUATING or called in {"torch.load", "yaml.load"}
        wrong |= any(keyword.arg == "allow_pickle" for keyword in node.keywords)
        found += [(path, node.lineno, called)] if wrong else []
    assert not found


def test_no_code_of_a_checkpoint_is_trusted() -> None:
    """transformers would ask at the terminal; and a pickle is read where there are safetensors beside it."""
    loaded = []
    for path, node in trees():
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".from_pretrained"):
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert given.get("trust_remote_code") == "False", f"{path}:{node.lineno}"
            if "ForCausalLM" in ast.unparse(node.func):
                assert given.get("use_safetensors") == "True", f"{path}:{node.lineno}"
            loaded.append(path)
    assert loaded


def test_no_secret_of_the_environment_is_kept_by_a_replay(secrets: list[str], tmp_path: Path) -> None:
    write_golden(Path("tiny.h5"), checkpoint=write_checkpoint(Path("checkpoint")))
    kept = ("run.html", "run.json", "run.md", "run.xml")
    reports = [part for name in kept for part in ("--report", name)]
    asked = ["--port", "tests.fakes:make", "--history", "runs.jsonl", "--json", *reports]
    told = tell(tmp_path, "replay", "tiny.h5", *asked)
    assert told.status == 0, told.err
    text = told.out + told.err + "".join(Path(name).read_text() for name in (*kept, "runs.jsonl"))
    assert not [secret for secret in secrets if secret in text]


def test_no_secret_of_the_environment_is_recorded(secrets: list[str]) -> None:
    torch = pytest.importorskip("torch")
    from harness.record.reference import provenance

    class Model(torch.nn.Linear):
        config = SimpleNamespace(_attn_implementation="eager")

    kept = str(provenance("organisation/model", "hub id", write_checkpoint(Path("checkpoint")), Model(1, 1)))
    assert "eager" in kept
    assert not [secret for secret in secrets if secret in kept]


def test_a_checkpoint_by_url_is_recorded_nowhere(tmp_path: Path) -> None:
    told = tell(
        tmp_path, "record", "--checkpoint", "https://someone:planted@host.example/model?token=planted"
    )
    assert told.status == 2
    assert told.err == (
        "goldens: checkpoint https://host.example/model is neither a folder nor a hub id such as ORGANISATION/MODEL\n"
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "typed",
    [
        ("record", "https://someone:planted@host.example/suite.toml"),
        ("record", "--checkpoint", "model", "-o", "https://someone:planted@host.example/model.h5"),
        ("replay", "https://someone:planted@host.example/model.h5?token=planted"),
        (
            "replay",
            "tiny.h5",
            "--port",
            "tests.fakes:make",
            "--checkpoint",
            "https://someone:planted@host.example/m",
        ),
        (
            "replay",
            "tiny.h5",
            "--port",
            "tests.fakes:make",
            "--report",
            "https://someone:planted@host.example/r.html",
        ),
        ("show", "https://someone:planted@127.0.0.1:9/model.h5?token=planted#sha256=" + 64 * "0"),
        ("fetch", "https://someone:planted@127.0.0.1:9/model.h5?token=planted"),
    ],
    ids=lambda typed: " ".join(typed[:-1]),
)
def test_a_password_that_was_typed_is_not_repeated(tmp_path: Path, typed: tuple[str, ...]) -> None:
    write_golden(tmp_path / "tiny.h5", checkpoint=write_checkpoint(tmp_path / "checkpoint"))
    told = tell(tmp_path, *typed)
    assert told.status == 2
    assert "planted" not in told.out + told.err
    assert "someone" not in told.out + told.err


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("403, url='http://far/a.h5?token=planted'", "403, url='http://far/a.h5'"),
        ("at https://me:planted@far/x?key=planted: no", "at https://far/x: no"),
        ("at https:/me:planted@far/x, which became a path", "at https:/far/x, which became a path"),
        ("at https://me:plan?ted@far/x", "at https://far/x"),
        ("at hf://datasets/o/n@main/f.h5#sha256=ab.", "at hf://datasets/o/n@main/f.h5#sha256=ab."),
        ("me@far, C:/x?y, a:b", "me@far, C:/x?y, a:b"),
    ],
)
def test_urls_are_shown_without_what_may_be_a_secret(text: str, shown: str) -> None:
    assert without_secrets(text) == shown
    assert str(GoldensError(text)) == shown
    assert first_line(ValueError(text)) == shown


def test_what_a_port_raises_is_reported_without_passwords(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_golden(Path("tiny.h5"), checkpoint=write_checkpoint(Path("checkpoint")))
    Path("leaking.py").write_text(
        "from tests.fakes import NumpyPort\n"
        "class Port(NumpyPort):\n"
        "    def trace(self, inputs, names):\n"
        "        raise OSError('no answer from https://me:planted@far/weights?token=planted')\n"
        "def make(checkpoint, *, dtype):\n"
        "    return Port()\n"
    )
    kept = ("run.html", "run.json", "run.md", "run.xml")
    reports = [part for name in kept for part in ("--report", name)]
    told = tell(tmp_path, "replay", "tiny.h5", "--port", "leaking:make", "--history", "runs.jsonl", *reports)
    assert told.status == 1, told.err
    text = told.out + told.err + "".join(Path(name).read_text() for name in (*kept, "runs.jsonl"))
    assert "no answer from https://far/weights" in text
    assert "planted" not in text


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Values that are planted in the environment."""
    monkeypatch.chdir(tmp_path)
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    return list(SECRETS.values())
