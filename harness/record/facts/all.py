"""All facts of a recording."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from harness.facts.table import FAMILIES
from harness.model import Component, Fact
from harness.record.decoder import Module
from harness.record.discover import coarser_in
from harness.record.facts.config import config_facts
from harness.record.facts.parameters import parameter_facts, parameter_names
from harness.record.facts.sampling import sampling_facts
from harness.record.facts.texts import text_facts
from harness.record.generation import Written
from harness.weights import Weights

if TYPE_CHECKING:
    from harness.record.recorder import Request


def facts_of_checkpoint(request: "Request", model: Module, components: list[Component]) -> list[Fact]:
    """What holds whatever the model is given: settings, parameters, texts, logits."""
    folder = request.folder
    makers: dict[tuple[str, ...], Callable[[], list[Fact]]] = {
        ("config",): lambda: config_facts(model, components),
        ("parameters",): lambda: parameter_facts(folder, request.dtypes, _named(folder, model, components)),
        ("tokenizer", "chat_template"): lambda: text_facts(folder, request.prompts),
        ("sampling", "draws"): lambda: sampling_facts(model),
    }
    asked = set(FAMILIES if request.facts is None else request.facts)
    made = [fact for families, make in makers.items() if asked.intersection(families) for fact in make()]
    return [fact for fact in made if fact.family in asked]


def _named(folder: Path, model: Module, components: list[Component]) -> dict[str, str]:
    """The parameters that are asked for: a part that is recorded as a module may have others than the files."""
    parts = tuple(f"{model.base_model_prefix}.{part}." for part in coarser_in(components))
    stored = Weights(folder)
    names = parameter_names(model)
    return {name: by for name, by in names.items() if name in stored or not name.startswith(parts)}


def written_facts(case: str, dtype: str, written: Written) -> list[Fact]:
    """The text that the reference wrote, and why it ended there."""
    prompt = slice(written.prompt_tokens)
    given = {
        "token_ids": written.inputs.token_ids[:, prompt].tolist(),
        "attention_mask": written.inputs.attention_mask[:, prompt].tolist(),
        "max_new_tokens": written.max_new_tokens,
        "repetition_penalty": written.repetition_penalty,
    }
    tokens = [row[:length].tolist() for row, length in zip(written.tokens, written.lengths, strict=True)]
    expected = {"tokens": tokens, "stop": written.stop.tolist()}
    return [Fact("generation", "generation", case, given, expected, dtype)]


def in_order(facts: list[Fact]) -> list[Fact]:
    """Family by family."""
    families = list(FAMILIES)
    return sorted(facts, key=lambda fact: families.index(fact.family))
