"""Fixed prompts: a TOML file of cases, and what a tokenizer makes of them.

One file serves every checkpoint, from a tokenizer of bytes to a real one: `prompts.toml` beside this module.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from harness import toml
from harness.errors import GoldensError, first_line
from harness.inputs import CaseInputs, Rows, assemble

if TYPE_CHECKING:
    import numpy as np

BUILT_IN = Path(__file__).with_name("prompts.toml")

Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""A case's name becomes a part of paths in the golden file and of test ids."""

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "*.tiktoken",
    "*.spm",
    "spiece.model",
)
"""Without any of them transformers makes up a tokenizer that knows no text, and says nothing."""

_SOURCES = ("text", "texts", "chat", "token_ids", "rows", "probe")
_Row = Annotated[tuple[int, ...], msgspec.Meta(min_length=1)]


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One turn of a chat, as chat templates take it."""

    role: str
    content: str


class Prompt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One fixed case, given in exactly one way: text, texts, chat, token_ids, rows or probe.

    texts: the rows of a batch; padding says on which side the shorter ones are filled up
    rows: the same as token ids; padding is token 0, and may be left out where all rows are equally long
    probe: `tiny-norm`, the tokens whose embeddings have the least norm that is not zero, or `special-tokens`,
        the tokenizer's own first ones
    tokens: how many; a text is repeated until it has as many, then cut there
    start_position: the position of each row's first real token
    """

    name: Name
    text: str | None = None
    texts: tuple[str, ...] | None = None
    chat: tuple[Message, ...] | None = None
    token_ids: tuple[int, ...] | None = None
    rows: tuple[_Row, ...] | None = None
    probe: Literal["tiny-norm", "special-tokens"] | None = None
    padding: Literal["left", "right"] | None = None
    tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    start_position: Annotated[int, msgspec.Meta(ge=0)] = 0

    def __post_init__(self) -> None:
        given = [source for source in _SOURCES if getattr(self, source) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(f"expected exactly one of {', '.join(_SOURCES)}, found {found}")
        if not getattr(self, given[0]) or (self.texts and not all(self.texts)):
            raise ValueError(f"{given[0]} is empty")
        if self.rows is None and (self.padding is not None) != (self.texts is not None):
            raise ValueError("texts and padding come together: texts are a batch, padding is a batch's")
        if self.probe is not None and self.tokens is None:
            raise ValueError("a probe needs tokens, how many of them")
        if self.tokens is not None and self.text is None and self.probe is None:
            raise ValueError("tokens belongs to a text or a probe")


class _PromptsFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    case: Annotated[tuple[Prompt, ...], msgspec.Meta(min_length=1)]

    def __post_init__(self) -> None:
        names = [prompt.name for prompt in self.case]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"case {twice[0]} is there twice")


def load_prompts(path: Path) -> dict[str, Prompt]:
    """The cases of a prompts file by name, in its order."""
    return {prompt.name: prompt for prompt in toml.read(path, _PromptsFile).case}


@dataclass(frozen=True)
class Source:
    """What prompts are turned into tokens with. Each part is only loaded when a prompt asks for it.

    tokenizer_folder: a folder, or a hub id
    embedding_rms: gives the root mean square of every embedding row, (V)
    """

    tokenizer_folder: str
    vocab_size: int
    embedding_rms: Callable[[], "np.ndarray"]

    @cached_property
    def tokenizer(self) -> Any:
        return _load_tokenizer(self.tokenizer_folder)

    def ids(self, text: str) -> list[int]:
        """A text's token ids, with what the tokenizer itself puts around a text."""
        return list(self.tokenizer(text)["input_ids"])

    @property
    def pad_id(self) -> int:
        for token in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id):
            if isinstance(token, int):
                return token
        return 0


def build_case(prompt: Prompt, source: Source) -> CaseInputs:
    """The inputs of one fixed case. Raises GoldensError when tokenizer or checkpoint cannot give them."""
    detail, rows = _rows(prompt, source)
    if prompt.start_position:
        detail += f" (from position {prompt.start_position})"
    return assemble(prompt.name, "prompt", detail, rows, source.vocab_size)


def _rows(prompt: Prompt, source: Source) -> tuple[str, Rows]:
    """How the case came about, and its rows."""
    start = prompt.start_position
    if prompt.texts is not None and prompt.padding is not None:
        rows = [source.ids(text) for text in prompt.texts]
        return " | ".join(prompt.texts), Rows(rows, prompt.padding, start, source.pad_id)
    if prompt.text is not None:
        return prompt.text, Rows([_text_ids(prompt.text, prompt.tokens, source)], start=start)
    if prompt.chat is not None:
        text = _render(prompt, source.tokenizer)
        return text, Rows([source.tokenizer(text, add_special_tokens=False)["input_ids"]], start=start)
    if prompt.token_ids is not None:
        return "token ids as given", Rows([prompt.token_ids], start=start)
    if prompt.rows is not None:
        return "token ids as given", Rows(prompt.rows, prompt.padding or "none", start)
    assert prompt.tokens is not None, "a probe has a number of tokens"
    if prompt.probe == "tiny-norm":
        ids = _tiny_norm_ids(prompt.name, prompt.tokens, source.embedding_rms())
        return "the tokens with the least embedding norm", Rows([ids], start=start)
    ids = sorted(source.tokenizer.added_tokens_decoder)[: prompt.tokens]
    if not ids:
        raise GoldensError(
            f"case {prompt.name} wants special tokens, and the checkpoint's tokenizer has none"
        )
    return "the tokenizer's special tokens", Rows([ids], start=start)


def _text_ids(text: str, tokens: int | None, source: Source) -> list[int]:
    ids = source.ids(text)
    if tokens is None or not ids:
        return ids
    while len(ids) < tokens:
        text = f"{text}\n{text}"
        ids = source.ids(text)
    return ids[:tokens]


def _tiny_norm_ids(name: str, count: int, rms: "np.ndarray") -> list[int]:
    """The tokens with the least embedding norm that is not zero, least first: there eps decides."""
    import numpy as np

    order = np.argsort(rms, kind="stable")
    ids = [int(token) for token in order if rms[token] > 0][:count]
    if len(ids) < count:
        raise GoldensError(
            f"case {name} wants {count} embedding rows that are not zero, the checkpoint has {len(ids)}"
        )
    return ids


def _render(prompt: Prompt, tokenizer: Any) -> str:
    """The chat as its template writes it, up to where the assistant's answer begins."""
    messages = [msgspec.to_builtins(message) for message in prompt.chat or ()]
    if not getattr(tokenizer, "chat_template", None):
        raise GoldensError(
            f"case {prompt.name} is a chat, and the checkpoint's tokenizer has no chat template"
        )
    try:
        return str(tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))
    except Exception as error:  # a template can raise anything, its own refusals included
        reason = first_line(error)
        raise GoldensError(f"case {prompt.name}: the chat template cannot be applied: {reason}") from error


def _load_tokenizer(folder: str) -> Any:
    try:
        from transformers import AutoTokenizer
    except ModuleNotFoundError as error:
        raise GoldensError(
            "turning prompts into tokens needs transformers: pip install 'flax-goldens[record]'"
        ) from error
    local = Path(folder)
    if local.is_dir() and not any(any(local.glob(pattern)) for pattern in _TOKENIZER_FILES):
        raise GoldensError(f"{folder} has no tokenizer: add tokenizer.json, or give cases as token_ids")
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # transformers and tokenizers raise many unrelated types for a bad tokenizer
        reason = first_line(error)
        raise GoldensError(f"the tokenizer of {folder} cannot be loaded: {reason}") from error
