"""What passes by while the reference runs, and hooks that keep it.

Modules are watched with hooks; what has no module is seen where it passes by: attention's steps in the modeling
file's own eager attention function, sums and products as the inputs of the modules that take them. Tensors are kept
as they are, strides too: a product of the same numbers laid out otherwise may round otherwise.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from harness.model import Component
from harness.record.decoder import Decoder, component_name
from harness.record.modules import angle_name, code_of, is_module, place_of, put_out, taken_in

Captured = dict[str, Tensor]


@dataclass(frozen=True)
class Product:
    """What torch's own `Linear` made of `x`, and how often either had been written to by then."""

    x: Tensor
    output: Tensor
    versions: tuple[int, int]

    @classmethod
    def of(cls, x: Tensor, output: Tensor) -> "Product":
        return cls(x, output, (x._version, output._version))

    def is_of(self, x: Tensor, output: Tensor) -> bool:
        """Whether it is this product, of the very numbers in memory: then to evaluate it again would show nothing."""
        unchanged = self.versions == (self.x._version, self.output._version)
        return unchanged and _same_memory(x, self.x) and _same_memory(output, self.output)


def _same_memory(a: Tensor, b: Tensor) -> bool:
    return (a.data_ptr(), a.dtype, a.shape, a.stride()) == (b.data_ptr(), b.dtype, b.shape, b.stride())


@dataclass
class Passing:
    """A forward pass, and what passed by. reached: called before the first layer, and behind each.

    seen: the case's inputs, to begin with; products: by component
    """

    seen: Captured
    products: dict[str, Product] = field(default_factory=dict)
    reached: Callable[[], object] = lambda: None


@dataclass
class Watch:
    """The pass that runs: several may be on their way, and the hooks are the same for all."""

    now: Passing


@contextmanager
def watching(decoder: Decoder, components: list[Component], watch: Watch) -> Iterator[None]:
    """Keep what passes through the decoder while the context is open."""
    known = {component.name: component for component in components}
    modules = {place_of(c): c for c in components if is_module(c)}
    with ExitStack() as stack:
        for path, module in decoder.model.named_modules():
            name = component_name(path, decoder.prefix)
            name = f"{name}.product" if f"{name}.product" in known else name
            if name == "rotary_emb":
                stack.enter_context(module.register_forward_hook(_keep_angles(watch), with_kwargs=True))
            elif name in modules or (name in known and not list(module.children())):
                stack.enter_context(
                    module.register_forward_hook(_keep_output(watch, known[name]), with_kwargs=True)
                )
            if name in known and "x" in known[name].inputs:
                stack.enter_context(
                    module.register_forward_pre_hook(_keep_input(watch, known[name]), with_kwargs=True)
                )
        for number, layer in enumerate(decoder.layers):
            end = f"layers.{number}.mlp_residual"
            if number == 0:
                stack.enter_context(layer.register_forward_pre_hook(_keep_first(watch), with_kwargs=True))
                stack.enter_context(layer.register_forward_pre_hook(_stop(watch), with_kwargs=True))
            if end in known:
                stack.enter_context(
                    layer.register_forward_hook(_keep_output(watch, known[end]), with_kwargs=True)
                )
            stack.enter_context(layer.register_forward_hook(_stop(watch), with_kwargs=True))
        stack.enter_context(_eager_attention(decoder, known, watch))
        yield


def _stop(watch: Watch) -> Callable[..., None]:
    def hook(*_: Any) -> None:
        watch.now.reached()

    return hook


def _keep_output(watch: Watch, component: Component) -> Callable[..., None]:
    def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        watch.now.seen[component.name] = put_out(component, output)
        if _is_torchs_own(module) and not args[0].is_inference():
            watch.now.products[component.name] = Product.of(args[0], output)

    return hook


def _is_torchs_own(module: nn.Module) -> bool:
    """A product and nothing else: no class of the model's, and no method put over it."""
    return type(module) is nn.Linear and "forward" not in vars(module)


def _keep_angles(watch: Watch) -> Callable[..., None]:
    def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        for part, value in zip(("cos", "sin"), output, strict=True):
            watch.now.seen[angle_name(args, kwargs, part)] = value

    return hook


def _keep_input(watch: Watch, component: Component) -> Callable[..., None]:
    """Also as what its source put out: sums and products have no module that would show it."""

    def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
        value, seen = taken_in(args, kwargs), watch.now.seen
        seen[x_of(component)] = value
        seen.setdefault(component.inputs["x"], value)

    return hook


def x_of(component: Component) -> str:
    return f"{component.name}/x"


def _keep_first(watch: Watch) -> Callable[..., None]:
    """The embedding as the layers take it in: some models scale it behind the module."""

    def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
        watch.now.seen["embed_tokens"] = taken_in(args, kwargs)

    return hook


@contextmanager
def _eager_attention(decoder: Decoder, known: Mapping[str, Component], watch: Watch) -> Iterator[None]:
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
            seen = watch.now.seen
            seen[queries], seen[keys], seen[f"{name}.probs"] = query, own, probs
        return output, probs

    modeling.eager_attention_forward = watched
    try:
        yield
    finally:
        modeling.eager_attention_forward = eager
