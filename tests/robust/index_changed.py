"""Nonsense in the index of a golden file: each of these is refused, although every digest holds."""

import random
from collections.abc import Callable, Iterator
from typing import Any

Change = Callable[[random.Random, Any], None]

HUGE = (2**31, 2**63, 2**64, 2**70, 10**30)
NAMES = ("", ".", "..", "a/b", "../x", "a\nb", "a\x1b[31m", "a\0b", "\u202eb")
WRONG_TYPES: tuple[Any, ...] = (None, True, 1.5, "1", [], {}, [[]], -1, {"a": [1]}, "NaN")


def _rows(index: Any) -> list[tuple[Any, Any]]:
    """Where rows of the tensor table are referred to: (what holds the number, its key)."""
    contents = index["contents"]
    inputs = [each["inputs"] for each in (*contents["cases"], *contents["goldens"])]
    found = [(each, key) for each in inputs for key in each]
    return found + [(each, "output") for each in contents["goldens"]]


def _floors(index: Any) -> Iterator[Any]:
    for golden in index["contents"]["goldens"]:
        for floor in (golden["end_to_end"], golden["isolated"]):
            if floor:
                yield from floor.values()


def wrong_type(draw: random.Random, index: Any) -> None:
    """Something that is counted on, replaced by something of another type."""
    contents = index["contents"]
    held: list[tuple[Any, Any]] = [(index, key) for key in ("format", "digest", "contents", "tensors")]
    held += [(contents, key) for key in contents]
    for each in (*index["tensors"], *contents["cases"], *contents["goldens"], *contents["components"]):
        held += [(each, key) for key in each if key not in ("isolated", "exact", "step", "composite_of")]
    where, key = draw.choice(held)
    old = where[key]
    where[key] = draw.choice([new for new in WRONG_TYPES if _kind(new) is not _kind(old)])


def _kind(value: Any) -> type:
    return type(value)


def row_out_of_range(draw: random.Random, index: Any) -> None:
    where, key = draw.choice(_rows(index))
    count = len(index["tensors"])
    where[key] = draw.choice((-1, -count, count, count + draw.randrange(1000), *HUGE))


def extent(draw: random.Random, index: Any) -> None:
    tensor = draw.choice(index["tensors"])
    key = draw.choice(("offset", "nbytes"))
    wrong = (-1, -8, 0, 8, 511, tensor[key] + 10**6, tensor[key] - 10**6, *HUGE)
    tensor[key] = draw.choice([other for other in wrong if other != tensor[key]])


def overlap(draw: random.Random, index: Any) -> None:
    """One payload in the place of another."""
    one, other = draw.sample(index["tensors"], 2)
    one["offset"] = other["offset"] + draw.randrange(other["nbytes"])


def shape(draw: random.Random, index: Any) -> None:
    tensor = draw.choice(index["tensors"])
    tensor["shape"] = draw.choice(
        (
            [],
            [0],
            [-1],
            [2**40],
            [2**31, 2**31],
            [*tensor["shape"], 2],
            [-1, *tensor["shape"]],
            [1] * 40 + [7],
        )
    )


def repeats(draw: random.Random, index: Any) -> None:
    tensor = draw.choice(index["tensors"])
    tensor["repeats"] = draw.choice((0, -1, 2, 7, 2**20, *HUGE))


def dtype(draw: random.Random, index: Any) -> None:
    tensor = draw.choice(index["tensors"])
    wrong = ("object", "O", "V8", "float", "complex64", "<f4", "f4,f4", "float64", "int64", "")
    tensor["dtype"] = draw.choice([other for other in wrong if other != tensor["dtype"]])


def floor(draw: random.Random, index: Any) -> None:
    views = draw.choice(list(_floors(index)))
    views[draw.choice(list(views))] = draw.choice((-1.0, -1e-300, None, "NaN", [1.0]))


def name(draw: random.Random, index: Any) -> None:
    kind = draw.choice(("components", "cases"))
    draw.choice(index["contents"][kind])["name"] = draw.choice(NAMES)


def path(draw: random.Random, index: Any) -> None:
    draw.choice(index["tensors"])["path"] = draw.choice((*NAMES, "/cases/../x", "/index", "/goldens"))


def argument(draw: random.Random, index: Any) -> None:
    contents = index["contents"]
    inputs = draw.choice(
        [each["inputs"] for each in (*contents["cases"], *contents["goldens"]) if each["inputs"]]
    )
    inputs[draw.choice(NAMES)] = inputs.pop(draw.choice(list(inputs)))


def duplicate(draw: random.Random, index: Any) -> None:
    kind = draw.choice(("components", "cases", "goldens"))
    entries = index["contents"][kind]
    entries.insert(draw.randrange(len(entries) + 1), dict(draw.choice(entries)))


def unknown_name(draw: random.Random, index: Any) -> None:
    golden = draw.choice(index["contents"]["goldens"])
    golden[draw.choice(("component", "case", "dtype", "tokens"))] = draw.choice(
        ("nobody", "", "float64", "..", "layers")
    )


def unknown_field(draw: random.Random, index: Any) -> None:
    contents = index["contents"]
    lists = (
        index["tensors"],
        contents["cases"],
        contents["goldens"],
        contents["components"],
        [index],
        [contents],
    )
    draw.choice(draw.choice(lists))[draw.choice(("extra", "__class__", "$ref", "path2"))] = draw.choice(
        WRONG_TYPES
    )


def missing_field(draw: random.Random, index: Any) -> None:
    contents = index["contents"]
    required = (
        *((each, ("path", "dtype", "shape", "offset", "nbytes", "sha256")) for each in index["tensors"]),
        *(
            (each, ("component", "case", "dtype", "output", "inputs", "end_to_end"))
            for each in contents["goldens"]
        ),
        *((each, ("name", "origin", "inputs")) for each in contents["cases"]),
        *((each, ("name", "kind", "axes")) for each in contents["components"]),
        (index, ("format", "digest", "contents", "tensors")),
        (contents, ("provenance", "config", "components", "cases", "goldens")),
    )
    where, keys = draw.choice(required)
    del where[draw.choice(keys)]


def exchanged_rows(draw: random.Random, index: Any) -> None:
    """A golden that refers to another's tensor: only HDF5 tells, or a shape."""
    rows = _rows(index)
    (one, this), (other, that) = draw.choice(rows), draw.choice(rows)
    while one[this] == other[that]:
        other, that = draw.choice(rows)
    one[this], other[that] = other[that], one[this]


def exchanged_tensors(draw: random.Random, index: Any) -> None:
    one, other = draw.sample(range(len(index["tensors"])), 2)
    tensors = index["tensors"]
    tensors[one], tensors[other] = tensors[other], tensors[one]


def dropped_tensor(draw: random.Random, index: Any) -> None:
    del index["tensors"][draw.randrange(len(index["tensors"]))]


def digest(draw: random.Random, index: Any) -> None:
    draw.choice(index["tensors"])["sha256"] = draw.choice(("", "0" * 64, "z" * 64, "A" * 64, "0" * 10**5))


def provenance(draw: random.Random, index: Any) -> None:
    key = draw.choice(("checkpoint", "checkpoint_is", "checkpoint_files", "versions", "modules", "port"))
    index["contents"]["provenance"][key] = draw.choice((None, 1, [1], {"a": 1}, ["a"], 1.5))


def family(draw: random.Random, index: Any) -> None:
    fact = {"component": "config.x", "family": "config", "case": "checkpoint", "given": 1, "expected": 1}
    wrong = draw.choice(
        ({"family": "os"}, {"family": ""}, {"component": "a\x1b"}, {"case": "a\nb"}, {"extra": 1})
    )
    index["contents"]["facts"] = [fact | wrong]


CHANGES: tuple[Change, ...] = (
    wrong_type,
    wrong_type,
    row_out_of_range,
    extent,
    overlap,
    shape,
    repeats,
    dtype,
    floor,
    name,
    path,
    argument,
    duplicate,
    unknown_name,
    unknown_field,
    missing_field,
    exchanged_rows,
    exchanged_tensors,
    dropped_tensor,
    digest,
    provenance,
    family,
)
