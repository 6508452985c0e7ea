"""Which components a reference has: proposed from its module tree, proved on a short text.

Nothing is believed on sight. Every component is evaluated on the inputs that its wiring gives it, for a text of a few
tokens, and has to be bit-equal to what the reference computes there. The smallest part of a layer that holds one
that is not, or a module or parameter that belongs to none, is recorded as a module: coarser, and said to be.
"""

from collections.abc import Generator, Iterator, Mapping

import torch
from torch import Tensor

from harness.errors import GoldensError
from harness.model import Component
from harness.record import modules
from harness.record.capture import run, unproved
from harness.record.decoder import Decoder, component_name, reset_frequencies
from harness.record.layers import Given, Layer
from harness.record.parts import (
    ParameterNames,
    UnknownStep,
    angles,
    embedding,
    hands_on,
    head,
    norm,
    rotary,
    rotary_types,
)
from harness.record.watch import Captured

TOKENS = 12
"""Of the text that components are proved on: two rows, one of them padded. No window or dynamic RoPE is as short."""


def discover(decoder: Decoder, coarser: Mapping[str, str] | None = None) -> list[Component]:
    """The components of a model in forward order, composites after what they are made of.

    coarser: parts that are recorded as modules, and why, as another dtype showed it
    Raises GoldensError where what is outside the layers is not known.
    """
    found = dict(coarser or {})
    text = _text(decoder)
    while True:
        try:
            components = list(_components(decoder, text, found))
        except UnknownStep as error:
            raise GoldensError(f"{type(decoder.model).__name__} cannot be recorded: {error}") from None
        more = _unexplained(decoder, components, text)
        if not more:
            return components
        before = dict(found)
        for component, because in more:
            part = _part_around(component, before)
            if part is None:
                raise GoldensError(
                    f"{component} of {type(decoder.model).__name__} cannot be recorded: {because}"
                )
            found.setdefault(part, because)


WIDE_ANGLES = "rotary_emb hands out float32 whatever the model's dtype is: recorded within attention"


def coarser_in(components: list[Component]) -> dict[str, str]:
    """The parts that are recorded as modules, and why."""
    found = {modules.place_of(c): str(c.settings["because"]) for c in components if modules.is_module(c)}
    if not any(component.name.startswith("rotary_emb.") for component in components):
        found["rotary_emb"] = WIDE_ANGLES
    return found


def _text(decoder: Decoder) -> Captured:
    """Two rows of tokens that differ, one padded on the left."""
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(0, decoder.base.embed_tokens.weight.shape[0], (2, TOKENS), generator=draw)
    mask = torch.ones_like(ids)
    mask[1, : TOKENS // 3] = 0
    return {
        "case.token_ids": ids,
        "case.attention_mask": mask,
        "case.positions": (mask.cumsum(1) - 1).clamp(min=0),
        "case.query_index": torch.arange(TOKENS),
    }


def _components(decoder: Decoder, text: Captured, coarser: Mapping[str, str]) -> Iterator[Component]:
    names = ParameterNames(decoder.model)
    ids = text["case.token_ids"]
    yield embedding(decoder, names, _taken_by_layers(decoder, ids), ids)
    turning = yield from _angles(decoder, text, coarser)
    stream = "embed_tokens"
    for number, module in enumerate(decoder.layers):
        own = [angles(_type_of(decoder, number), part) for part in ("cos", "sin")] if turning else []
        given = Given(names, own, turning, coarser)
        components = Layer(f"layers.{number}", module, stream, given).components()
        yield from components
        stream = components[-1].composite_of or components[-1].name
    yield norm("norm", decoder.base.norm, stream, names)
    yield from head(decoder, names, "norm")


@torch.inference_mode()
def _taken_by_layers(decoder: Decoder, token_ids: Tensor) -> Tensor:
    """What the first layer takes in. The pass ends there."""
    found: list[Tensor] = []

    class Enough(Exception):
        pass

    def hook(_: object, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        found.append(modules.taken_in(args, kwargs))
        raise Enough

    handle = decoder.layers[0].register_forward_pre_hook(hook, with_kwargs=True)
    try:
        decoder.base(input_ids=token_ids, use_cache=False)
    except Enough:
        pass
    finally:
        handle.remove()
    return found[0]


def _angles(decoder: Decoder, text: Captured, coarser: Mapping[str, str]) -> Generator[Component, None, int]:
    """Cosines and sines. Returns how many channels of a head turn; 0 where there is no component for the angles."""
    module, because, types = decoder.base.rotary_emb, coarser.get("rotary_emb"), rotary_types(decoder)
    x = decoder.base.embed_tokens.weight[:1, None].to(decoder.dtype)
    with torch.inference_mode():
        cos, _ = module(x, text["case.positions"], *(types[:1] if types != [None] else []))
    if because == WIDE_ANGLES or cos.dtype != x.dtype:
        return 0
    if because is None:
        try:
            yield from list(rotary(decoder))
            return int(cos.shape[-1])
        except (UnknownStep, GoldensError) as error:
            because = str(error)
    for layer_type in types:
        for part in ("cos", "sin"):
            name = angles(layer_type, part)
            yield modules.component(name, module, {"positions": "case.positions"}, because, "B T D")
    return int(cos.shape[-1])


def _type_of(decoder: Decoder, number: int) -> str | None:
    """The type of a layer, where types of layers have angles of their own."""
    return None if rotary_types(decoder) == [None] else decoder.model.config.layer_types[number]


def _unexplained(decoder: Decoder, components: list[Component], text: Captured) -> list[tuple[str, str]]:
    """What is no component, and the components that are not what the reference computes, each with a reason."""
    left_out = list(_left_out(decoder, components))
    if left_out:
        return left_out
    try:
        seen = run(decoder, components, text)
        return [(component.name, _said(component)) for component in unproved(decoder, components, seen, {})]
    finally:
        reset_frequencies(decoder)


def _said(component: Component) -> str:
    what = f"the step {component.step!r}" if component.step else "called with what its place says"
    return f"{component.name.rpartition('.')[2]} is not {what}"


def _left_out(decoder: Decoder, components: list[Component]) -> Iterator[tuple[str, str]]:
    """Every leaf of the module tree and every parameter is a component's, or recording would look away from it."""
    known = {component.name for component in components}
    parts = tuple(coarser_in(components))
    names = ParameterNames(decoder.model)
    parameters = {name for component in components for name in component.parameters.values()}

    def is_inside(name: str) -> bool:
        return any(name == part or name.startswith(f"{part}.") for part in parts)

    for path, module in decoder.model.named_modules():
        name = component_name(path, decoder.prefix)
        if is_inside(name) or not path:
            continue
        own = names.of(module).values()
        is_leaf = not list(module.children())
        is_known = name in known or f"{name}.product" in known or name == "rotary_emb" or hands_on(module)
        if (is_leaf and not is_known) or not parameters.issuperset(own):
            yield name, f"no step is known for {name.rpartition('.')[2]}, a {type(module).__name__}"


def _part_around(name: str, coarser: Mapping[str, str]) -> str | None:
    """The smallest part that is not a module yet and has the component in it: attention, `mlp`, a layer, the angles."""
    if name.startswith("rotary_emb"):
        return None if "rotary_emb" in coarser else "rotary_emb"
    first, *rest = name.split(".")
    if first != "layers":
        return None
    layer = f"{first}.{rest[0]}"
    part = f"{layer}.{rest[1]}" if len(rest) > 1 and rest[1] in ("self_attn", "mlp") else layer
    return next((each for each in (part, layer) if each not in coarser), None)
