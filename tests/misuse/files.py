"""What is wrong with golden files, histories and runs that were kept."""

import json
from collections.abc import Callable
from pathlib import Path

from tests.misuse.misuse import Change, Misuse, Section

SHOW, REPLAY = "goldens show tiny.h5", "goldens replay tiny.h5"
NO_RUN = {
    "format": 1,
    "golden": "tiny.h5",
    "port": "my_port:make",
    "verdict": "pass",
    "counts": {},
    "first_wrong": None,
    "results": [],
    "explanations": [],
    "notes": [],
}


def _bytes(edit: Callable[[bytes], bytes], name: str = "tiny.h5") -> Change:
    def change(project: Path) -> None:
        path = project / name
        path.write_bytes(edit((project / "tiny.h5").read_bytes()))

    return change


def _flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def _index(content: bytes) -> int:
    """Where the index begins."""
    return int(content.split(b"\n")[2].split(b" ")[1])


def _with_index(content: bytes, old: bytes, new: bytes) -> bytes:
    """The index with a text in it replaced by one as long, and its digest made right again."""
    import hashlib

    head = content.split(b"\n")[2].split(b" ")
    start, size = int(head[1]), int(head[2])
    assert len(old) == len(new)
    assert old in content[start : start + size]
    index = content[start : start + size].replace(old, new, 1)
    content = content[:start] + index + content[start + size :]
    return content.replace(head[3], hashlib.sha256(index).hexdigest().encode(), 1)


def _other_golden(project: Path) -> None:
    from harness.store.reader import GoldenFile

    file = GoldenFile.open(project / "tiny.h5")
    place = file.tensors[file.contents.goldens[0].output].offset
    _bytes(lambda content: _flipped(content, place))(project)


def _of_a_port(project: Path) -> None:
    from tests.fakes import write_golden

    write_golden(project / "tiny.h5.new", provenance={"port": "my_port:make"})


def _run(**other: object) -> dict[str, str]:
    return {"run.json": json.dumps(NO_RUN | other)}


GOLDEN_FILES = Section(
    "Golden files",
    "Every byte is checked before it is used.",
    (
        Misuse("an empty file", SHOW, "tiny.h5 is not a golden file: it is empty", files={"tiny.h5": ""}),
        Misuse(
            "a file of another kind",
            "goldens show suite.toml",
            "suite.toml is not a golden file: expected a file written by `goldens record`",
        ),
        Misuse(
            "a file of a version to come",
            SHOW,
            "tiny.h5 has golden file format 9, and this version reads up to 1: upgrade it",
            change=_bytes(lambda content: content.replace(b"format 1", b"format 9", 1)),
        ),
        Misuse(
            "a header with other words",
            SHOW,
            "tiny.h5 has a damaged header: copy it again, or record it again",
            change=_bytes(lambda content: content.replace(b"\nindex ", b"\nIndex ", 1)),
        ),
        Misuse(
            "a file that is cut short",
            SHOW,
            "tiny.h5 has 17818 bytes where 17819 were written: copy it again, or record it again",
            change=_bytes(lambda content: content[:-1]),
        ),
        Misuse(
            "a bit of the index that is another",
            SHOW,
            "tiny.h5 has a damaged index: copy it again, or record it again",
            change=_bytes(lambda content: _flipped(content, _index(content) + 9)),
        ),
        Misuse(
            "a bit of a golden that is another",
            REPLAY,
            "tiny.h5 is damaged at /goldens/float32/hello/embed_tokens/output: it does not hash to what was recorded; copy it again, or record it again",
            change=_other_golden,
        ),
        Misuse(
            "an index of something else",
            SHOW,
            "tiny.h5 has an index that this version cannot read (Object contains unknown field `nothing-`): record it again",
            change=_bytes(lambda content: _with_index(content, b'"contents"', b'"nothing-"')),
        ),
        Misuse(
            "a pending recording that is damaged",
            "goldens accept tiny.h5",
            "tiny.h5.new is damaged: HDF5 cannot read it: ...; record it again, or reject it",
            change=_bytes(lambda content: _flipped(content, 600), "tiny.h5.new"),
        ),
        Misuse(
            "a port's recording in place of the reference's",
            "goldens accept tiny.h5",
            "tiny.h5 was recorded from the reference, and this recording is from a port: give it another name",
            change=_of_a_port,
        ),
    ),
)

KEPT = Section(
    "Histories and runs that were kept",
    "What `goldens history` and `goldens report` read.",
    (
        Misuse(
            "a history that is not there",
            "goldens history",
            "the history goldens/history.jsonl cannot be read: No such file or directory; `goldens replay --history goldens/history.jsonl` begins one",
        ),
        Misuse(
            "a line that is no JSON",
            "goldens history runs.jsonl",
            "runs.jsonl, line 1, is no JSON (...): name a history, or take the line out",
            files={"runs.jsonl": "passed\n"},
        ),
        Misuse(
            "a line that is no run",
            "goldens history runs.jsonl",
            "runs.jsonl, line 1, is no run of a history: Object missing required field `format`",
            files={"runs.jsonl": '{"verdict": "pass"}\n'},
        ),
        Misuse(
            "runs that are no JSON",
            "goldens report run.json -o run.html",
            "run.json is not what `goldens replay --json` writes: ...",
            files={"run.json": "passed"},
        ),
        Misuse(
            "no run at all",
            "goldens report run.json -o run.html",
            "run.json has no run: expected what `goldens replay --json` writes",
            files={"run.json": "\n"},
        ),
        Misuse(
            "a run of a version to come",
            "goldens report run.json -o run.html",
            "run.json has format 9, and this version reads 1",
            files=_run(format=9),
        ),
        Misuse(
            "a run that contradicts itself",
            "goldens report run.json -o run.html",
            "run.json contradicts itself: write it again with `goldens replay --json`",
            files=_run(
                first_wrong={"component": "norm", "case": "a", "dtype": "float32", "mode": "isolated"}
            ),
        ),
    ),
)
