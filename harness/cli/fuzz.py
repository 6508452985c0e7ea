"""`goldens fuzz`."""

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import (
    Exclude,
    Include,
    Json,
    Port,
    Timeout,
    console,
    port_of,
    stdout_kept,
    write_json,
)
from harness.errors import GoldensError
from harness.model import Mode


def fuzz(
    suite: Annotated[
        Path | None,
        typer.Argument(metavar="SUITE.toml", help="The suite whose checkpoint it is.", show_default=False),
    ] = None,
    checkpoint: Annotated[
        str | None, typer.Option(metavar="DIR_OR_HUB_ID", help="The checkpoint, instead of a suite's.")
    ] = None,
    port: Port = None,
    dtype: Annotated[
        str | None, typer.Option(metavar="DTYPE", help="In this dtype; else the suite's first, or float32.")
    ] = None,
    mode: Annotated[
        list[Mode] | None, typer.Option(help="How inputs are run; else end to end. Again for another.")
    ] = None,
    include: Include = None,
    exclude: Exclude = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Another seed draws other inputs.")] = 0,
    examples: Annotated[int, typer.Option(metavar="N", min=1, help="How many inputs are drawn.")] = 100,
    seconds: Annotated[
        float,
        typer.Option(
            metavar="S", min=0, help="How long inputs are drawn; and again, how long one is shrunk."
        ),
    ] = 600.0,
    max_tokens: Annotated[
        int,
        typer.Option(metavar="N", min=1, help="The most tokens of an input, all rows and padding together."),
    ] = 512,
    max_rows: Annotated[int, typer.Option(metavar="N", min=1, help="The most rows of an input.")] = 4,
    unmeasured: Annotated[
        list[str] | None, typer.Option(metavar="GLOB=REASON", help="May stay unmeasured, for this reason.")
    ] = None,
    save: Annotated[
        Path | None, typer.Option(metavar="PROMPTS.toml", help="Add an input that fails to these prompts.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the saved case; else fuzz- and the seed.")
    ] = None,
    timeout: Timeout = None,
    json: Json = False,
) -> None:
    """Run reference and port side by side on drawn inputs, and shrink one that fails to the smallest that does."""
    from harness.report.fuzz import show_fuzz
    from harness.report.result import parse_listed

    if suite is None and checkpoint is None:
        raise GoldensError(
            "nothing to fuzz: name a checkpoint with --checkpoint DIR_OR_HUB_ID, or a SUITE.toml"
        )
    listed = parse_listed(unmeasured or ())
    port = port_of(port)
    try:
        from harness.fuzz import command
        from harness.fuzz.trials import Compared
    except ModuleNotFoundError as error:
        raise GoldensError(
            f"fuzzing needs {error.name}: install this package with its extra, pip install 'flax-goldens[record]'"
        ) from error
    chosen, first_dtype = _of_suite(suite)
    question = command.Question(
        checkpoint=checkpoint or chosen,
        port=port,
        dtype=dtype or first_dtype,
        compared=Compared(
            tuple(dict.fromkeys(mode or (Mode.END_TO_END,))), tuple(include or ()), tuple(exclude or ())
        ),
        seed=seed,
        examples=examples,
        seconds=seconds,
        tokens=max_tokens,
        rows=max_rows,
        listed=listed,
        save=save,
        name=name or f"fuzz-{seed}",
        timeout=timeout,
    )
    errors = console(stderr=True)
    with stdout_kept():
        found = command.fuzz(question, errors)
    show_fuzz(found, errors if json else console())
    if json:
        write_json(found.to_json())
    raise typer.Exit(0 if found.holds else 1)


def _of_suite(path: Path | None) -> tuple[str, str]:
    """Checkpoint and first dtype of a suite."""
    from harness.suite import load_suite

    if path is None:
        return "", "float32"
    suite = load_suite(path)
    return suite.checkpoint, suite.dtypes[0]
