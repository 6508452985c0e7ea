"""The shapes of what components put out: their steps, evaluated on tensors that have a shape and nothing else."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from harness.kinds.step import Evaluation
from harness.kinds.table import STEPS
from harness.model import Component
from harness.record.torch_arrays import TorchArrays

Shape = tuple[int, ...]


def shapes_of(
    components: Iterable[Component], parameters: Mapping[str, Shape], batch: int, length: int
) -> dict[str, Shape]:
    """component -> shape at every token. components: in forward order, all that they take in among them."""
    components = list(components)
    tokens = torch.empty(batch, length, dtype=torch.long, device="meta")
    seen = {f"case.{name}": tokens for name in ("token_ids", "attention_mask", "positions")}
    seen["case.query_index"] = tokens[0]
    own = {name: torch.empty(shape, device="meta") for name, shape in parameters.items()}
    head_dim = next((c.settings["head_dim"] for c in components if c.settings.get("head_dim")), 1)
    for component in components:
        seen[component.name] = _put_out(component, seen, own, head_dim)
    return {name: tuple(value.shape) for name, value in seen.items()}


def _put_out(
    component: Component, seen: Mapping[str, Tensor], own: Mapping[str, Tensor], head_dim: int
) -> Tensor:
    """Something of the shape that a component puts out. A module gives what is as large as what it takes in."""
    if component.composite_of is not None:
        return seen[component.composite_of]
    inputs = {argument: seen[source] for argument, source in component.inputs.items()}
    if "positions" in inputs and component.axes == "B T D":  # some angles ask for the positions themselves
        size = component.settings.get("head_dim", head_dim)
        return inputs["positions"][..., None].expand(*inputs["positions"].shape, size)
    if component.step is None or STEPS[component.step].opaque:
        return inputs["x"]
    parameters = {role: own[name] for role, name in component.parameters.items()}
    evaluation = Evaluation(TorchArrays(torch.float32), inputs, parameters, component.settings)
    with torch.device("meta"):
        return STEPS[component.step].evaluate(evaluation)
