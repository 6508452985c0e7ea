"""`goldens check`: record, replay and explain in one."""

import json as json_text
import shlex
import sys
from collections.abc import Iterator
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import (
    Dtypes,
    Json,
    Port,
    Timeout,
    console,
    open_file,
    port_of,
    stdout_kept,
    write_json,
)
from harness.cli.record import recording
from harness.cli.replay import tolerances_of
from harness.errors import GoldensError

if TYPE_CHECKING:
    from harness.report.result import Run
    from harness.store.reader import GoldenFile


def check(
    checkpoint: Annotated[
        str, typer.Argument(metavar="CHECKPOINT", help="A folder, or a hub id.", show_default=False)
    ],
    port: Port = None,
    dtype: Dtypes = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE.h5",
            help="The golden file; else CHECKPOINT's name, in this folder.",
        ),
    ] = None,
    timeout: Timeout = None,
    json: Json = False,
) -> None:
    """Record a checkpoint, unless it is recorded already, hold the port against it, and say how to go on."""
    from harness.checkpoints import resolve
    from harness.model import BY_DEFAULT
    from harness.replay import command
    from harness.report.terminal import show_run
    from harness.suite import default_suite

    spec, folder = port_of(port), resolve(checkpoint)
    golden = output or default_suite(checkpoint).golden
    errors = console(stderr=True)
    told = errors if json else console()
    if golden.exists():
        _refuse_other(open_file(golden), checkpoint, folder)
        told.print(f"{golden} is there already, and is of this checkpoint: not recorded again", markup=False)
    else:
        with redirect_stdout(sys.stderr) if json else nullcontext():
            _record(checkpoint, folder, golden, dtype or [], spec, timeout)
    question = command.Question(
        port=spec,
        checkpoint=str(folder),
        modes=BY_DEFAULT,
        selection=command.Selection((), (), (), tuple(dtype or ())),
        listed={},
        tolerances=tolerances_of(None),
        timeout=timeout,
    )
    file = open_file(golden)
    with stdout_kept():
        run = command.replay(file, question, errors)
    show_run(run, file.order, told)
    lines = _next_steps(run, named=port is not None, elsewhere=_elsewhere(file, checkpoint, folder))
    told.print("\n" + "\n".join(lines), markup=False, highlight=False, soft_wrap=True)
    if json:
        write_json(run.to_json())
    raise typer.Exit(0 if run.holds else 1)


def _refuse_other(file: "GoldenFile", checkpoint: str, folder: Path) -> None:
    """Only a recording of the reference, from this checkpoint, is taken for one."""
    from harness.checkpoints import refuse_other
    from harness.report.wording import from_port

    provenance = file.contents.provenance
    if from_port(provenance):
        raise GoldensError(
            f"{file.path} is there already, {from_port(provenance)}: name another file with -o FILE.h5"
        )
    try:
        refuse_other(folder, provenance["checkpoint_files"], file.contents.config)
    except GoldensError as error:
        raise GoldensError(
            f"{file.path} is there already, and is not of {checkpoint}: name another file with -o FILE.h5 ({error})"
        ) from error


def _record(
    checkpoint: str, folder: Path, golden: Path, dtypes: list[str], port: str, timeout: float | None
) -> None:
    """A port that cannot be made is refused first: recording takes longer."""
    from harness.replay.port import load_port
    from harness.replay.watch import Watch

    command = recording()
    first = dtypes[0] if dtypes else "float32"
    with Watch(timeout).over_factory(first):
        load_port(port, str(folder), first)
    asked = command.Asked(
        suite=None, checkpoint=checkpoint, output=golden, dtypes=tuple(dtypes), keep=(), cases=()
    )
    command.record(asked)


def _elsewhere(file: "GoldenFile", checkpoint: str, folder: Path) -> str:
    """The checkpoint, if a replay would not find it by itself where it was recorded from."""
    recorded = str(file.contents.provenance["checkpoint"])
    found = recorded == checkpoint or (file.path.parent / recorded).resolve() == folder.resolve()
    return "" if found else checkpoint


def _next_steps(run: "Run", named: bool, elsewhere: str) -> Iterator[str]:
    """Commands from now on, and a test. named: whether the port was named on the command line"""
    from harness.report.commands import replay_of

    here = ["--checkpoint", elsewhere] if elsewhere else []
    again = shlex.join(["goldens", "replay", run.golden, *(["--port", run.port] if named else []), *here])
    if run.first_wrong is not None:
        yield "the first wrong component alone:"
        yield f"  {shlex.join([*shlex.split(replay_of(run, run.first_wrong)), *here])}"
    yield "from now on, without PyTorch, and with a page to look at:"
    yield f"  {again} --report report.html"
    yield "in pytest:"
    folder = f", checkpoint={json_text.dumps(elsewhere)}" if elsewhere else ""
    yield f"  @pytest.mark.goldens({json_text.dumps(run.golden)}{folder})"
    yield "  def test_component(goldens, port):"
    yield "      goldens.check(port)"
    if named:
        yield "with the port in pyproject.toml:"
        yield "  [tool.goldens]"
        yield f"  port = {json_text.dumps(run.port)}"
