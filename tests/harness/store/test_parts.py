"""Parts of a recording: used where they are whole and of what is asked for, and joined as if written in one go."""

import pytest

from harness.errors import GoldensError
from harness.store.parts import Parts, found, remove
from harness.store.reader import GoldenFile
from harness.store.writer import GoldenWriter
from tests.fakes import join, write_golden, write_part

OF = {"checkpoint": {"model": "1"}, "input": [1, 2]}


@pytest.fixture
def told():
    return []


@pytest.fixture
def folder(tmp_path, told):
    """With the parts `hello` and `again`."""
    parts = Parts(tmp_path / "g.h5.parts", told.append)
    parts.take_over({"hello": OF, "again": OF})
    for seed, case in enumerate(("hello", "again")):
        parts.part(case, lambda writer, case=case, seed=seed: write_part(writer, case, seed))
    assert told == [], "nothing was there"
    return parts.folder


def never(writer):
    raise AssertionError("it is there")


def test_parts_that_are_there_are_not_recorded_again(folder, told):
    parts = Parts(folder, told.append)
    parts.take_over({"hello": OF, "again": OF, "third": OF})
    assert told == ["resumed: 2 of 3 parts were there"]
    assert parts.has("hello")
    assert not parts.has("third")
    assert parts.part("hello", never).contents.cases[0].name == "hello"


@pytest.mark.parametrize(
    ("of", "what"),
    [
        ({"checkpoint": {"model": "2"}, "input": [1, 2]}, "is of another checkpoint"),
        ({"checkpoint": {"model": "2"}, "input": (2, 1)}, "is of another checkpoint and another input"),
        (OF | {"machine": "x"}, "is of another machine"),
    ],
)
def test_a_part_of_something_else_is_told_and_not_used(folder, told, of, what):
    parts = Parts(folder, told.append)
    parts.take_over({"hello": of})
    assert told == [
        f"{folder / 'hello.part'}: {what}, so it is recorded again",
        "resumed: 0 of 1 parts were there",
    ]
    assert not parts.has("hello")


def flipped(path):
    content, place = bytearray(path.read_bytes()), GoldenFile.open(path).tensors[-1].offset
    content[place] ^= 1
    return content


DAMAGES = [flipped, lambda path: path.read_bytes()[:3000], lambda path: b"", lambda path: b"half"]


@pytest.mark.parametrize("damage", DAMAGES, ids=["flipped", "cut", "empty", "something else"])
def test_a_damaged_part_is_told_and_not_used(folder, told, damage):
    path = folder / "hello.part"
    path.write_bytes(damage(path))
    parts = Parts(folder, told.append)
    parts.take_over({"hello": OF})
    assert told[0] == f"{path}: is damaged, so it is recorded again"
    assert not parts.has("hello")
    parts.part("hello", lambda writer: write_part(writer, "hello", 0))
    again = Parts(folder, told.append)
    again.take_over({"hello": OF})
    assert again.has("hello")


def test_a_golden_file_of_something_else_is_no_part(folder, told):
    write_golden(folder / "hello.part")
    Parts(folder, told.append).take_over({"hello": OF})
    assert told[0] == f"{folder / 'hello.part'}: is no part of a recording, so it is recorded again"


def test_what_is_joined_is_what_one_go_writes(folder, told, tmp_path):
    parts = Parts(folder, told.append)
    parts.take_over({"hello": OF, "again": OF})
    with GoldenWriter(tmp_path / "g.h5") as writer:
        writer.finish(join(writer, parts, ("hello", "again"), {}))
    parts.refuse_unless_in(GoldenFile.open(tmp_path / "g.h5"))
    write_golden(tmp_path / "whole.h5", cases=("hello", "again"))
    assert (tmp_path / "g.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()
    write_golden(tmp_path / "other.h5", cases=("again", "hello"))
    with pytest.raises(GoldensError, match=r"other\.h5 is not what its parts in .*\.parts are: /cases/"):
        parts.refuse_unless_in(GoldenFile.open(tmp_path / "other.h5"))


def test_only_parts_are_removed(folder):
    (folder / "notes.txt").write_text("mine")
    remove(folder)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    (folder / "notes.txt").unlink()
    remove(folder)
    assert not folder.exists()
    remove(folder)
    assert found(folder) == []


def test_a_folder_that_cannot_be(tmp_path, told):
    (tmp_path / "g.h5.parts").write_text("a file")
    with pytest.raises(GoldensError, match=r"g\.h5\.parts is there, and is no folder of"):
        Parts(tmp_path / "g.h5.parts", told.append)
