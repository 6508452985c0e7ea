"""What the reference's tokenizer makes of texts, and its chat template of chats."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from harness.errors import GoldensError
from harness.model import Fact
from harness.prompts import Prompt, Source
from harness.record.facts.mistaken_chats import Chats, mistaken_chats
from harness.record.facts.mistaken_ids import mistaken_ids
from harness.texts import load_chats, load_texts

_SPECIAL = 3
"""Special tokens that built-in texts have places for."""


def text_facts(folder: Path, prompts: Iterable[Prompt]) -> list[Fact]:
    """Token ids of the built-in texts and of the prompts', and the texts of chats, each by its case.

    No facts of what the checkpoint has not: a tokenizer, or a chat template. A chat that the template refuses is left
    out, and so is one whose text depends on the day.
    """
    try:
        tokenizer = Source(str(folder), 0, lambda: np.zeros(0)).tokenizer
    except GoldensError:  # a prompt that needs it has said so
        return []
    special = _special_tokens(tokenizer)
    prompts = tuple(prompts)
    chats = _chats(tokenizer, load_chats(special) | _chats_of(prompts))
    rendered = {fact.case: fact.expected["text"] for fact in chats}
    texts = load_texts(special) | _texts_of(prompts) | rendered
    return _texts(tokenizer, texts, special) + chats


def _special_tokens(tokenizer: Any) -> list[str]:
    added = sorted(tokenizer.added_tokens_decoder.items())
    return [token.content for _, token in added if token.special][:_SPECIAL]


def _texts_of(prompts: Iterable[Prompt]) -> dict[str, str]:
    """The texts of prompts by name; those of a batch are numbered."""
    texts = {prompt.name: prompt.text for prompt in prompts if prompt.text is not None}
    return texts | {
        f"{prompt.name}-{n}": text for prompt in prompts for n, text in enumerate(prompt.texts or (), start=1)
    }


def _chats_of(prompts: Iterable[Prompt]) -> dict[str, dict[str, Any]]:
    return {
        prompt.name: {
            "messages": msgspec.to_builtins(prompt.chat),
            "options": {"add_generation_prompt": True},
        }
        for prompt in prompts
        if prompt.chat is not None
    }


def _texts(tokenizer: Any, texts: dict[str, str], special: list[str]) -> list[Fact]:
    tokens = {
        "bos": tokenizer.bos_token_id,
        "eos": tokenizer.eos_token_id,
        "pad": tokenizer.pad_token_id,
        "unk": tokenizer.unk_token_id,
    }
    mistaken = mistaken_ids(tokenizer, texts, special)
    return [
        Fact(
            component="tokenizer",
            family="tokenizer",
            case=name,
            given={"text": text},
            expected={"ids": tokenizer(text)["input_ids"], **tokens, "mistaken": mistaken[name]},
        )
        for name, text in texts.items()
    ]


def _chats(tokenizer: Any, given: dict[str, dict[str, Any]]) -> list[Fact]:
    if not tokenizer.chat_template:
        return []
    chats = Chats(tokenizer)
    facts = []
    for name, chat in given.items():
        text = chats.render(chat["messages"], chat["options"])
        if text is not None:
            asked = {"chat": json.dumps(chat, ensure_ascii=False)}
            expected = {"text": text, "mistaken": mistaken_chats(chats, text, **chat)}
            facts.append(Fact("chat_template", "chat_template", name, asked, expected))
    return facts
