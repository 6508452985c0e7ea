"""What a document shows, held against what is told: rounding, and time, may differ from one machine to another."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

BY_ROUNDING = (
    r"largest difference at .*",
    r"(?<=equal bit by bit).*",
    r"error \S+ x noise floor$",
    r"\S+ +layers\.\d+\.[\w.]+ \([\w-]+\)$",
    r"(?<=passed in ).*",
)
"""What rounding decides: the element that is furthest off, what is equal bit by bit, by how much a failure fails."""
NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?")


def words(page: str) -> list[str]:
    """The page as words, whatever its lines are broken at."""
    for pattern in BY_ROUNDING:
        page = re.sub(pattern, "", page, flags=re.MULTILINE)
    return page.split()


def alike(word: str, other: str) -> bool:
    """Equal, but for numbers with a point or exponent, which are measured."""
    if NUMBER.sub("#", word) != NUMBER.sub("#", other):
        return False
    pairs = zip(NUMBER.findall(word), NUMBER.findall(other), strict=True)
    return all(x == y or (bool(set(x + y) & set(".e")) and near(float(x), float(y))) for x, y in pairs)


def near(x: float, y: float) -> bool:
    """Errors below 1 are rounding's; others may be three times as large on another machine."""
    return max(abs(x), abs(y)) < 1 or (x * y > 0 and 1 / 3 < x / y < 3)


@dataclass(frozen=True)
class Example:
    command: str
    shown: tuple[str, ...]
    """The lines below the command; a line `...` stands for any number of lines."""


def examples(page: str) -> list[Example]:
    """The commands of a page that stand after `$`, each with what is shown of its output."""
    blocks = re.findall(r"(?:^    .*\n(?:\n+(?=    ))?)+", page, re.MULTILINE)
    found = []
    for block in blocks:
        for typed in block.replace("\\\n", " ").split("    $ ")[1:]:
            command, *lines = typed.splitlines()
            shown = tuple(line.strip() for line in lines if line.strip())
            found.append(Example(command, shown))
    return found


def first_untold(shown: Iterable[str], told: str) -> tuple[str, str] | None:
    """The first line that is shown and not told, or the reverse, with what stands in its place; else None."""
    lines, skipping = (line.strip() for line in told.splitlines() if line.strip()), False
    for line in shown:
        if line == "...":
            skipping = True
            continue
        candidate = next((other for other in lines if _same(line, other) or not skipping), "nothing")
        if not _same(line, candidate):
            return line, candidate
        skipping = False
    left = next(lines, None)
    return None if skipping or left is None else ("nothing", left)


def _same(line: str, other: str) -> bool:
    pair = words(line), words(other)
    return len(pair[0]) == len(pair[1]) and all(map(alike, *pair))
