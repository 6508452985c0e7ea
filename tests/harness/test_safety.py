"""Nothing is let in: no pickle, no code of a checkpoint or a golden file, no secret of the environment."""

import ast
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

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
    told = tell(tmp_path, "record", "--checkpoint", "https://someone:planted@host.example/model")
    assert told.status == 2
    assert "neither a folder nor a hub id" in told.err
    assert not list(tmp_path.iterdir())


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Values that are planted in the environment."""
    monkeypatch.chdir(tmp_path)
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    return list(SECRETS.values())
