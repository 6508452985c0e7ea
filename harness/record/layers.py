"""The components of a decoder layer, by what its modules are called, and where their inputs come from.

Several ways to put a layer together are known: norms before attention and `mlp`, behind them, or both; projections by
themselves or fused; with a gate or without one. What is found here is a proposal: the recorder evaluates every
component, and records a part that computes something else as a module.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from harness.model import Component
from harness.record import modules
from harness.record.decoder import ACTIVATIONS, Module, activation_of
from harness.record.parts import (
    ParameterNames,
    UnknownStep,
    activation,
    linear,
    norm,
    part_of,
    step_component,
)

PADDING = "case.attention_mask"


@dataclass(frozen=True)
class Given:
    """What every layer is given.

    angles: the components of its cosines and sines, if there are any; turning: how many channels of a head turn
    coarser: the parts that are recorded as modules, and why
    """

    names: ParameterNames
    angles: Sequence[str]
    turning: int
    coarser: Mapping[str, str]

    @property
    def every(self) -> dict[str, str]:
        """What a part that is a module takes in beside its `x`."""
        places = {"attention_mask": PADDING, "query_index": "case.query_index"}
        return (self.turned_by or {"positions": "case.positions"}) | places

    @property
    def turned_by(self) -> dict[str, str]:
        return dict(zip(("cos", "sin"), self.angles, strict=False))


@dataclass(frozen=True)
class Norms:
    """What a layer's norms are called: before and behind attention, before and behind `mlp`; None where there is none.

    parallel: `mlp` takes in what attention does
    """

    before_attention: str | None
    behind_attention: str | None
    before_mlp: str | None
    behind_mlp: str | None
    parallel: bool


def norms_of(layer: Module) -> Norms:
    def there(name: str) -> str | None:
        return name if getattr(layer, name, None) is not None else None

    first, middle = there("input_layernorm"), there("post_attention_layernorm")
    before, behind = there("pre_feedforward_layernorm"), there("post_feedforward_layernorm")
    if before or behind:
        return Norms(first, middle, before, behind, parallel=False)
    return Norms(first, None, middle, None, parallel=middle is None)


class Layer:
    """One layer. stream: the component whose output it takes in."""

    def __init__(self, name: str, module: Module, stream: str, given: Given) -> None:
        self._name, self._module, self._stream, self._given = name, module, stream, given

    def components(self) -> list[Component]:
        """The last one is the layer itself."""
        if self._name in self._given.coarser:
            return [self._as_module()]
        try:
            return list(self._components())
        except UnknownStep as error:
            return [self._as_module(str(error))]

    def _as_module(self, because: str = "") -> Component:
        because = because or self._given.coarser[self._name]
        return modules.component(
            self._name, self._module, {"x": self._stream, **self._given.every}, because, "B T C"
        )

    def _components(self) -> Iterator[Component]:
        norms, stream = norms_of(self._module), self._stream
        source = stream
        if norms.before_attention:
            source = f"{self._name}.{norms.before_attention}"
            yield self._norm(norms.before_attention, stream)
        attention = self._part("self_attn", source, _attention, self._given.every)
        yield from attention
        middle, branch = f"{self._name}.attn_residual", _output(attention[-1])
        if norms.behind_attention:
            yield self._norm(norms.behind_attention, branch)
            branch = f"{self._name}.{norms.behind_attention}"
        yield self._sum(middle, stream, branch)
        source = source if norms.parallel else middle
        if norms.before_mlp:
            source = f"{self._name}.{norms.before_mlp}"
            yield self._norm(norms.before_mlp, middle)
        mlp = self._part("mlp", source, _mlp, {})
        yield from mlp
        end, branch = f"{self._name}.mlp_residual", _output(mlp[-1])
        if norms.behind_mlp:
            yield self._norm(norms.behind_mlp, branch)
            branch = f"{self._name}.{norms.behind_mlp}"
        yield self._sum(end, middle, branch)
        yield composite(self._name, end)

    def _norm(self, part: str, source: str) -> Component:
        name, module = f"{self._name}.{part}", part_of(self._module, part)
        try:
            return norm(name, module, source, self._given.names)
        except UnknownStep as error:
            return modules.component(name, module, {"x": source}, str(error), "B T C", alone=True)

    def _sum(self, name: str, residual: str, branch: str) -> Component:
        multiplier = getattr(self._module, "residual_multiplier", None)
        settings = {} if multiplier is None else {"multiplier": float(multiplier)}
        return step_component(name, "residual", {"residual": residual, "branch": branch}, settings=settings)

    def _part(self, part: str, source: str, steps: Any, more: Mapping[str, str]) -> list[Component]:
        """Attention or `mlp`, step by step, or as a module. The last component is the part itself."""
        name, module = f"{self._name}.{part}", part_of(self._module, part)
        because = self._given.coarser.get(name)
        if because is None:
            try:
                return list(steps(name, module, source, self._given))
            except UnknownStep as error:
                because = str(error)
        inputs = {"x": source, **more}
        return [modules.component(name, module, inputs, because, "B T C", alone=part == "mlp")]


def _output(part: Component) -> str:
    return part.composite_of or part.name


def composite(name: str, inner: str) -> Component:
    kind = name.rpartition(".")[2]
    return Component(name=name, kind="layer" if kind.isdecimal() else kind, axes="B T C", composite_of=inner)


def _cached(name: str, inner: str, axes: str) -> Component:
    return Component(name, name.rpartition(".")[2], axes, composite_of=inner, cached=True)


def _attention(name: str, module: Module, source: str, given: Given) -> Iterator[Component]:
    if not hasattr(modules.code_of(module), "eager_attention_forward"):
        raise UnknownStep(f"a {type(module).__name__} has no eager attention function that could be watched")
    if not given.angles:
        raise UnknownStep("its cosines and sines are no component")
    head_dim = getattr(module, "head_dim", given.turning)
    groups = part_of(module, "num_key_value_groups")
    projected = yield from _projections(name, module, source, head_dim, given)
    turned = {}
    for letter in "qk":
        turned[letter] = yield from _turned(name, letter, module, projected[letter], head_dim, given)
    yield _cached(f"{name}.k_cache", turned["k"], "B K T D")
    yield _cached(f"{name}.v_cache", projected["v"], "B T O")
    yield step_component(f"{name}.k_expanded", "expand_keys", {"x": turned["k"]}, settings={"groups": groups})
    yield step_component(
        f"{name}.v_expanded",
        "expand_values",
        {"x": projected["v"]},
        settings={"groups": groups, "head_dim": head_dim},
    )
    yield step_component(
        f"{name}.scores",
        "scores",
        {"q": turned["q"], "k": f"{name}.k_expanded"},
        settings={"scaling": part_of(module, "scaling")},
    )
    scores, cap = f"{name}.scores", getattr(module, "attn_logit_softcapping", None)
    if cap is not None:
        yield step_component(
            f"{name}.scores_capped", "capped_scores", {"x": scores}, settings={"cap": float(cap)}
        )
        scores = f"{name}.scores_capped"
    yield step_component(
        f"{name}.probs",
        "probs",
        {"scores": scores, "attention_mask": PADDING, "query_index": "case.query_index"},
        settings={"window": _window(module)},
    )
    yield step_component(f"{name}.context", "context", {"probs": f"{name}.probs", "v": f"{name}.v_expanded"})
    yield linear(f"{name}.o_proj", part_of(module, "o_proj"), f"{name}.context", given.names)
    yield composite(name, f"{name}.o_proj")


Names = dict[str, str]


def _projections(
    name: str, module: Module, source: str, head_dim: int, given: Given
) -> Any:  # yields components, and returns which is which
    """Queries, keys and values, by themselves or as the parts of one product."""
    if not hasattr(module, "qkv_proj"):
        for part in ("q_proj", "k_proj", "v_proj"):
            yield linear(f"{name}.{part}", part_of(module, part), source, given.names)
        return {letter: f"{name}.{letter}_proj" for letter in "qkv"}
    fused, output = f"{name}.qkv_proj", part_of(module, "o_proj")
    yield linear(fused, module.qkv_proj, source, given.names)
    queries = output.weight.shape[1]
    keys = queries // module.num_key_value_groups
    ends = {"q": (0, queries), "k": (queries, queries + keys), "v": (queries + keys, queries + 2 * keys)}
    for letter, (start, stop) in ends.items():
        settings = {"start": start, "stop": stop}
        yield step_component(f"{name}.{letter}_part", "part", {"x": fused}, settings=settings)
    return {letter: f"{name}.{letter}_part" for letter in "qkv"}


def _turned(
    name: str, letter: str, module: Module, heads: str, head_dim: int, given: Given
) -> Any:  # yields components, and returns the last one's name
    """Queries or keys as attention takes them: normed where there is a norm, and turned unless the layer does not."""
    own = getattr(module, f"{letter}_norm", None)
    if own is not None:
        whole = sum(p.numel() for p in own.parameters()) != head_dim
        yield norm(f"{name}.{letter}_norm", own, heads, given.names, None if whole else head_dim)
        heads = f"{name}.{letter}_norm"
    if not getattr(module, "use_rope", True):
        yield step_component(f"{name}.{letter}_heads", "heads", {"x": heads}, settings={"head_dim": head_dim})
        return f"{name}.{letter}_heads"
    inputs = {"x": heads, **given.turned_by}
    settings = {} if head_dim == given.turning else {"head_dim": head_dim}
    yield step_component(f"{name}.{letter}_rope", "rope", inputs, settings=settings)
    return f"{name}.{letter}_rope"


def _window(attention: Module) -> int | None:
    """A layer's own sliding window, or the one that the configuration has for all."""
    if hasattr(attention, "sliding_window"):
        return attention.sliding_window
    return getattr(attention.config, "sliding_window", None)


def _mlp(name: str, module: Module, source: str, given: Given) -> Iterator[Component]:
    if not any(hasattr(module, name) for name in ACTIVATIONS):
        raise UnknownStep(f"a {type(module).__name__} has none of {', '.join(ACTIVATIONS)}")
    products = [part for part, child in module.named_children() if type(child) is torch.nn.Linear]
    last, acted = products[-1] if products else "", f"{name}.act"
    for part in products[:-1]:
        yield linear(f"{name}.{part}", getattr(module, part), source, given.names)
    if products == ["gate_proj", "up_proj", "down_proj"]:
        gate, up = f"{name}.gate_proj", f"{name}.up_proj"
    elif products == ["gate_up_proj", "down_proj"]:
        size = module.gate_up_proj.weight.shape[0] // 2
        gate, up = f"{name}.gate_part", f"{name}.up_part"
        for part, start in ((gate, 0), (up, size)):
            settings = {"start": start, "stop": start + size}
            yield step_component(part, "part", {"x": f"{name}.gate_up_proj"}, settings=settings)
    elif len(products) == 2:
        gate, up = f"{name}.{products[0]}", ""
    else:
        raise UnknownStep(f"a {type(module).__name__} has {len(products)} products, {', '.join(products)}")
    yield _act(acted, activation_of(module), gate)
    if up:
        yield step_component(f"{name}.gated", "gated", {"act": acted, "up": up})
    yield linear(f"{name}.{last}", getattr(module, last), f"{name}.gated" if up else acted, given.names)
    yield composite(name, f"{name}.{last}")


def _act(name: str, module: Module, source: str) -> Component:
    try:
        return activation(name, module, source)
    except UnknownStep as error:
        return modules.component(name, module, {"x": source}, str(error), "B T F", alone=True)
