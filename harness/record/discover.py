"""Which components a reference has, from its module tree and a table per step.

Knows the decoder that Llama made common: pre-norm layers of `self_attn` and `mlp`, with rotary embedding, shared
key-value heads, and a norm over each head where the model has one. Nothing here is believed on sight: the recorder
evaluates every component on the inputs that this wiring gives it and refuses one that is not bit-equal.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from harness.errors import GoldensError
from harness.kinds.frequencies import scaling_of
from harness.kinds.table import STEPS
from harness.model import Component

PADDING = "case.attention_mask"
Module = Any
"""A torch module. torch types what a module has as tensor or module, so that no part of one could be used."""


@dataclass(frozen=True)
class Decoder:
    """The parts of a reference that are found by attribute.

    model: the causal language model; base: the decoder inside it; prefix: the base's name in the model
    """

    model: Module
    base: Module
    prefix: str
    layers: tuple[Module, ...]


def find_decoder(model: Module) -> Decoder:
    """Take a causal language model apart, or say which part of it is not known."""
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
    return Decoder(model, base, prefix, tuple(base.layers))


def discover(decoder: Decoder) -> list[Component]:
    """The components of a model in forward order, composites after what they are made of."""
    names = _ParameterNames(decoder.model)
    components = list(_components(decoder, names))
    _refuse_unknown(decoder, {component.name for component in components})
    return components


class _ParameterNames:
    """The reference's name of each parameter; tied ones have one name."""

    def __init__(self, model: Module) -> None:
        self._names = {id(parameter): name for name, parameter in model.named_parameters()}

    def of(self, module: Module) -> dict[str, str]:
        return {
            role: self._names[id(p)] for role, p in module.named_parameters(recurse=False) if p is not None
        }


def _components(decoder: Decoder, names: _ParameterNames) -> Iterator[Component]:
    base = decoder.base
    yield _component(
        "embed_tokens", "embedding", {"token_ids": "case.token_ids"}, names.of(base.embed_tokens)
    )
    rotary = _rotary_settings(base.rotary_emb)
    for part in ("cos", "sin"):
        yield _component(f"rotary_emb.{part}", part, {"positions": "case.positions"}, settings=rotary)
    stream = "embed_tokens"
    for number, layer in enumerate(decoder.layers):
        prefix = f"layers.{number}"
        yield from _layer(prefix, layer, stream, rotary["head_dim"], names)
        stream = f"{prefix}.mlp_residual"
    yield _norm("norm", base.norm, stream, names)
    yield _component("lm_head", "linear", {"x": "norm"}, names.of(decoder.model.lm_head))


def _layer(
    prefix: str, layer: Module, stream: str, head_dim: int, names: _ParameterNames
) -> Iterator[Component]:
    first, second = f"{prefix}.input_layernorm", f"{prefix}.post_attention_layernorm"
    yield _norm(first, _part(layer, prefix, "input_layernorm"), stream, names)
    attention, mlp = f"{prefix}.self_attn", f"{prefix}.mlp"
    yield from _attention(attention, _part(layer, prefix, "self_attn"), first, head_dim, names)
    yield _composite(attention, f"{attention}.o_proj")
    middle, end = f"{prefix}.attn_residual", f"{prefix}.mlp_residual"
    yield _component(middle, "residual", {"residual": stream, "branch": f"{attention}.o_proj"})
    yield _norm(second, _part(layer, prefix, "post_attention_layernorm"), middle, names)
    yield from _mlp(mlp, _part(layer, prefix, "mlp"), second, names)
    yield _composite(mlp, f"{mlp}.down_proj")
    yield _component(end, "residual", {"residual": middle, "branch": f"{mlp}.down_proj"})
    yield _composite(prefix, end)


def _attention(
    name: str, attention: Module, source: str, head_dim: int, names: _ParameterNames
) -> Iterator[Component]:
    for part in ("q_proj", "k_proj", "v_proj"):
        yield _component(f"{name}.{part}", "linear", {"x": source}, names.of(_part(attention, name, part)))
    turned = {}
    for letter in "qk":
        heads = f"{name}.{letter}_proj"
        norm = getattr(attention, f"{letter}_norm", None)
        if norm is not None:
            yield _norm(f"{name}.{letter}_norm", norm, heads, names, head_dim)
            heads = f"{name}.{letter}_norm"
        turned[letter] = f"{name}.{letter}_rope"
        yield _component(
            turned[letter], "rope", {"x": heads, "cos": "rotary_emb.cos", "sin": "rotary_emb.sin"}
        )
    yield _cached(f"{name}.k_cache", turned["k"], "B K T D")
    yield _cached(f"{name}.v_cache", f"{name}.v_proj", "B T O")
    groups = attention.num_key_value_groups
    yield _component(f"{name}.k_expanded", "expand_keys", {"x": turned["k"]}, settings={"groups": groups})
    yield _component(
        f"{name}.v_expanded",
        "expand_values",
        {"x": f"{name}.v_proj"},
        settings={"groups": groups, "head_dim": head_dim},
    )
    yield _component(
        f"{name}.scores",
        "scores",
        {"q": turned["q"], "k": f"{name}.k_expanded"},
        settings={"scaling": attention.scaling},
    )
    yield _component(
        f"{name}.probs",
        "probs",
        {"scores": f"{name}.scores", "attention_mask": PADDING, "query_index": "case.query_index"},
        settings={"window": _window(attention)},
    )
    yield _component(f"{name}.context", "context", {"probs": f"{name}.probs", "v": f"{name}.v_expanded"})
    yield _component(
        f"{name}.o_proj", "linear", {"x": f"{name}.context"}, names.of(_part(attention, name, "o_proj"))
    )


def _mlp(name: str, mlp: Module, source: str, names: _ParameterNames) -> Iterator[Component]:
    for part in ("gate_proj", "up_proj"):
        yield _component(f"{name}.{part}", "linear", {"x": source}, names.of(_part(mlp, name, part)))
    _part(mlp, name, "act_fn")
    yield _component(f"{name}.act", "silu", {"x": f"{name}.gate_proj"})
    yield _component(f"{name}.gated", "gated", {"act": f"{name}.act", "up": f"{name}.up_proj"})
    yield _component(
        f"{name}.down_proj", "linear", {"x": f"{name}.gated"}, names.of(_part(mlp, name, "down_proj"))
    )


def _component(
    name: str,
    step: str,
    inputs: dict[str, str],
    parameters: dict[str, str] | None = None,
    settings: dict[str, Any] | None = None,
) -> Component:
    return Component(
        name=name,
        kind="rms_norm" if step in ("rms_norm", "head_norm") else name.rpartition(".")[2],
        axes=STEPS[step].output,
        step=step,
        inputs=inputs,
        parameters=parameters or {},
        settings=settings or {},
        exact=STEPS[step].exact,
    )


def _norm(
    name: str, module: Module, source: str, names: _ParameterNames, head_dim: int | None = None
) -> Component:
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if eps is None:
        raise GoldensError(
            f"{name} is a {type(module).__name__}, which is not a known norm: it has no epsilon"
        )
    step = "rms_norm" if head_dim is None else "head_norm"
    settings = {"eps": float(eps), "head_dim": head_dim}
    return _component(name, step, {"x": source}, names.of(module), settings)


def _composite(name: str, inner: str) -> Component:
    kind = name.rpartition(".")[2]
    return Component(name=name, kind="layer" if kind.isdecimal() else kind, axes="B T C", composite_of=inner)


def _cached(name: str, inner: str, axes: str) -> Component:
    return Component(name, name.rpartition(".")[2], axes, composite_of=inner, cached=True)


def _window(attention: Module) -> int | None:
    """A layer's own sliding window, or the one that the configuration has for all."""
    if hasattr(attention, "sliding_window"):
        return attention.sliding_window
    return getattr(attention.config, "sliding_window", None)


def _rotary_settings(rotary: Module) -> dict[str, Any]:
    """The base, the size of a head, and `scaling` where frequencies are stretched."""
    parameters = getattr(rotary.config, "rope_parameters", None) or {}
    scaling = scaling_of(parameters, rotary.config.max_position_embeddings)
    theta = parameters.get("rope_theta", getattr(rotary.config, "rope_theta", None))
    if theta is None:
        raise GoldensError("rotary_emb has no rope_theta in the configuration that was loaded")
    settings = {"theta": float(theta), "head_dim": 2 * rotary.inv_freq.numel()}
    return settings if scaling is None else {**settings, "scaling": scaling}


def reset_frequencies(decoder: Decoder) -> None:
    """As they are when the reference is loaded: a dynamic rope keeps those of the longest text that it has seen."""
    rotary = decoder.base.rotary_emb
    if getattr(rotary, "rope_type", None) == "dynamic":
        rotary.register_buffer("inv_freq", rotary.original_inv_freq.clone(), persistent=False)
        rotary.max_seq_len_cached = rotary.original_max_seq_len


def _part(module: Module, name: str, part: str) -> Module:
    found = getattr(module, part, None)
    if found is None:
        raise GoldensError(f"{name} is a {type(module).__name__} without {part}: its steps are not known")
    return found


def component_name(path: str, prefix: str) -> str:
    """The component that a module at `path` is: without the base's name, and the activation by its step's name."""
    name = path.removeprefix(f"{prefix}.")
    return f"{name.removesuffix('.act_fn')}.act" if name.endswith(".act_fn") else name


def _refuse_unknown(decoder: Decoder, known: set[str]) -> None:
    """Every leaf of the module tree is a component, or recording would look away from it."""
    unknown = []
    for path, module in decoder.model.named_modules():
        name = component_name(path, decoder.prefix)
        is_known = name in known or f"{name}.cos" in known
        if path and not list(module.children()) and not is_known:
            unknown.append(f"{path} ({type(module).__name__})")
    if unknown:
        raise GoldensError(f"no step is known for {', '.join(unknown[:5])}: they would not be compared")
