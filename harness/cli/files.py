"""`goldens show` and `goldens verify`: what is in golden files, and whether they are whole."""

import typer

from harness.cli.options import File, Files, Json, console, open_file, write_json


def show(
    file: File,
    json: Json = False,
) -> None:
    """Say what is in a golden file: where it came from, cases, components, shapes, noise floors."""
    import msgspec

    from harness.report.contents import show_contents, summarise

    summary = summarise(open_file(file))
    if json:
        write_json(msgspec.json.encode(summary))
    else:
        show_contents(summary, console())


def verify(files: Files) -> None:
    """Hold every byte of golden files against its digest, and their index against HDF5."""
    from harness.store.verify import verify as problems_of

    holds = True
    for path in files:
        problems = problems_of(path)
        print(f"{path}: {'does not hold' if problems else 'holds'}")
        for problem in problems:
            print(f"  {problem}")
        holds = holds and not problems
    raise typer.Exit(0 if holds else 1)
