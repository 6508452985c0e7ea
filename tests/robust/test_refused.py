"""What must not be in a golden file is refused, by a sentence, whoever wrote it: here every digest holds."""

import random
import re
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


def _tensor(index, **changed):
    index["tensors"][0].update(changed)


def _golden(index, **changed):
    index["contents"]["goldens"][1].update(changed)


def _again(index, kind):
    entries = index["contents"][kind]
    entries.append(entries[0])


FACT = {"component": "config.x", "family": "config", "case": "checkpoint", "given": 1, "expected": 1}
NONSENSE = {
    "it has format 0, and the header says 1": lambda index: index.update(format=0),
    r"'/cases/\\x1b' is no name of a tensor": lambda index: _tensor(index, path="/cases/\x1b"),
    "'cases' is no name of a tensor": lambda index: _tensor(index, path="cases"),
    r"a tensor of shape \(2, 3\) repeats 2 times": lambda index: _tensor(index, repeats=2),
    r"a tensor of shape \(2, 2048\) repeats 2048 times": lambda index: _tensor(
        index, repeats=2048, shape=[2, 2048]
    ),
    r"a tensor of shape \(6,\) repeats 2 times": lambda index: _tensor(index, repeats=2, shape=[6]),
    "a tensor has dtype 'object'": lambda index: _tensor(index, dtype="object"),
    r"a tensor has 48 bytes for int64 of shape \(2, 4\)": lambda index: _tensor(index, shape=[2, 4]),
    r"a tensor has 0 bytes for int64 of shape \(2, 0\)": lambda index: _tensor(index, shape=[2, 0], nbytes=0),
    "48 bytes at 2600 reach past 2624, where something else begins": lambda index: _tensor(
        index, offset=2600
    ),
    "0 bytes at 512 reach past 504": lambda index: _tensor(index, offset=504),
    "48 bytes at 10000000 reach past": lambda index: _tensor(index, offset=10_000_000),
    "'..' is no name of a case": lambda index: index["contents"]["cases"][0].update(name=".."),
    "'a/b' is no name of a component": lambda index: index["contents"]["components"][0].update(name="a/b"),
    "component 'embed_tokens' is there twice": lambda index: _again(index, "components"),
    "case 'hello' is there twice": lambda index: _again(index, "cases"),
    r"golden \('embed_tokens', 'hello', 'float32'\) is there twice": lambda index: _again(index, "goldens"),
    "fact .* is there twice": lambda index: index["contents"].update(facts=[FACT, FACT]),
    "fact 'config.x' of 'checkpoint', family 'os'": lambda index: index["contents"].update(
        facts=[FACT | {"family": "os"}]
    ),
    "provenance: Expected `str`, got `int`": lambda index: index["contents"]["provenance"].update(port=1),
    "it refers to tensor 99, and has": lambda index: _golden(index, output=99),
    "it refers to tensor -1, and has": lambda index: _golden(index, exact=-1),
    "a golden of 'nobody' in 'hello', 'float32': not all": lambda index: _golden(index, component="nobody"),
    "a golden of 'layers.0.q_proj' in 'far', 'float32': not all": lambda index: _golden(index, case="far"),
    "a golden of 'layers.0.q_proj' in 'hello', 'int32': not all": lambda index: _golden(index, dtype="int32"),
    "case 'hello' has not all of": lambda index: index["contents"]["cases"][0]["inputs"].pop("positions"),
    r"a golden of B T O in case 'hello' has shape \(2, 3\)": lambda index: _golden(index, output=0),
}


@pytest.mark.parametrize("sentence", NONSENSE)
def test_each_kind_of_nonsense_has_its_sentence(base: Path, tmp_path: Path, sentence: str) -> None:
    """What one check would let through, another may refuse by chance: so each is held to its own words."""
    with_index(base, tmp_path / "x.h5", NONSENSE[sentence])
    with pytest.raises(GoldensError, match=rf"x\.h5 has an index that makes no sense \({sentence}"):
        GoldenFile.open(tmp_path / "x.h5")


ACT = r"/goldens/float32/hello/layers\.0\.act"
Q_PROJ = r"/goldens/float32/hello/layers\.0\.q_proj/output"
HEAD = r"/goldens/float32/hello/lm_head"
DISAGREEMENTS = {
    "soft_link_to_the_same": f"{ACT}/inputs/x is a link to a name or out of the file",
    "external_link_to_the_same": f"{ACT}/inputs/x is a link to a name or out of the file",
    "chunks": f"{Q_PROJ} is stored in chunks, through filters or outside the file",
    "external_storage": f"{Q_PROJ} is stored in chunks, through filters or outside the file",
    "other_shape": rf"{Q_PROJ} has shape \(2, 3, 4, 1\) in HDF5 and \(2, 3, 4\) in the index",
    "nothing": rf"{Q_PROJ} has shape None in HDF5 and \(2, 3, 4\) in the index",
    "other_type": f"{Q_PROJ} is not float32 in HDF5, as the index says",
    "other_tensor": rf"{Q_PROJ} lies at \d+ in HDF5 and at \d+ in the index",
    "group_for_a_tensor": f"{Q_PROJ} is no dataset in HDF5",
    "tensor_for_a_group": "/cases is no group in HDF5",
    "surplus": "/goldens/float32/hello/layers.0.q_proj/extra is in HDF5 and not in the index",
    "missing": f"{Q_PROJ} is in the index and not in HDF5",
    "attribute": f"the attributes of {Q_PROJ} in HDF5 are not those that the index says",
    "no_floor": f"the attributes of {HEAD} in HDF5 are not those that the index says",
    "other_floor": f"the floors at {HEAD} in HDF5 are not what the index says",
    "floor_of_another_type": f"the floors at {HEAD} in HDF5 are not what the index says",
    "other_config": "/config in HDF5 is not what the index says",
    "huge_config": "/config in HDF5 is no text as long as the index says",
}


@pytest.mark.parametrize("change", DISAGREEMENTS)
def test_each_disagreement_of_hdf5_has_its_sentence(base: Path, tmp_path: Path, change: str) -> None:
    target = tmp_path / "x.h5"
    with_hdf5(base, target, lambda file: getattr(hdf5_changed, change)(file, PAYLOAD))
    assert any(re.fullmatch(DISAGREEMENTS[change], each) for each in disagreements(GoldenFile.open(target)))


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
        (b'"whole":3e-7', b'"whole":-3e-7'),
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
        "floor negative",
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


def test_room_between_header_and_hdf5(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is in the file is where the index says, and so is what nobody reads."""
    monkeypatch.setattr("harness.store.writer.USER_BLOCK", 2 * USER_BLOCK)
    write_golden(tmp_path / "x.h5")
    assert verify(tmp_path / "x.h5") == ["HDF5 does not begin at 512"]


def test_hdf5_that_crashes_takes_nothing_with_it(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ends the process that reads HDF5: here, one that is no Python."""
    monkeypatch.setattr("sys.executable", "/bin/false")
    assert verify(base) == ["HDF5 cannot read it: it ended with 1"]
