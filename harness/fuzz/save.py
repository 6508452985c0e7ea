"""A failing input as a case of a prompts file. Imports nothing heavy."""

from pathlib import Path

from harness.errors import GoldensError
from harness.fuzz.drawn import Drawn
from harness.prompts import load_prompts
from harness.whole import written_whole


def refuse_taken(path: Path, name: str) -> None:
    """Raise GoldensError where the file has a case of that name, or is no prompts file."""
    if path.exists() and name in load_prompts(path):
        raise GoldensError(f"{path} has a case {name} already: choose another name with --name")
    if not path.parent.is_dir():
        raise GoldensError(f"{path.parent} is no folder: choose one that exists for --save")


def save(path: Path, name: str, drawn: Drawn) -> None:
    """Add the case to the file, which is replaced as a whole."""
    refuse_taken(path, name)
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    apart = "" if not before else "\n" if before.endswith("\n") else "\n\n"
    with written_whole(path) as beside:
        beside.write_text(before + apart + as_toml(name, drawn), encoding="utf-8")
        load_prompts(beside)


def as_toml(name: str, drawn: Drawn) -> str:
    rows = ",\n    ".join(f"[{', '.join(map(str, row))}]" for row in drawn.rows)
    padding = "" if drawn.padding == "none" else f'padding = "{drawn.padding}"\n'
    start = f"start_position = {drawn.start}\n" if drawn.start else ""
    return f'[[case]]\nname = "{name}"\nrows = [\n    {rows},\n]\n{padding}{start}'
