"""A port that is the reference's own model, run by torch: what may be recorded of an architecture replays on it.

It shares the places where tensors pass by with the recorder, and no step: `apply` calls the model's own modules.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import ml_dtypes
import numpy as np
import torch

from harness.record import reference
from harness.record.capture import run
from harness.record.decoder import find_decoder, module_of
from harness.record.discover import discover
from harness.record.recorder import as_numpy
from harness.replay.port import NotOffered

_OTHERWISE = ("q_norm", "k_norm", "lm_head", "embed_tokens")
"""Modules that take in something else than the component, or do not all of it."""

Spoil = Callable[[Any], object]


class TorchPort:
    """spoil: what is done to the model first; answers: component -> what is done in its place, (model, input)."""

    def __init__(
        self,
        folder: str,
        dtype: str,
        spoil: Spoil | None = None,
        answers: Mapping[str, Callable[..., torch.Tensor]] | None = None,
    ) -> None:
        model = reference.load(folder, dtype)
        self._decoder, self._answers = find_decoder(model), answers or {}
        self._components = discover(self._decoder)
        if spoil is not None:
            spoil(model)

    def trace(self, inputs: Mapping[str, np.ndarray], names: Collection[str]) -> dict[str, np.ndarray]:
        case = {f"case.{name}": torch.from_numpy(np.array(value)).long() for name, value in inputs.items()}
        with torch.inference_mode():
            seen = run(self._decoder, self._components, case)
        tokens = inputs["token_ids"].shape[1]
        return {name: as_numpy(_by_token(name, seen[name], tokens)) for name in names if name in seen}

    def apply(self, name: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The module at that name, called with the one tensor that it takes in."""
        given = [as_torch(value) for value in inputs.values()]
        with torch.inference_mode():
            if name in self._answers:
                return {name: as_numpy(self._answers[name](self._decoder.model, *given))}
            try:
                module = module_of(self._decoder, name)
            except AttributeError:
                raise NotOffered(name) from None
            if len(given) > 1 or name.endswith(_OTHERWISE):
                raise NotOffered(name)
            return {name: as_numpy(module(given[0]))}


def _by_token(name: str, value: torch.Tensor, tokens: int) -> torch.Tensor:
    """Norms over heads take in (B H T D) in some models, and (B T H D) in others."""
    turned = name.endswith(("q_norm", "k_norm")) and value.dim() == 4 and value.shape[1] != tokens
    return value.transpose(1, 2) if turned else value


def as_torch(value: np.ndarray) -> torch.Tensor:
    if value.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(np.array(value).view(np.uint16)).view(torch.bfloat16)
    tensor = torch.from_numpy(np.array(value))
    return tensor if tensor.is_floating_point() else tensor.long()
