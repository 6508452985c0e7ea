"""A suite: which checkpoint, which cases, which dtypes, what to keep. Read from TOML, or the default one."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from harness import toml
from harness.errors import GoldensError, nearest
from harness.inputs import CaseInputs, Padding, Rows, assemble, draw_rows
from harness.prompts import BUILT_IN, Name, Prompt, Source, build_case, load_prompts

if TYPE_CHECKING:
    import numpy as np

Dtype = Literal["float32", "bfloat16", "float16"]
Facts = Literal["config", "parameters", "tokenizer", "chat_template", "sampling", "draws"]
Count = Annotated[int, msgspec.Meta(ge=1)]

_DEFAULT_CASES = (
    "english",
    "chinese",
    "code",
    "special-tokens",
    "left-padded",
    "right-padded",
    "far",
    "past-256",
    "long",
    "tiny-norm",
)


class Randomized(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A case drawn from a seed.

    length: tokens of each row, or the least and the most of them; with padding both are among the rows
    start_position: the position of each row's first real token
    """

    name: Name
    seed: Annotated[int, msgspec.Meta(ge=0)]
    batch: Count = 1
    length: int | tuple[int, int] = 12
    padding: Padding = "none"
    start_position: Annotated[int, msgspec.Meta(ge=0)] = 0

    def __post_init__(self) -> None:
        shortest, longest = self.lengths
        # No bound in the type: beside a tuple in a union, msgspec 0.22 reads wild memory for a bounded int.
        if shortest < 1:
            raise ValueError(f"length is {shortest}: a row has one token or more")
        if shortest > longest:
            raise ValueError(f"length runs from {shortest} down to {longest}: give the least first")
        if self.padding != "none" and (self.batch < 2 or shortest == longest):
            raise ValueError(
                "padding needs a batch of 2 or more and a length [least, most] of two different numbers"
            )

    @property
    def lengths(self) -> tuple[int, int]:
        """The least and the most tokens of a row."""
        return (self.length, self.length) if isinstance(self.length, int) else self.length

    @property
    def detail(self) -> str:
        shortest, longest = self.lengths
        length = str(shortest) if shortest == longest else f"{shortest} to {longest}"
        start = f", from position {self.start_position}" if self.start_position else ""
        return f"seed {self.seed}: {self.batch} x {length} tokens, padding {self.padding}{start}"


class Generation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A text that the reference writes after a prompt, recorded as it reads it: through its cache.

    prompt: a case of the prompts file
    steps: those of which every component is recorded; 1 is the first token that was written, -1 the last that was read
    """

    name: Name
    prompt: Name
    new_tokens: Annotated[int, msgspec.Meta(ge=3)] = 16
    steps: Annotated[tuple[int, ...], msgspec.Meta(min_length=1)] = (1, 2, 16, -1)

    def __post_init__(self) -> None:
        if 0 in self.steps:
            raise ValueError("steps count from 1, or back from -1: 0 is none")


class _SuiteFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A suite as it is written; paths are relative to the file."""

    checkpoint: Annotated[str, msgspec.Meta(min_length=1)]
    golden: str | None = None
    dtypes: Annotated[tuple[Dtype, ...], msgspec.Meta(min_length=1)] = ("float32",)
    prompts: str | None = None
    cases: tuple[str, ...] = ()
    randomized: tuple[Randomized, ...] = ()
    generation: tuple[Generation, ...] = ()
    facts: tuple[Facts, ...] | None = None
    keep: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [*self.cases, *(entry.name for entry in self.randomized)]
        names += [entry.name for entry in self.generation]
        if not names:
            raise ValueError(
                "expected cases, or entries under [[randomized]] or [[generation]]: there is nothing to record"
            )
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"case {twice[0]} is there twice")
        if len(set(self.dtypes)) < len(self.dtypes):
            raise ValueError("dtypes holds one dtype twice")


@dataclass(frozen=True)
class Suite:
    """What to record.

    checkpoint: a folder or a hub id; golden: where the golden file goes
    cases: names from the file `prompts`, in the order in which they are recorded, before the randomized ones
    facts: which families of facts are recorded, beside those of texts that are written; None for all
    keep: what of a recording is written, as the command line's --keep says it
    """

    name: str
    checkpoint: str
    golden: Path
    dtypes: tuple[str, ...]
    prompts: Path
    cases: tuple[str, ...]
    randomized: tuple[Randomized, ...]
    generation: tuple[Generation, ...] = ()
    facts: tuple[str, ...] | None = None
    keep: tuple[str, ...] = ()


def load_suite(path: str | Path) -> Suite:
    """The suite in the TOML file at `path`. Raises GoldensError naming the file and the field."""
    path = Path(path)
    written = toml.read(path, _SuiteFile)
    folder = path.parent
    golden = folder / written.golden if written.golden else folder.parent / f"{path.stem}.h5"
    return Suite(
        name=path.stem,
        checkpoint=_beside(folder, written.checkpoint),
        golden=Path(os.path.normpath(golden)),
        dtypes=written.dtypes,
        prompts=folder / written.prompts if written.prompts else BUILT_IN,
        cases=written.cases,
        randomized=written.randomized,
        generation=written.generation,
        facts=written.facts,
        keep=written.keep,
    )


def _beside(folder: Path, checkpoint: str) -> str:
    """A checkpoint's path seen from here; a hub id as it is."""
    beside = folder / Path(checkpoint).expanduser()
    return str(beside) if beside.exists() or checkpoint.startswith((".", "/", "~")) else checkpoint


def default_suite(checkpoint: str) -> Suite:
    """What is recorded of a checkpoint when no suite says so.

    It has no chat, since not every tokenizer has a chat template. The golden file goes to the working folder.
    """
    name = Path(checkpoint).resolve().name if Path(checkpoint).exists() else checkpoint.rpartition("/")[2]
    return Suite(
        name=name,
        checkpoint=checkpoint,
        golden=Path(f"{name}.h5"),
        dtypes=("float32",),
        prompts=BUILT_IN,
        cases=_DEFAULT_CASES,
        randomized=(
            Randomized("random-1", seed=1, batch=2, length=20),
            Randomized("random-2", seed=2, batch=3, length=(5, 16), padding="left", start_position=100),
        ),
        generation=(
            Generation("written", prompt="english", new_tokens=32),
            Generation("written-batch", prompt="left-padded", new_tokens=12),
        ),
    )


def build_cases(
    suite: Suite,
    tokenizer_folder: str | Path,
    vocab_size: int,
    embedding_rms: "Callable[[], np.ndarray]",
) -> list[CaseInputs]:
    """The inputs of every case of the suite, prompts first.

    embedding_rms: gives the root mean square of every embedding row (V); called only if a case asks for it.
    The tokenizer, too, is loaded only if a case asks for it.
    """
    source = Source(str(tokenizer_folder), vocab_size, embedding_rms)
    fixed = [build_case(prompt, source) for prompt in prompts_of(suite, suite.cases)]
    return fixed + [_draw(entry, vocab_size) for entry in suite.randomized]


def build_generations(suite: Suite, tokenizer_folder: str | Path, vocab_size: int) -> list[CaseInputs]:
    """The prompt of every text to be written, named as the text."""
    source = Source(str(tokenizer_folder), vocab_size, _no_probe)
    prompts = prompts_of(suite, [entry.prompt for entry in suite.generation])
    return [
        replace(build_case(prompt, source), name=entry.name)
        for entry, prompt in zip(suite.generation, prompts, strict=True)
    ]


def _no_probe() -> "np.ndarray":
    raise GoldensError("a probe of embeddings is no prompt to write from: name a text or a chat")


def prompts_of(suite: Suite, names: Sequence[str]) -> list[Prompt]:
    """The entries of the suite's prompts file by name. Raises GoldensError for a name that it has not."""
    prompts = load_prompts(suite.prompts) if names else {}
    for name in names:
        _refuse_unknown(suite, name, prompts)
    return [prompts[name] for name in names]


def _refuse_unknown(suite: Suite, name: str, known: Iterable[str]) -> None:
    if name not in known:
        raise GoldensError(
            f"suite {suite.name} asks for case {name}, and {suite.prompts} has none of that name"
            f"{nearest(name, known)}"
        )


def _draw(entry: Randomized, vocab_size: int) -> CaseInputs:
    shortest, longest = entry.lengths
    ids = draw_rows(entry.seed, vocab_size, entry.batch, shortest, longest, entry.padding)
    rows = Rows(ids, entry.padding, entry.start_position)
    return assemble(entry.name, "randomized", entry.detail, rows, vocab_size)
