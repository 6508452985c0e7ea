"""Writes docs/commands.md: every command with its arguments and flags, as `goldens --help` has them.

python docs/make_commands.py             # or: make docs
"""

import enum
import inspect
import typing
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Any

from typer.models import ArgumentInfo, CommandInfo, OptionInfo

from harness.cli.app import app
from harness.cli.examples import EXAMPLES

PAGE = Path(__file__).with_name("commands.md")
MORE = {
    "check": "howto-checkpoint.md",
    "record": "suites.md",
    "init": "ports.md#a-draft-from-your-model",
    "check_port": "ports.md#is-the-port-itself-in-order",
    "replay": "tutorial.md",
    "explain": "diagnosis.md",
    "report": "report.md",
    "history": "history.md",
    "audit": "audit.md",
    "fuzz": "fuzz.md",
    "diff": "review.md",
    "accept": "review.md",
    "reject": "review.md",
    "fetch": "remote.md",
    "show": "architecture.md#the-golden-file",
    "verify": "architecture.md#the-golden-file",
}
INTRODUCTION = """\
# Commands

What `goldens COMMAND --help` says, on one page, in the order in which a newcomer meets the commands.

Results go to stdout, everything else to stderr. Each command exits with

| status | meaning |
|---|---|
| 0 | it holds |
| 1 | it does not hold: a component failed or could not be measured, golden files differ, something was skipped |
| 2 | the question could not be asked; one sentence on stderr says why |

`goldens --debug COMMAND ...` shows tracebacks, too: of an error, of what a port raised.

A setting that a flag does not say is read from `[tool.goldens]` of the nearest `pyproject.toml`: `port`, `tolerances`,
`faults`.
"""


def page() -> str:
    """The whole page. It is made of what the commands declare, so that no version of typer lays it out otherwise."""
    return "\n".join([INTRODUCTION, *(line for info in app.registered_commands for line in _section(info))])


def _section(info: CommandInfo) -> Iterator[str]:
    command = info.callback
    assert command is not None
    name = command.__name__
    rows = [*_parameters(command)]
    arguments = [
        written if default == "required" else f"[{written}]"
        for written, _, default in rows
        if not written.startswith("-")
    ]
    yield f"## goldens {_typed(name)}\n"
    yield inspect.getdoc(command) or ""
    yield "\n    " + " ".join(["goldens", _typed(name), *arguments, "[OPTION...]"]) + "\n"
    yield "| argument, option | meaning | default |"
    yield "|---|---|---|"
    for cells in rows:
        yield "| `{}` | {} | {} |".format(*(cell.replace("|", r"\|") for cell in cells))
    yield ""
    for what, typed in EXAMPLES[name].items():
        yield f"    # {what}\n    {typed}"
    yield f"\nMore: [{MORE[name]}]({MORE[name]})\n"


def _typed(name: str) -> str:
    """A function's name as its command is typed."""
    return name.replace("_", "-")


def _parameters(command: Any) -> Iterator[tuple[str, str, str]]:
    """How each parameter is written, what it means, and its default."""
    annotations = typing.get_type_hints(command, include_extras=True)
    for name, parameter in inspect.signature(command).parameters.items():
        kind, *details = typing.get_args(annotations[name])
        (info,) = (detail for detail in details if isinstance(detail, ArgumentInfo | OptionInfo))
        yield _written(name, kind, info), info.help or "", _default(parameter.default)


def _written(name: str, kind: Any, info: ArgumentInfo | OptionInfo) -> str:
    if isinstance(info, ArgumentInfo):
        several = list in (typing.get_origin(inner) for inner in (kind, *typing.get_args(kind)))
        return f"{info.metavar}..." if several else str(info.metavar)
    # In Annotated, the first flag stands where typer has the default otherwise.
    declared = [flag for flag in (info.default, *(info.param_decls or ())) if isinstance(flag, str)]
    flags = ", ".join(sorted(declared or [f"--{name.replace('_', '-')}"], key=len))
    return flags if kind is bool else f"{flags} {info.metavar or _choices(kind)}"


def _choices(kind: Any) -> str:
    """`Modes`, or `list[Mode] | None` -> `isolated|end-to-end|decode`."""
    while not (isinstance(kind, type) and issubclass(kind, enum.Enum)):
        (kind,) = (inner for inner in typing.get_args(kind) if inner is not NoneType)
    return "|".join(choice.value for choice in kind)


def _default(default: Any) -> str:
    if default is inspect.Parameter.empty:
        return "required"
    return "" if default is None or default is False else f"`{default}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
