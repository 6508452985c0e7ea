"""Whether an index makes sense: it says nothing that the file does not have, and nothing twice.

Its digest shows that it is what was written; this shows that it can be used, whoever wrote it. Imports nothing heavy.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise

import msgspec

from harness.errors import GoldensError
from harness.facts.table import FAMILIES
from harness.model import UNIT_ROUNDOFF, Contents, Tensor
from harness.store.layout import USER_BLOCK, Index, UserBlock

ITEMSIZE = {"bfloat16": 2, "float16": 2, "float32": 4, "float64": 8, "int32": 4, "int64": 8}
"""Every dtype that a golden file can hold, and the bytes of an element."""

MOST_REPEATS = 1024
"""What a payload may grow to when it is read has a bound."""

CASE_INPUTS = ("token_ids", "attention_mask", "positions", "query_index")
"""What every case has that goldens are recorded of."""


class _Provenance(msgspec.Struct):
    """The provenance that is used, and not only shown. Of what else there is, anything goes."""

    checkpoint: str = ""
    checkpoint_is: str = ""
    checkpoint_files: dict[str, str] = {}
    versions: dict[str, str] = {}
    modules: dict[str, str] = {}
    port: str = ""


def refuse_nonsense(index: Index, block: UserBlock, name: str) -> None:
    """Raises GoldensError with the first thing that cannot be so; `name` is what messages call the file."""
    problem = next(_problems(index, block), None)
    if problem:
        raise GoldensError(f"{name} has an index that makes no sense ({problem}): record it again")


def _problems(index: Index, block: UserBlock) -> Iterator[str]:
    if index.format != block.format:
        yield f"it has format {index.format}, and the header says {block.format}"
    yield from _of_tensors(index.tensors, block)
    yield from _of_names(index.contents)
    yield from _of_provenance(index.contents)
    yield from _of_rows(index.contents, len(index.tensors))
    yield from _of_goldens(index.contents, index.tensors)


def _of_tensors(tensors: Collection[Tensor], block: UserBlock) -> Iterator[str]:
    """Payloads lie in the file, one beside the other, and have the bytes that their shapes need."""
    for path in (each.path for each in tensors if not (each.path.isprintable() and each.path[:1] == "/")):
        yield f"{path!r} is no name of a tensor"
    for repeats, shape in {(each.repeats, each.shape) for each in tensors}:
        if repeats != 1 and (not 1 < repeats <= MOST_REPEATS or len(shape) < 2 or shape[1] % repeats):
            yield f"a tensor of shape {shape} repeats {repeats} times"
    for dtype, shape, nbytes in {(each.dtype, each.stored, each.nbytes) for each in tensors}:
        if dtype not in ITEMSIZE:
            yield f"a tensor has dtype {dtype!r}"
        elif min(shape, default=1) < 1 or nbytes != math.prod(shape) * ITEMSIZE[dtype]:
            yield f"a tensor has {nbytes} bytes for {dtype} of shape {shape}"
    extents = [(block.index_offset, block.index_nbytes), *((each.offset, each.nbytes) for each in tensors)]
    ends = [(USER_BLOCK, 0), *sorted(extents), (block.file_nbytes, 0)]
    for (offset, nbytes), (following, _) in pairwise(ends):
        if offset + nbytes > following:
            yield f"{nbytes} bytes at {offset} reach past {following}, where something else begins"


def _of_names(contents: Contents) -> Iterator[str]:
    named = (
        ("component", [component.name for component in contents.components]),
        ("case", [case.name for case in contents.cases]),
        ("input", {name for case in contents.cases for name in case.inputs}),
        ("input", {name for golden in contents.goldens for name in golden.inputs}),
    )
    for what, names in named:
        for name in names:
            if not _is_path(f"/{name}") or "/" in name:
                yield f"{name!r} is no name of a {what}"
        yield from _twice(what, names)
    yield from _twice("golden", [(each.component, each.case, each.dtype) for each in contents.goldens])
    yield from _twice("fact", [(each.component, each.case, each.dtype) for each in contents.facts])
    for fact in contents.facts:
        if fact.family not in FAMILIES or not (fact.component + fact.case).isprintable():
            yield f"fact {fact.component!r} of {fact.case!r}, family {fact.family!r}"


def _is_path(path: str) -> bool:
    """Steps that are names, each after a slash: none empty, `.` or `..`, and no control characters."""
    first, *steps = path.split("/")
    return not first and path.isprintable() and bool(steps) and not {"", ".", ".."} & {*steps}


def _twice(what: str, names: Collection[object]) -> Iterator[str]:
    if len(set(names)) < len(names):
        again = next(name for name, times in Counter(names).items() if times > 1)
        yield f"{what} {again!r} is there twice"


def _of_provenance(contents: Contents) -> Iterator[str]:
    try:
        msgspec.convert(contents.provenance, _Provenance)
    except msgspec.ValidationError as error:
        yield f"provenance: {error}"


def _of_rows(contents: Contents, tensors: int) -> Iterator[str]:
    rows = {row for case in contents.cases for row in case.inputs.values()}
    rows.update(row for each in contents.goldens for row in (each.output, *each.inputs.values()))
    rows.update(each.exact for each in contents.goldens if each.exact is not None)
    for row in rows:
        if not 0 <= row < tensors:
            yield f"it refers to tensor {row}, and has {tensors}"


def _of_goldens(contents: Contents, tensors: Sequence[Tensor]) -> Iterator[str]:
    """Each is of a component, a case and a dtype that are there, and as large as they say."""
    axes = {component.name: component.axes for component in contents.components}
    cases = {case.name: case for case in contents.cases}
    shapes = set()
    for golden in contents.goldens:
        if golden.component not in axes or golden.case not in cases or golden.dtype not in UNIT_ROUNDOFF:
            yield f"a golden of {golden.component!r} in {golden.case!r}, {golden.dtype!r}: not all of them are there"
        shapes.add((golden.case, golden.tokens, axes[golden.component], tensors[golden.output].shape))
    for name, tokens, letters, shape in shapes:
        inputs = cases[name].inputs
        if not {*CASE_INPUTS, tokens} <= inputs.keys():
            yield f"case {name!r} has not all of {', '.join((*CASE_INPUTS, tokens))}"
        batch, kept = (tensors[inputs[argument]].shape for argument in ("token_ids", tokens))
        sizes = {"B": batch[:1], "T": kept}
        if len(shape) != len(letters.split()) or any(
            sizes.get(letter, (size,)) != (size,) for letter, size in zip(letters.split(), shape, strict=True)
        ):
            yield f"a golden of {letters} in case {name!r} has shape {shape}"
