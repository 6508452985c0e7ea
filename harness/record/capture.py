"""Run the reference once and keep every tensor that its components put out.

Modules are watched with hooks; what has no module is seen where it passes by: attention's steps in the modeling
file's own eager attention function, sums and products as the inputs of the modules that take them. Tensors are kept
as they are, strides too: a product of the same numbers laid out otherwise may round otherwise.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from harness.compare.metrics import Places
from harness.errors import GoldensError
from harness.kinds.step import Evaluation, Step
from harness.kinds.table import STEPS, at_keys
from harness.model import Component
from harness.record.discover import Decoder, Module, component_name, reset_frequencies
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
    if past is None:
        reset_frequencies(decoder)
    seen: Captured = dict(case)
    with _watching(decoder, seen):
        decoder.model(
            input_ids=case["case.token_ids"],
            attention_mask=case["case.attention_mask"],
            position_ids=case["case.positions"],
            past_key_values=None if past is None else past.cache,
            use_cache=past is not None,
        )
    _complete(decoder.model, components, seen, {} if past is None else past.held)
    return seen


def _complete(model: Module, components: list[Component], seen: Captured, held: Captured) -> None:
    """Hold every captured tensor against its own evaluation, and evaluate the few that nothing lets see.

    Expanded keys and values and the scores pass only inside the attention function; that the probabilities and the
    context evaluated from them are bit-equal to the captured ones is what proves them.
    """
    keys = at_keys(components) if held else frozenset()
    xp = TorchArrays(next(model.parameters()).dtype)
    parameters = dict(model.named_parameters())
    for component in components:
        if component.step is None:
            seen[component.name] = seen[component.composite_of or component.name]
            continue
        inputs = {argument: seen[source] for argument, source in component.inputs.items()}
        if component.name in keys:
            inputs["x"] = _with_past(held, component.inputs["x"], inputs["x"], STEPS[component.step])
        own = {role: parameters[name] for role, name in component.parameters.items()}
        output = STEPS[component.step].evaluate(Evaluation(xp, inputs, own, component.settings))
        if component.name in keys:
            output = output.contiguous()  # as the reference's cache is: a product may round by how it lies
        recorded = seen.setdefault(component.name, output)
        if not _equal(recorded, output):
            raise GoldensError(
                f"{component.name} of {type(model).__name__} is not the step {component.step!r} on "
                f"{', '.join(component.inputs.values())}: the reference computes something else there, which "
                "cannot be recorded yet"
            )
        _refuse_nan(component, recorded, seen["case.attention_mask"])


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
    return a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)


@contextmanager
def _watching(decoder: Decoder, seen: Captured) -> Iterator[None]:
    """Keep in `seen` what passes through the decoder while the context is open."""
    with ExitStack() as stack:
        for path, module in decoder.model.named_modules():
            if not list(module.children()):
                name = component_name(path, decoder.prefix)
                stack.enter_context(_hook(module.register_forward_hook, _keep_output(seen, name)))
        attentions = {}
        for number, layer in enumerate(decoder.layers):
            prefix = f"layers.{number}"
            attentions[id(layer.self_attn)] = f"{prefix}.self_attn"
            for module, name in (
                (layer.post_attention_layernorm, f"{prefix}.attn_residual"),
                (layer.mlp.down_proj, f"{prefix}.mlp.gated"),
                (layer.self_attn.o_proj, f"{prefix}.self_attn.context"),
            ):
                stack.enter_context(_hook(module.register_forward_pre_hook, _keep_input(seen, name)))
            stack.enter_context(
                _hook(layer.register_forward_hook, _keep_output(seen, f"{prefix}.mlp_residual"))
            )
        stack.enter_context(_eager_attention(decoder.layers[0].self_attn, attentions, seen))
        yield


@contextmanager
def _hook(register: Callable[..., Any], hook: Callable[..., None]) -> Iterator[None]:
    handle = register(hook)
    try:
        yield
    finally:
        handle.remove()


def _keep_output(seen: Captured, name: str) -> Callable[..., None]:
    def hook(module: nn.Module, args: Any, output: Any) -> None:
        if name == "rotary_emb":
            seen["rotary_emb.cos"], seen["rotary_emb.sin"] = output
        else:
            seen[name] = output[0] if isinstance(output, tuple) else output

    return hook


def _keep_input(seen: Captured, name: str) -> Callable[..., None]:
    def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        seen[name] = args[0]

    return hook


@contextmanager
def _eager_attention(attention: Module, names: dict[int, str], seen: Captured) -> Iterator[None]:
    """Stand in front of the modeling file's own eager attention function, and call it."""
    modeling: Any = sys.modules[type(attention).__module__]
    eager = getattr(modeling, "eager_attention_forward", None)
    if eager is None:
        raise GoldensError(
            f"{type(attention).__name__} has no eager attention function to watch: its steps cannot be recorded"
        )

    def watched(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any
    ) -> Any:
        output, probs = eager(module, query, key, value, *args, **kwargs)
        name = names[id(module)]
        own = key[:, :, -query.shape[2] :]  # with a cache, all keys come here
        seen[f"{name}.q_rope"], seen[f"{name}.k_rope"], seen[f"{name}.probs"] = query, own, probs
        return output, probs

    modeling.eager_attention_forward = watched
    try:
        yield
    finally:
        modeling.eager_attention_forward = eager
