"""`goldens init`."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import Checkpoint, File, console, open_file, stdout_kept
from harness.errors import GoldensError

if TYPE_CHECKING:
    from harness.draft.propose import Row


def init(
    file: File,
    model: Annotated[
        str,
        typer.Option(
            metavar="MODULE:OBJ",
            help="An nnx.Module, a pair (linen module, variables), or a function that gives one: OBJ(), or "
            "OBJ(checkpoint, dtype=...).",
            show_default=False,
        ),
    ],
    run: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:FUNCTION",
            help="How it is run: FUNCTION(model, token_ids=, positions=, attention_mask=, query_index=) gives logits.",
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE.py", help="The draft to write.")
    ] = Path("my_port.py"),
    checkpoint: Checkpoint = None,
) -> None:
    """Draft an adapter: write down where a model may have the components of a golden file, to be reviewed.

    Names and sizes are compared. With --run, the model is traced, and what its calls take in and put out is known.
    No layout is guessed: where a shape does not tell which axis is which, it is left to you.
    """
    from harness.settings import make_importable

    _refuse_unwritable(output)
    golden = open_file(file)
    make_importable(Path.cwd())

    from harness.draft.inspect import inspect
    from harness.draft.load import load, run_of
    from harness.draft.propose import propose
    from harness.draft.reference import Reference
    from harness.draft.write import text
    from harness.replay.session import checkpoint_folder
    from harness.whole import written_whole

    reference = Reference(golden)
    with console(stderr=True).status(f"{model}: looking for what {file.name} has"), stdout_kept():
        loaded = load(model, lambda: str(checkpoint_folder(golden, checkpoint)), golden.dtypes[0])
        function = run_of(run) if run is not None else None
        proposal = propose(reference, inspect(loaded, function, reference), model)
        with written_whole(output) as beside:
            beside.write_text(text(reference, proposal, loaded, run), encoding="utf-8")
    told = console()
    told.print(f"{output}: a draft, to be reviewed", markup=False, highlight=False)
    told.print(f"  components: {_counted(proposal.components)}", highlight=False)
    told.print(f"  parameters: {_counted(proposal.parameters)}", highlight=False)
    told.print("\nread each row, write each layout that is UNDECIDED, and then:", highlight=False)
    told.print(f"  {_next(file, output)}", markup=False, highlight=False, soft_wrap=True)


def _refuse_unwritable(output: Path) -> None:
    """Before anything takes time. What was reviewed is worth more than another draft."""
    if output.suffix != ".py" or not output.stem.isidentifier():
        raise GoldensError(f"{output} cannot be imported: name the draft with -o, as in -o my_port.py")
    if output.exists():
        raise GoldensError(
            f"{output} is there already, and is not replaced: name another file with -o FILE.py"
        )
    if not output.parent.is_dir():
        raise GoldensError(
            f"there is no folder {output.parent}: make it, or name another file with -o FILE.py"
        )


def _counted(rows: "Sequence[Row]") -> str:
    proposed, undecided = sum(row.proposed for row in rows), sum(row.undecided for row in rows)
    return f"{proposed} proposed, {undecided} undecided, {len(rows) - proposed - undecided} unmeasured"


def _next(golden: Path, output: Path) -> str:
    """The draft is imported by its name, from the folder that it is in or from one above."""
    inside = not output.is_absolute() and all(part.isidentifier() for part in output.parent.parts)
    module = ".".join([*output.parent.parts, output.stem]) if inside else output.stem
    command = ["goldens", "check-port", str(golden), "--port", f"{module}:make"]
    path = "" if inside else f"PYTHONPATH={shlex.quote(str(output.parent))} "
    return f"{path}{shlex.join(command)}"
