"""What goes into a golden file comes out of it, and nothing else does."""

import os
import subprocess
import sys
from pathlib import Path

import h5py
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from harness.errors import GoldensError
from harness.model import Case, Contents, Golden
from harness.store.layout import FORMAT, MAGIC, USER_BLOCK
from harness.store.reader import GoldenFile
from harness.store.tree import disagreements
from harness.store.verify import verify
from harness.store.writer import GoldenWriter
from tests.fakes import COMPONENTS, NumpyPort, case_inputs, floor, write_golden


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.h5"
    write_golden(path, dtypes=("float32", "bfloat16"), cases=("hello", "padded"))
    return path


DTYPES = [np.dtype(d) for d in ("float16", "float32", "float64", "int32", "int64")] + [
    np.dtype(ml_dtypes.bfloat16)
]


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    """Any shape and any bits: NaN, infinities and subnormals too."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(npst.array_shapes(min_dims=0, max_dims=4, max_side=5))
    raw = draw(npst.arrays(np.uint8, (*shape, dtype.itemsize)))
    return np.frombuffer(raw.tobytes(), dtype).reshape(shape)


@settings(max_examples=60)
@given(values=st.lists(arrays(), min_size=1, max_size=6))
def test_any_array_comes_back_bit_by_bit(
    tmp_path_factory: pytest.TempPathFactory, values: list[np.ndarray]
) -> None:
    path = tmp_path_factory.mktemp("any") / "any.h5"
    with GoldenWriter(path) as writer:
        rows = {f"a{i}": writer.tensor(f"cases/any/a{i}", value) for i, value in enumerate(values)}
        writer.finish(Contents({}, {}, [], [], [Case("any", "randomized", "", rows)], []))
    read = GoldenFile.open(path).case_inputs("any")
    for i, value in enumerate(values):
        assert read[f"a{i}"].dtype == value.dtype
        assert read[f"a{i}"].shape == value.shape
        assert read[f"a{i}"].tobytes() == value.tobytes()
        assert read[f"a{i}"].flags.aligned
        assert not read[f"a{i}"].flags.writeable
    assert disagreements(GoldenFile.open(path)) == []


def test_a_transposed_view_is_written_as_it_is_indexed(tmp_path: Path) -> None:
    value = np.arange(6, dtype=np.float32).reshape(2, 3).T
    with GoldenWriter(tmp_path / "t.h5") as writer:
        row = writer.tensor("cases/c/x", value)
        writer.finish(Contents({}, {}, [], [], [Case("c", "prompt", "", {"x": row})], []))
    np.testing.assert_array_equal(GoldenFile.open(tmp_path / "t.h5").tensor(row), value)


def test_what_heads_share_is_written_once_and_read_for_each(tmp_path: Path) -> None:
    value = np.arange(24, dtype=np.float32).reshape(2, 3, 4).repeat(2, axis=1)
    value[0, 2:4] = np.nan
    with GoldenWriter(tmp_path / "r.h5") as writer:
        row = writer.tensor("cases/c/x", value, repeats=2)
        writer.finish(Contents({}, {}, [], [], [Case("c", "prompt", "", {"x": row})], []))
    file = GoldenFile.open(tmp_path / "r.h5")
    assert file.tensors[row].nbytes == value.nbytes // 2
    np.testing.assert_array_equal(file.tensor(row), value)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("heads", [4, 5])
def test_what_heads_do_not_share_is_not_written_once(tmp_path: Path, dtype: np.dtype, heads: int) -> None:
    """One element of one head is another, or there is a head too many."""
    value = np.ones((2, 2, 3), dtype).repeat(2, axis=1)[:, [0, 1, 2, 3, 3][:heads]]
    value[1, 3, 2] = 2 if heads == 4 else 1
    with (
        GoldenWriter(tmp_path / "r.h5") as writer,
        pytest.raises(ValueError, match="each entry 2 times in a row"),
    ):
        writer.tensor("cases/c/x", value, repeats=2)


def test_contents_come_back(tmp_path: Path) -> None:
    contents = write_golden(tmp_path / "tiny.h5")
    golden_file = GoldenFile.open(tmp_path / "tiny.h5")
    assert golden_file.contents == contents
    head = next(golden for golden in contents.goldens if golden.component == "lm_head")
    outputs = NumpyPort().trace(case_inputs(0), ["lm_head", "layers.0.act"])
    np.testing.assert_array_equal(golden_file.output(head), outputs["lm_head"])
    np.testing.assert_array_equal(golden_file.inputs(head)["x"], outputs["layers.0.act"])


def test_h5py_reads_numbers(path: Path) -> None:
    golden_file = GoldenFile.open(path)
    with h5py.File(path) as content:
        for golden in golden_file.contents.goldens:
            dataset = content[f"goldens/{golden.dtype}/{golden.case}/{golden.component}/output"]
            assert dataset.dtype.kind == "f"
            np.testing.assert_array_equal(dataset[...], golden_file.output(golden).astype(np.float32))
        floor = content["goldens/float32/hello/lm_head"].attrs["isolated_measured_floor"]
        assert floor["whole"] == 1e-7
        assert '"hidden_size": 4' in content["config"][()].decode()


def test_a_linked_tensor_takes_no_room(path: Path) -> None:
    with h5py.File(path) as content:
        group = content["goldens/float32/hello"]
        output = group["layers.0.act/output"].id.get_offset()
        assert group["lm_head/inputs/x"].id.get_offset() == output
        assert group["layers.0/output"].id.get_offset() == output


def test_two_recordings_of_the_same_thing_are_the_same(tmp_path: Path) -> None:
    for name, time in (("a", "2030-01-01"), ("b", "2030-01-01"), ("c", "2040-10-10")):
        write_golden(tmp_path / name, provenance={"recorded_at": time})
    a, b, c = (GoldenFile.open(tmp_path / name) for name in "abc")
    assert a.digest == b.digest == c.digest
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    "change", [{"cases": ("other",)}, {"dtypes": ("bfloat16",)}, {"provenance": {"torch": "9"}}]
)
def test_other_contents_have_another_digest(tmp_path: Path, change: dict) -> None:
    write_golden(tmp_path / "a")
    write_golden(tmp_path / "b", **change)
    assert GoldenFile.open(tmp_path / "a").digest != GoldenFile.open(tmp_path / "b").digest


def test_nothing_in_hdf5_tells_the_time(path: Path) -> None:
    """A second apart, two recordings would differ in it."""
    times: dict[str, int] = {}
    with h5py.File(path) as content:
        content.visititems(lambda name, member: times.__setitem__(name, h5py.h5o.get_info(member.id).mtime))
    assert len(times) > 40
    assert set(times.values()) == {0}


def test_who_reads_the_older_file_keeps_it(path: Path) -> None:
    reading = GoldenFile.open(path)
    write_golden(path, cases=("other",))
    for row in range(len(reading.tensors)):
        reading.tensor(row)
    assert GoldenFile.open(path).digest != reading.digest


@pytest.mark.parametrize(
    ("size", "times", "sentence"),
    [
        (1e-7, 2, "/goldens/float32/c/norm is there twice"),
        (float("inf"), 1, "norm in c, float32: floor .* finite"),
    ],
)
def test_goldens_must_make_sense(tmp_path: Path, size: float, times: int, sentence: str) -> None:
    golden = Golden("norm", "c", "float32", 0, {}, floor(size))
    with GoldenWriter(tmp_path / "t.h5") as writer:
        writer.tensor("goldens/float32/c/norm/output", np.ones(3, np.float32))
        with pytest.raises(ValueError, match=sentence):
            writer.finish(Contents({}, {}, [], [], [], [golden] * times))


def test_nothing_appears_before_finish(tmp_path: Path) -> None:
    path = tmp_path / "tiny.h5"
    with GoldenWriter(path) as writer:
        writer.tensor("cases/c/x", np.ones(3, np.float32))
        assert not path.exists()
    assert list(tmp_path.iterdir()) == []


def test_an_error_leaves_the_older_file_alone(path: Path) -> None:
    before = path.read_bytes()

    def record() -> None:
        with GoldenWriter(path) as writer:
            writer.tensor("cases/c/x", np.ones(3, np.float32))
            raise RuntimeError("torch gave up")

    with pytest.raises(RuntimeError, match="torch"):
        record()
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    "written",
    [{"cases/c/x": 0, "cases/c/y": 1}, {"cases/c/y": 0}, {}],
    ids=["a tensor of no case", "under another name", "not written"],
)
def test_contents_must_be_what_was_written(tmp_path: Path, written: dict) -> None:
    with GoldenWriter(tmp_path / "t.h5") as writer:
        for name in written:
            writer.tensor(name, np.ones(3, np.float32))
        with pytest.raises(ValueError, match="disagree at /cases/c/"):
            writer.finish(Contents({}, {}, [], [], [Case("c", "prompt", "", {"x": 0})], []))


@pytest.mark.parametrize("value", [np.ones((0, 3), np.float32), np.ones(3, np.complex64), np.ones(3, bool)])
def test_what_cannot_be_a_golden_is_refused(tmp_path: Path, value: np.ndarray) -> None:
    with pytest.raises(ValueError, match="/cases/c/x"), GoldenWriter(tmp_path / "t.h5") as writer:
        writer.tensor("cases/c/x", value)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with (
        pytest.raises(GoldensError, match=r"cannot write .*t\.h5: .*choose a folder"),
        GoldenWriter(tmp_path / "no/t.h5"),
    ):
        pass


def _flip(path: Path, offset: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1 << bit
    path.write_bytes(content)


def test_a_flipped_bit_in_a_payload_is_found_when_it_is_read(path: Path) -> None:
    tensors = GoldenFile.open(path).tensors
    damaged = tensors[7]
    _flip(path, damaged.offset + damaged.nbytes - 1, bit=6)
    golden_file = GoldenFile.open(path)
    golden_file.tensor(8)
    with pytest.raises(GoldensError, match=f"damaged at {damaged.path}:"):
        golden_file.tensor(7)
    [problem] = verify(path)
    assert problem.startswith(f"{path} is damaged at {damaged.path}: ")


def test_what_is_read_ahead_is_read_once_and_refused_no_earlier_than_it_is_asked_for(path: Path) -> None:
    golden = GoldenFile.open(path).contents.goldens[0]
    damaged = GoldenFile.open(path).tensors[golden.output]
    _flip(path, damaged.offset, bit=1)
    golden_file = GoldenFile.open(path)
    rows: list[str] = []
    read = golden_file._read
    golden_file._read = lambda tensor: rows.append(tensor.path) or read(tensor)  # type: ignore[method-assign]
    golden_file.read_ahead(golden)
    golden_file.read_ahead(golden)
    golden_file.inputs(golden)
    with pytest.raises(GoldensError, match=f"damaged at {damaged.path}:"):
        golden_file.output(golden)
    assert sorted(rows) == sorted(
        {golden_file.tensors[row].path for row in (golden.output, *golden.inputs.values())}
    )


def test_a_flipped_bit_in_header_or_index_is_found_on_opening(path: Path) -> None:
    original = path.read_bytes()
    header_text = original[:USER_BLOCK].rstrip()
    index = int(header_text.split(b"\n")[2].split()[1])
    for offset in [*range(len(header_text)), *range(index, index + 400, 7)]:
        _flip(path, offset, bit=1)
        with pytest.raises(GoldensError, match=str(path)):
            GoldenFile.open(path)
        path.write_bytes(original)


@pytest.mark.parametrize("kept", [0, 100, USER_BLOCK, 5000, -1])
def test_a_cut_file_is_refused(path: Path, kept: int) -> None:
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(GoldensError, match=r"not a golden file|damaged header|bytes where"):
        GoldenFile.open(path)


def _make(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / "wrong.h5"
    if kind == "folder":
        path.mkdir()
    elif kind == "text":
        path.write_text("hello")
    elif kind == "hdf5":
        h5py.File(path, "w").close()
    elif kind == "newer":
        path.write_bytes(f"{MAGIC}\nformat {FORMAT + 1}\nsomething else\n".encode().ljust(USER_BLOCK))
    elif kind == "unreadable":
        path.symlink_to(path)
    return path


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("missing", "there is no golden file {path}: record it with `goldens record`"),
        ("folder", "{path} is a folder: name the golden file in it"),
        ("text", "{path} is not a golden file: expected a file written by `goldens record`"),
        ("hdf5", "{path} is not a golden file: expected a file written by `goldens record`"),
        ("newer", "{path} has golden file format 2, and this version reads up to 1: upgrade it"),
        ("unreadable", "cannot read {path}: Too many levels of symbolic links"),
    ],
)
def test_a_wrong_file_gets_one_sentence(tmp_path: Path, kind: str, sentence: str) -> None:
    path = _make(tmp_path, kind)
    with pytest.raises(GoldensError) as caught:
        GoldenFile.open(path)
    assert str(caught.value) == sentence.format(path=path)


def _names(golden_file: GoldenFile, **selection) -> list[tuple[str, str, str]]:
    return [(golden.dtype, golden.case, golden.component) for golden in golden_file.select(**selection)]


def test_selection_is_in_forward_order(path: Path) -> None:
    golden_file = GoldenFile.open(path)
    names = [component.name for component in COMPONENTS]
    everything = [(d, c, n) for d in ("float32", "bfloat16") for c in ("hello", "padded") for n in names]
    assert _names(golden_file) == everything
    assert _names(
        golden_file, include=["lm_head", "embed*"], exclude=["lm*"], cases=["padded"], dtypes=["bfloat16"]
    ) == [("bfloat16", "padded", "embed_tokens")]


@pytest.mark.parametrize(
    ("selection", "sentence"),
    [
        ({"include": ["layers.0.p_proj"]}, "matches 'layers.0.p_proj'; nearest: layers.0.q_proj"),
        ({"exclude": ["nothing*"]}, "matches 'nothing\\*'"),
        ({"cases": ["bye"]}, "case 'bye' was not recorded in .*; recorded: hello, padded"),
        ({"dtypes": ["float16"]}, "dtype 'float16' was not recorded in .*; recorded: float32, bfloat16"),
        ({"exclude": ["*"]}, "nothing that was asked for"),
    ],
)
def test_what_is_not_recorded_cannot_be_selected(path: Path, selection: dict, sentence: str) -> None:
    with pytest.raises(GoldensError, match=sentence):
        GoldenFile.open(path).select(**selection)


def test_collecting_imports_nothing_heavy(path: Path) -> None:
    code = (
        "import sys; from harness.store.reader import GoldenFile;"
        f"GoldenFile.open({str(path)!r}).select();"
        "print([m for m in ('numpy', 'h5py', 'ml_dtypes', 'jax', 'torch') if m in sys.modules])"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=os.getcwd()
    )
    assert shown.stdout.strip() == "[]"


def _offset_in_index(content: h5py.File) -> None:
    del content["goldens/float32/hello/lm_head/inputs/x"]
    content["goldens/float32/hello/lm_head/inputs/x"] = content["goldens/float32/hello/embed_tokens/output"]


def _surplus(content: h5py.File) -> None:
    content["goldens/float32/hello/lm_head/extra"] = np.ones(3)


def _removed(content: h5py.File) -> None:
    del content["cases/hello/positions"]


def _floor(content: h5py.File) -> None:
    del content["goldens/float32/hello/lm_head"].attrs["isolated_measured_floor"]


def _config(content: h5py.File) -> None:
    del content["config"]
    content["config"] = "{}"


@pytest.mark.parametrize(
    ("tamper", "finding"),
    [
        (_offset_in_index, "lm_head/inputs/x lies at"),
        (_surplus, "lm_head/extra is in HDF5 and not in the index"),
        (_removed, "/cases/hello/positions is in the index and not in HDF5"),
        (_floor, "the attributes of /goldens/float32/hello/lm_head in HDF5"),
        (_config, "/config in HDF5 is not what the index says"),
    ],
)
def test_verify_holds_hdf5_against_the_index(path: Path, tamper, finding: str) -> None:
    assert verify(path) == []
    with h5py.File(path, "r+") as content:
        tamper(content)
    block = path.read_bytes()[:USER_BLOCK].rstrip().rsplit(b" ", 1)[0] + f" {path.stat().st_size}\n".encode()
    path.write_bytes(block.ljust(USER_BLOCK - 1) + b"\n" + path.read_bytes()[USER_BLOCK:])
    assert any(finding in line for line in verify(path)), verify(path)
