"""What must not be in a golden file is refused, by a sentence, whoever wrote it: here every digest holds."""

import random
from pathlib import Path

import msgspec
import pytest

from harness.errors import GoldensError
from harness.store.layout import USER_BLOCK, UserBlock
from harness.store.reader import GoldenFile
from harness.store.tree import disagreements
from harness.store.verify import verify
from tests.fakes import write_golden
from tests.robust import hdf5_changed, index_changed
from tests.robust.rebuilt import with_hdf5, with_index, with_text

PAYLOAD = "goldens/float32/hello/layers.0.q_proj/output"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base") / "base.h5"
    write_golden(path)
    return path


@pytest.mark.parametrize("change", hdf5_changed.CHANGES, ids=lambda change: change.__name__)
def test_what_hdf5_can_do_and_a_golden_file_must_not(
    base: Path, tmp_path: Path, change: hdf5_changed.Change
) -> None:
    target = tmp_path / "x.h5"
    with_hdf5(base, target, lambda file: change(file, PAYLOAD))
    assert _refusal(target).isprintable()


@pytest.mark.parametrize("change", dict.fromkeys(index_changed.CHANGES), ids=lambda change: change.__name__)
def test_nonsense_in_the_index(base: Path, tmp_path: Path, change: index_changed.Change) -> None:
    target = tmp_path / "x.h5"
    draw = random.Random(7)
    for _ in range(3):
        with_index(base, target, lambda index: change(draw, index))
        assert _refusal(target).isprintable()


def _refusal(path: Path) -> str:
    """The sentence by which a file is refused: when it is opened, read, or verified."""
    try:
        file = GoldenFile.open(path)
        _read(file)
    except GoldensError as error:
        return str(error)
    [problem, *_] = disagreements(file)
    return problem


def _read(file: GoldenFile) -> list[bytes]:
    return [file.tensor(row).tobytes() for row in range(len(file.tensors))]


def _index(path: Path) -> bytes:
    content = path.read_bytes()
    block = UserBlock.parse(content[:USER_BLOCK], str(path))
    return content[block.index_offset :][: block.index_nbytes]


@pytest.mark.parametrize(
    ("replaced", "by"),
    [
        (b'"hidden_size":4', b'"hidden_size":' + b"[" * 5000 + b"]" * 5000),
        (b'"hidden_size":4', b'"hidden_size":1e999'),
        (b'"hidden_size":4', b'"hidden_size":NaN'),
        (b'"whole":3e-7', b'"whole":NaN'),
        (b'"whole":3e-7', b'"whole":1e999'),
        (b'"hello"', b'"\xff\xfe"'),
        (b'"hello"', b'"\\ud800"'),
        (b"}", b""),
    ],
    ids=[
        "deep",
        "infinite",
        "NaN",
        "floor NaN",
        "floor infinite",
        "no text",
        "half a character",
        "cut short",
    ],
)
def test_an_index_that_is_no_json_of_this_kind(
    base: Path, tmp_path: Path, replaced: bytes, by: bytes
) -> None:
    assert replaced in _index(base)
    with_text(base, tmp_path / "x.h5", _index(base).replace(replaced, by))
    with pytest.raises(GoldensError, match=r"x\.h5 has an index that this version cannot read"):
        GoldenFile.open(tmp_path / "x.h5")


@pytest.mark.parametrize(
    "change",
    [
        lambda index: index + b" ",
        lambda index: index.replace(b'"cached":false', b'"cached":false,"cached":false', 1),
        lambda index: index.replace(b'"cached":false', b'"cached": false', 1),
    ],
    ids=["more behind it", "a field twice", "room between"],
)
def test_nothing_hides_in_an_index(base: Path, tmp_path: Path, change) -> None:
    assert b'"cached":false' in _index(base)
    with_text(base, tmp_path / "x.h5", change(_index(base)))
    assert verify(tmp_path / "x.h5") == [
        "the index says something twice, or has room for something that is not read"
    ]


def test_a_digest_that_is_not_that_of_the_contents(base: Path, tmp_path: Path) -> None:
    digest = msgspec.json.decode(_index(base))["digest"].encode()
    with_text(base, tmp_path / "x.h5", _index(base).replace(digest, digest[::-1]))
    with pytest.raises(GoldensError, match=r"x\.h5 has a digest that is not that of its contents"):
        GoldenFile.open(tmp_path / "x.h5")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"format 1", b"format 0"),
        (b"format 1", b"format 01"),
        (b"index ", b"index +"),
        (b"\n    ", b"\nx   "),
    ],
)
def test_a_header_is_written_in_one_way(base: Path, tmp_path: Path, old: bytes, new: bytes) -> None:
    content = base.read_bytes()
    header = content[:USER_BLOCK].replace(old, new, 1)[:USER_BLOCK]
    assert header != content[:USER_BLOCK]
    (tmp_path / "x.h5").write_bytes(header + content[USER_BLOCK:])
    with pytest.raises(GoldensError, match=r"x\.h5 has a damaged header"):
        GoldenFile.open(tmp_path / "x.h5")


def test_hdf5_that_crashes_takes_nothing_with_it(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ends the process that reads HDF5: here, one that is no Python."""
    monkeypatch.setattr("sys.executable", "/bin/false")
    assert verify(base) == ["HDF5 cannot read it: it ended with 1"]
