"""Run the reference once and keep every tensor that its components put out.

Modules are watched with hooks; what has no module is seen where it passes by: attention's steps in the modeling
file's own eager attention function, sums and products as the inputs of the modules that take them. Tensors are kept
as they are, strides too: a product of the same numbers laid out otherwise may round otherwise.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from harness.compare.metrics import Places
from harness.errors import GoldensError
from harness.kinds.step import Evaluation, Step
from harness.kinds.table import STEPS, at_keys
from harness.model import LOGITS, Component
from harness.record.decoder import Decoder, component_name, module_of, reset_frequencies
from harness.record.modules import angle_name, code_of, is_alone, is_module, place_of, put_out, taken_in
from harness.record.torch_arrays import TorchArrays

Captured = dict[str, Tensor]


@dataclass(frozen=True)
class Past:
    """What was read before: the reference's cache, and what it holds by the components that were written to it."""

    cache: Any
    held: Captured


@torch.inference_mode()
def capture(
    decoder: Decoder, components: list[Component], case: Captured, past: Past | None = None
) -> Captured:
    """component name -> what the reference put out for `case`, in the model's dtype.

    case: `case.token_ids`, `case.attention_mask`, `case.positions`, `case.query_index`.
    past: what the cache holds of earlier tokens; then what is taken in at every key (`k_expanded`) has T = S
    Raises GoldensError if a component, evaluated on the inputs its wiring names, is not bit-equal to the reference.
    """
    seen = run(decoder, components, case, past)
    held = {} if past is None else past.held
    for component in unproved(decoder, components, seen, held):
        raise GoldensError(
            f"{component.name} of {type(decoder.model).__name__} is not {_said(component)}: the reference computes "
            "something else there, which cannot be recorded yet"
        )
    for component in components:
        _refuse_nan(component, seen[component.name], seen["case.attention_mask"])
    return seen


def _said(component: Component) -> str:
    return f"the step {component.step!r} on {', '.join(component.inputs.values())}"


@torch.inference_mode()
def run(decoder: Decoder, components: list[Component], case: Captured, past: Past | None = None) -> Captured:
    """What passes by of the components; some pass nowhere."""
    if past is None:
        reset_frequencies(decoder)
    seen: Captured = dict(case)
    with _watching(decoder, components, seen):
        output = decoder.model(
            input_ids=case["case.token_ids"],
            attention_mask=case["case.attention_mask"],
            position_ids=case["case.positions"],
            past_key_values=None if past is None else past.cache,
            use_cache=past is not None,
        )
    seen[LOGITS] = output.logits
    return seen


@torch.inference_mode()
def unproved(
    decoder: Decoder, components: list[Component], seen: Captured, held: Captured
) -> Iterator[Component]:
    """Hold every captured tensor against its own evaluation, and evaluate the few that nothing lets see.

    Expanded keys and values and the scores pass only inside the attention function; that the probabilities and the
    context evaluated from them are bit-equal to the captured ones is what proves them. Yields the components whose
    evaluation is another one.
    """
    model = decoder.model
    keys = at_keys(components) if held else frozenset()
    xp = TorchArrays(next(model.parameters()).dtype)
    parameters = dict(model.named_parameters())
    for component in components:
        if component.composite_of is not None:
            seen[component.name] = seen[component.composite_of]
            continue
        if component.step is None:  # a module: what it took in is what its wiring says
            if "x" in component.inputs and not _equal(seen[component.inputs["x"]], seen[_x_of(component)]):
                yield component
            continue
        inputs = {argument: seen[source] for argument, source in component.inputs.items()}
        if component.name in keys:
            inputs["x"] = _with_past(held, component.inputs["x"], inputs["x"], STEPS[component.step])
        if is_alone(component):
            output = put_out(component, module_of(decoder, component.name)(inputs["x"]))
        else:
            own = {role: parameters[name] for role, name in component.parameters.items()}
            output = STEPS[component.step].evaluate(Evaluation(xp, inputs, own, component.settings))
        if component.name in keys:
            output = output.contiguous()  # as the reference's cache is: a product may round by how it lies
        recorded = seen.setdefault(component.name, output)
        if _equal(recorded, output):
            continue
        if recorded.dim() == 4 and _equal(recorded.transpose(1, 2), output):  # norms take heads either way
            seen[component.name] = recorded.transpose(1, 2)
            continue
        yield component


def _with_past(held: Captured, source: str, own: Tensor, step: Step) -> Tensor:
    """What the cache held of a component, and its output now."""
    return torch.cat((held[source], own), dim=step.arguments["x"].split().index("T"))


def _refuse_nan(component: Component, recorded: Tensor, attention_mask: Tensor) -> None:
    """Nothing can be compared with NaN or infinity. float16 overflows for real; then where it does is compared."""
    if recorded.dtype == torch.float16:
        return
    keys = attention_mask.numpy() != 0
    tokens = recorded.shape[component.axes.split().index("T")]
    real = Places(queries=keys[:, -tokens:], keys=keys)
    strange = ~torch.isfinite(recorded) & torch.from_numpy(real.valid(component.axes))
    if strange.any():
        raise GoldensError(
            f"{component.name} is NaN or infinite in {int(strange.sum())} of {strange.numel()} elements of the "
            "reference: is the checkpoint whole?"
        )


def _equal(a: Tensor, b: Tensor) -> bool:
    """Number for number; float16 overflows for real, so NaN is equal to NaN."""
    alike = a.shape == b.shape and a.dtype == b.dtype
    return alike and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)


@contextmanager
def _watching(decoder: Decoder, components: list[Component], seen: Captured) -> Iterator[None]:
    """Keep in `seen` what passes through the decoder while the context is open."""
    known = {component.name: component for component in components}
    modules = {place_of(c): c for c in components if is_module(c)}
    with ExitStack() as stack:
        for path, module in decoder.model.named_modules():
            name = component_name(path, decoder.prefix)
            name = f"{name}.product" if f"{name}.product" in known else name
            if name == "rotary_emb":
                stack.enter_context(_hook(module, _keep_angles(seen)))
            elif name in modules or (name in known and not list(module.children())):
                stack.enter_context(_hook(module, _keep_output(seen, known[name])))
            if name in known and "x" in known[name].inputs:
                stack.enter_context(_pre_hook(module, _keep_input(seen, known[name])))
        for number, layer in enumerate(decoder.layers):
            end = f"layers.{number}.mlp_residual"
            if number == 0:
                stack.enter_context(_pre_hook(layer, _keep_first(seen)))
            if end in known:
                stack.enter_context(_hook(layer, _keep_output(seen, known[end])))
        stack.enter_context(_eager_attention(decoder, known, seen))
        yield


@contextmanager
def _hook(module: nn.Module, hook: Callable[..., None]) -> Iterator[None]:
    handle = module.register_forward_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _pre_hook(module: nn.Module, hook: Callable[..., None]) -> Iterator[None]:
    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _keep_output(seen: Captured, component: Component) -> Callable[..., None]:
    def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        seen[component.name] = put_out(component, output)

    return hook


def _keep_angles(seen: Captured) -> Callable[..., None]:
    def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        for part, value in zip(("cos", "sin"), output, strict=True):
            seen[angle_name(args, kwargs, part)] = value

    return hook


def _keep_input(seen: Captured, component: Component) -> Callable[..., None]:
    """Also as what its source put out: sums and products have no module that would show it."""

    def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
        value = taken_in(args, kwargs)
        seen[_x_of(component)] = value
        seen.setdefault(component.inputs["x"], value)

    return hook


def _x_of(component: Component) -> str:
    return f"{component.name}/x"


def _keep_first(seen: Captured) -> Callable[..., None]:
    """The embedding as the layers take it in: some models scale it behind the module."""

    def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
        seen["embed_tokens"] = taken_in(args, kwargs)

    return hook


@contextmanager
def _eager_attention(decoder: Decoder, known: Mapping[str, Component], seen: Captured) -> Iterator[None]:
    """Stand in front of the modeling file's own eager attention function, and call it."""
    names = {
        id(layer.self_attn): f"layers.{number}.self_attn"
        for number, layer in enumerate(decoder.layers)
        if f"layers.{number}.self_attn.scores" in known
    }
    if not names:
        yield
        return
    modeling = code_of(next(layer.self_attn for layer in decoder.layers if id(layer.self_attn) in names))
    eager = modeling.eager_attention_forward

    def watched(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any
    ) -> Any:
        output, probs = eager(module, query, key, value, *args, **kwargs)
        if name := names.get(id(module)):
            own = key[:, :, -query.shape[2] :]  # with a cache, all keys come here
            queries, keys = known[f"{name}.scores"].inputs["q"], known[f"{name}.k_expanded"].inputs["x"]
            seen[queries], seen[keys], seen[f"{name}.probs"] = query, own, probs
        return output, probs

    modeling.eager_attention_forward = watched
    try:
        yield
    finally:
        modeling.eager_attention_forward = eager
