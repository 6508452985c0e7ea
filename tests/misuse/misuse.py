"""What a misuse is: something wrong that is done in a small project, and the sentence that answers it.

The project: `tiny.h5`, a golden file of five components, recorded from `checkpoint/`; `my_port.py`, a port of that model;
`model/`, a checkpoint that can be recorded.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

Change = Callable[[Path], None]


@dataclass(frozen=True)
class Misuse:
    """One entry of the table.

    what: is done wrong; typed: the command; says: the sentence, `...` for what differs from machine to machine
    files: name -> text, written into the project before; change: done to the project before
    status: of the command; apart: the command ends its process
    """

    what: str
    typed: str
    says: str
    files: Mapping[str, str] = field(default_factory=dict)
    change: Change | None = None
    status: int = 2
    apart: bool = False

    def is_said(self, told: str) -> bool:
        """Whether a line of what was told is the sentence; pytest puts `E` in front of it."""
        return self.pattern.search(told) is not None

    @property
    def pattern(self) -> re.Pattern[str]:
        sentence = ".*".join(re.escape(part) for part in self.says.split("..."))
        return re.compile(rf"(?:^|FAIL +|: |^E +){sentence}$", re.MULTILINE)

    def arrange(self, project: Path) -> None:
        for name, text in self.files.items():
            path = project / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        if self.change is not None:
            self.change(project)


@dataclass(frozen=True)
class Section:
    title: str
    introduction: str
    misuses: tuple[Misuse, ...]
