"""A reference taken apart: which of its modules are where, whatever its model is called."""

from dataclasses import dataclass
from typing import Any

import torch

from harness.errors import GoldensError
from harness.record.parameters import Parameters

Module = Any
"""A torch module. torch types what a module has as tensor or module, so that no part of one could be used."""
ACTIVATIONS = ("act_fn", "activation_fn", "act")
"""What the activation of an `mlp` is called."""


@dataclass(frozen=True)
class Decoder:
    """The parts of a reference that are found by attribute.

    model: the causal language model; base: the decoder inside it; prefix: the base's name in the model
    parameters: in the dtype in which it runs
    """

    model: Module
    base: Module
    prefix: str
    layers: tuple[Module, ...]
    parameters: Parameters

    @property
    def dtype(self) -> torch.dtype:
        return self.parameters.dtype


def find_decoder(model: Module, dtype: torch.dtype | None = None) -> Decoder:
    """Take a causal language model apart, or say which part of it is not known.

    dtype: the one in which it runs, if it is loaded in another
    """
    prefix = getattr(model, "base_model_prefix", "model")
    base = getattr(model, prefix, None)
    parts = ("embed_tokens", "layers", "norm", "rotary_emb")
    missing = [f"{prefix}.{part}" for part in parts if not hasattr(base, part)]
    if not hasattr(model, "lm_head"):
        missing.append("lm_head")
    if base is None or missing:
        raise GoldensError(
            f"{type(model).__name__} has no {', '.join(missing)}: only decoders with these modules can be recorded"
        )
    layers = tuple(base.layers)
    parameters = Parameters(model, layers, dtype or next(model.parameters()).dtype)
    return Decoder(model, base, prefix, layers, parameters)


def reset_frequencies(decoder: Decoder) -> None:
    """As they are when the reference is loaded: a dynamic rope keeps those of the longest text that it has seen."""
    rotary = decoder.base.rotary_emb
    if getattr(rotary, "rope_type", None) == "dynamic":
        rotary.register_buffer("inv_freq", rotary.original_inv_freq.clone(), persistent=False)
        rotary.max_seq_len_cached = rotary.original_max_seq_len


def component_name(path: str, prefix: str) -> str:
    """The component that a module at `path` is: without the base's name, and the activation by its step's name."""
    name = path.removeprefix(f"{prefix}.")
    parent, _, last = name.rpartition(".")
    return f"{parent}.act" if last in ACTIVATIONS and parent.endswith("mlp") else name


def module_of(decoder: Decoder, component: str) -> Module:
    """The module at a component's name. Raises AttributeError if there is none."""
    place = decoder.model if component.startswith("lm_head") else decoder.base
    for part in component.split("."):
        place = activation_of(place) if part == "act" else getattr(place, part)
    return place


def activation_of(mlp: Module) -> Module:
    """Raises AttributeError if it has none."""
    name = next((name for name in ACTIVATIONS if hasattr(mlp, name)), ACTIVATIONS[0])
    return getattr(mlp, name)
