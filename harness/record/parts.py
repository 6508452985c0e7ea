"""Components of single modules: which step a norm, an activation or an embedding is, by trying it.

A class name says nothing here. A copy of the module with random parameters is run beside every step that it may be, in
float32 and in bfloat16, and is the one that gives the same bits.
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from harness.kinds.frequencies import scaling_of
from harness.kinds.step import Evaluation
from harness.kinds.table import STEPS
from harness.model import Component
from harness.record.decoder import Decoder, Module, module_of
from harness.record.torch_arrays import TorchArrays

TRIED_IN = (torch.float32, torch.bfloat16)


class UnknownStep(Exception):
    """No step is known for a part of the reference. The text says of which and why, without its place."""


class ParameterNames:
    """The reference's name of each parameter; tied ones have one name."""

    def __init__(self, model: Module) -> None:
        self._names = {id(parameter): name for name, parameter in model.named_parameters()}

    def of(self, module: Module) -> dict[str, str]:
        return {
            role: self._names[id(p)] for role, p in module.named_parameters(recurse=False) if p is not None
        }


def step_component(
    name: str,
    step: str,
    inputs: Mapping[str, str],
    parameters: Mapping[str, str] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Component:
    norm = step in ("rms_norm", "head_norm", "layer_norm")
    return Component(
        name=name,
        kind=step.replace("head_norm", "rms_norm") if norm else name.rpartition(".")[2],
        axes=STEPS[step].output,
        step=step,
        inputs=dict(inputs),
        parameters=dict(parameters or {}),
        settings=dict(settings or {}),
        exact=STEPS[step].exact,
    )


def part_of(module: Module, part: str) -> Module:
    found = getattr(module, part, None)
    if found is None:
        raise UnknownStep(f"a {type(module).__name__} has no {part}")
    return found


def linear(name: str, module: Module, source: str, names: ParameterNames) -> Component:
    return step_component(name, "linear", {"x": source}, names.of(module))


def norm(
    name: str, module: Module, source: str, names: ParameterNames, head_dim: int | None = None
) -> Component:
    """A norm over the whole of its input, or, with `head_dim`, over each head of it."""
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if eps is None:
        raise UnknownStep(f"a {type(module).__name__} has no epsilon")
    rms: dict[str, Any] = {"eps": float(eps), "head_dim": head_dim}
    candidates = [
        ("rms_norm" if head_dim is None else "head_norm", rms | more)
        for more in ({}, {"weighted": "wide"}, {"weighted": "plus_one"})
    ]
    if head_dim is None:
        candidates += [("layer_norm", {"eps": float(eps), **more}) for more in ({}, {"wide": True})]
    step, settings = _tried(module, candidates, (2, 3, *_width(module, head_dim)))
    return step_component(name, step, {"x": source}, names.of(module), settings)


def _width(module: Module, head_dim: int | None) -> tuple[int, ...]:
    """The sizes of what a norm is over, two heads of them where it is over heads."""
    weights = list(module.parameters())
    if head_dim is not None:
        return 2, head_dim
    return (weights[0].numel(),) if weights else tuple(module.normalized_shape)


def activation(name: str, module: Module, source: str) -> Component:
    step, _ = _tried(module, [(step, {}) for step in ("silu", "gelu_tanh", "gelu")], (2, 3, 64))
    return step_component(name, step, {"x": source})


def embedding(decoder: Decoder, names: ParameterNames, first: Tensor, token_ids: Tensor) -> Component:
    """The table, scaled as what the first layer took in for `token_ids` shows."""
    module = decoder.base.embed_tokens
    inputs, parameters = {"token_ids": "case.token_ids"}, names.of(module)
    weights = {role: p.to(first.dtype) for role, p in module.named_parameters(recurse=False)}
    xp = TorchArrays(first.dtype)
    for step, settings in _scales(decoder):
        e = Evaluation(xp, {"token_ids": token_ids}, weights, settings)
        if torch.equal(STEPS[step].evaluate(e), first):
            return step_component("embed_tokens", step, inputs, parameters, settings)
    raise UnknownStep("what the first layer takes in is no row of embed_tokens, scaled or not")


def _scales(decoder: Decoder) -> Iterator[tuple[str, dict[str, float]]]:
    """By sqrt(hidden size) inside the embedding or behind it, or by a number of the configuration."""
    yield "embedding", {}
    module = decoder.base.embed_tokens
    for scale in (getattr(module, "scalar_embed_scale", None), decoder.model.config.hidden_size**0.5):
        if scale is not None:
            yield "scaled_embedding", {"scale": float(scale)}
    multiplier = getattr(decoder.base, "embedding_multiplier", None)
    if multiplier is not None:
        yield "scaled_embedding", {"multiplier": float(multiplier)}


@torch.inference_mode()
def _tried(
    module: Module, candidates: list[tuple[str, dict[str, Any]]], shape: tuple[int, ...]
) -> tuple[str, dict[str, Any]]:
    """The first step that is bit-equal to the module, in every dtype that is tried."""
    for step, settings in candidates:
        try:
            if all(_is(module, step, settings, shape, dtype) for dtype in TRIED_IN):
                return step, settings
        except (TypeError, RuntimeError):  # it takes in something else, or has other parameters
            continue
    raise UnknownStep(
        f"a {type(module).__name__} computes none of {', '.join(step for step, _ in candidates)}"
    )


def _is(module: Module, step: str, settings: Mapping[str, Any], shape: tuple[int, ...], dtype: Any) -> bool:
    draw = torch.Generator().manual_seed(0)
    copy = deepcopy(module).to(dtype)
    for parameter in copy.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=draw) + 0.5)
    x = (torch.randn(shape, generator=draw) * 2 + 0.25).to(dtype)
    flat = x.flatten(2)
    e = Evaluation(TorchArrays(dtype), {"x": flat}, dict(copy.named_parameters()), settings)
    return torch.equal(copy(x), STEPS[step].evaluate(e))


@torch.inference_mode()
def hands_on(module: Module) -> bool:
    """Whether a module without parameters gives what it is given, as dropout does in a model that is not trained."""
    if list(module.parameters()):
        return False
    x = torch.linspace(-2, 2, 8)
    try:
        return module(x) is x or torch.equal(module(x), x)
    except Exception:  # it takes in something else
        return False


def rotary(decoder: Decoder) -> Iterator[Component]:
    """Cosines and sines, of each type of layer that turns by angles of its own."""
    module = decoder.base.rotary_emb
    for layer_type in rotary_types(decoder):
        settings = rotary_settings(module, layer_type)
        for part in ("cos", "sin"):
            yield step_component(
                angles(layer_type, part), part, {"positions": "case.positions"}, settings=settings
            )


def angles(layer_type: str | None, part: str) -> str:
    """The component of the cosines or sines of a type of layer."""
    return f"rotary_emb.{part}" if layer_type is None else f"rotary_emb.{layer_type}.{part}"


def rotary_types(decoder: Decoder) -> list[str | None]:
    """The types of layers that have angles of their own; None for all layers alike."""
    parameters = getattr(decoder.base.rotary_emb.config, "rope_parameters", None) or {}
    own = [name for name, value in parameters.items() if isinstance(value, Mapping)]
    used = set(getattr(decoder.model.config, "layer_types", None) or own)
    return [name for name in own if name in used] or [None]


def rotary_settings(module: Module, layer_type: str | None = None) -> dict[str, Any]:
    """The base, the number of channels that turn, and `scaling` where frequencies are stretched."""
    parameters = getattr(module.config, "rope_parameters", None) or {}
    if layer_type is not None:
        parameters = parameters[layer_type]
    scaling = scaling_of(parameters, module.config.max_position_embeddings)
    theta = parameters.get("rope_theta", getattr(module.config, "rope_theta", None))
    if theta is None:
        raise UnknownStep("the configuration that was loaded has no rope_theta")
    if layer_type is not None and (scaling or {}).get("rope_type") == "dynamic":
        raise UnknownStep("dynamic RoPE of one type of layer")
    frequencies = module.inv_freq if layer_type is None else getattr(module, f"{layer_type}_inv_freq")
    settings = {"theta": float(theta), "head_dim": 2 * frequencies.numel()}
    return settings if scaling is None else {**settings, "scaling": scaling}


def head(decoder: Decoder, names: ParameterNames, source: str) -> Iterator[Component]:
    """The logits: the product, or what is made of it before tokens are chosen."""
    module = module_of(decoder, "lm_head")
    processed = logits_made_by(decoder)
    if processed is None:
        yield linear("lm_head", module, source, names)
        return
    step, settings = processed
    yield linear("lm_head.product", module, source, names)
    yield step_component("lm_head", step, {"x": "lm_head.product"}, settings=settings)


def logits_made_by(decoder: Decoder) -> tuple[str, dict[str, float]] | None:
    """The step that makes logits of the head's product, with its settings; None where they are that."""
    for step, setting, name in (
        ("capped_logits", "cap", "final_logit_softcapping"),
        ("scaled_logits", "divisor", "logits_scaling"),
        ("scaled_logits", "multiplier", "logit_scale"),
    ):
        value = getattr(decoder.model.config, name, None)
        if value is not None:
            return step, {setting: float(value)}
    return None
