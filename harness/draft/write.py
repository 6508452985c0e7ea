"""A proposal as a Python file, formatted as Black and Ruff do it."""

import json
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from harness.draft.load import Loaded
from harness.draft.propose import Proposal, Row, Where
from harness.draft.reference import Reference
from harness.model import LOGITS
from harness.ports.tap import LAYER, UNDECIDED, Tap

_WIDTH = 88
_INDENT = "    "


def text(reference: Reference, proposal: Proposal, loaded: Loaded, run: str | None) -> str:
    """The whole file. run: the function that the model was run by, as MODULE:NAME."""
    environment = Environment(  # Python is written, not HTML: nothing is to be escaped
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    rows = [*proposal.components, *proposal.parameters]
    return environment.get_template("port.py.j2").render(
        golden=reference.path.name,
        model=loaded.spec,
        shown=run is not None,
        batch=reference.batch,
        tokens=reference.tokens,
        imports=list(_imports(rows, loaded, run)),
        components=[line for row in proposal.components for line in _row(row)],
        of_run=all(row.name != LOGITS for row in proposal.components),
        parameters=[
            *(line for row in proposal.parameters for line in _row(row)),
            *_comment(f"of the model, in no row: {', '.join(proposal.unnamed)}" if proposal.unnamed else ""),
        ],
        sizes=json.dumps(reference.sizes),
        unmeasured=[
            line for glob, why in unmeasured(reference, proposal).items() for line in _entry(glob, why)
        ],
        from_checkpoint="checkpoint" in loaded.call,
        loaded=f"{_taken(loaded)} = {_loaded(loaded)}{loaded.call}",
        made=list(_made(loaded)),
        runs=run is not None,
    )


def unmeasured(reference: Reference, proposal: Proposal) -> dict[str, str]:
    """Of everything that has no row, why, by a glob of its names."""
    facts = [(f"parameters.{row.name}", row) for row in proposal.parameters]
    found = {}
    for name, row in [*((row.name, row) for row in proposal.components), *facts]:
        if row.where is None:
            found.update(dict.fromkeys(_globs(name, reference), row.why))
    return found


def _globs(name: str, reference: Reference) -> list[str]:
    """As `--unmeasured` takes them; none for what the golden file does not ask about."""
    if name.endswith(LAYER):  # with a star, it would be everything in a layer
        digits = range(1, len(str(reference.layers - 1)) + 1)
        return [name.replace(LAYER, "?" * count) for count in digits]
    known = any(name.replace(LAYER, str(n)) in reference.order for n in range(reference.layers))
    return [name.replace(LAYER, "*")] if known else []


def _imports(rows: Sequence[Row], loaded: Loaded, run: str | None) -> Iterator[str]:
    names = {loaded.spec: _loaded(loaded)}
    names |= {run: "run_model"} if run else {}
    for spec, name in names.items():
        module, _, own = spec.partition(":")
        yield f"from {module} import {own}" + (f" as {name}" if own != name else "")
    yield ""
    helpers = ["ModelPort", "Param", "Tap", loaded.helper]
    if any(row.where is not None and row.where.layout == UNDECIDED for row in rows):
        helpers = ["UNDECIDED", *helpers]
    yield f"from harness.ports import {', '.join(helpers)}"


def _loaded(loaded: Loaded) -> str:
    """What the draft calls it. A name of its own: a module may well be called `model`."""
    return "load_model" if loaded.call else "loaded_model"


def _taken(loaded: Loaded) -> str:
    return "model" if loaded.helper == "nnx_model" else "module, variables"


def _made(loaded: Loaded) -> Iterator[str]:
    arguments = [
        f"{loaded.helper}({_taken(loaded)})",
        "run",
        "COMPONENTS",
        "sizes=SIZES",
        "parameters=PARAMETERS",
    ]
    yield from _call(_INDENT, "return ModelPort", arguments, "")


def _row(row: Row) -> Iterator[str]:
    """What a row rests on, and the row; several candidates as a comment."""
    if row.where is not None:
        yield from _comment(row.why)
        yield from _call(
            _INDENT, f"{_quoted(row.name)}: {type(row.where).__name__}", _arguments(row.where), ","
        )
    elif row.candidates:
        yield f"{_INDENT}# undecided, {_quoted(row.name)} is one of"
        for candidate in row.candidates:
            yield f"{_INDENT}#     {type(candidate).__name__}({', '.join(_arguments(candidate))})"


def _arguments(where: Where) -> list[str]:
    """Those that are not the default."""
    found = []
    if isinstance(where, Tap):
        found += [_quoted(where.call)] if where.call else []
        found += [f"function={_quoted(where.function)}"] if where.function else []
        found += [f"nth={where.nth}"] if where.function or where.nth else []
        found += [f"argument={_quoted(where.argument)}"] if where.argument is not None else []
        found += [f"result={_quoted(where.result)}"] if where.result is not None else []
        found += [f"value={_quoted(where.value)}"] if where.value else []
    else:
        found += [_quoted(where.path)]
    return found + (["layout=UNDECIDED"] if where.layout == UNDECIDED else [])


def _quoted(value: str | int) -> str:
    return json.dumps(value, ensure_ascii=False)


def _call(indent: str, function: str, arguments: Sequence[str], end: str) -> Iterator[str]:
    """On one line, or its arguments on one, or each on its own, as there is room."""
    together = ", ".join(arguments)
    if len(line := f"{indent}{function}({together}){end}") <= _WIDTH:
        yield line
        return
    yield f"{indent}{function}("
    if len(line := f"{indent}{_INDENT}{together}") <= _WIDTH:
        yield line
    else:
        yield from (f"{indent}{_INDENT}{argument}," for argument in arguments)
    yield f"{indent}){end}"


def _entry(name: str, value: str) -> Iterator[str]:
    """A line of a dictionary of texts."""
    yield f"{_INDENT}{_quoted(name)}: {_quoted(value)},"


def _comment(told: str) -> Iterator[str]:
    yield from textwrap.wrap(
        told, _WIDTH, initial_indent=f"{_INDENT}# ", subsequent_indent=f"{_INDENT}# ", break_on_hyphens=False
    )
