"""Every kind of step, by name."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from harness.kinds.attention import CONTEXT, HEADS, KEYS, PART, SCORES, VALUES
from harness.kinds.elementwise import (
    CAPPED_LOGITS,
    CAPPED_SCORES,
    GATED,
    GELU,
    GELU_TANH,
    RESIDUAL,
    SCALED_LOGITS,
    SILU,
)
from harness.kinds.embedding import EMBEDDING, SCALED_EMBEDDING
from harness.kinds.layer_norm import LAYER_NORM
from harness.kinds.linear import LINEAR
from harness.kinds.module import MODULE
from harness.kinds.rms_norm import HEAD_NORM, RMS_NORM
from harness.kinds.rope import ROPE
from harness.kinds.rotary import COS, SIN
from harness.kinds.softmax import PROBS
from harness.kinds.step import Step
from harness.model import Component

_ALL = (
    EMBEDDING,
    SCALED_EMBEDDING,
    COS,
    SIN,
    RMS_NORM,
    LAYER_NORM,
    LINEAR,
    PART,
    HEAD_NORM,
    ROPE,
    HEADS,
    KEYS,
    VALUES,
    SCORES,
    CAPPED_SCORES,
    PROBS,
    CONTEXT,
    RESIDUAL,
    SILU,
    GELU,
    GELU_TANH,
    GATED,
    CAPPED_LOGITS,
    SCALED_LOGITS,
    MODULE,
)

STEPS: Mapping[str, Step] = MappingProxyType({step.name: step for step in _ALL})


def at_keys(components: Iterable[Component]) -> frozenset[str]:
    """The components of tokens (T) that another one takes in as keys (S): `k_expanded`, `v_expanded`."""
    components = list(components)
    axes = {component.name: component.axes.split() for component in components}
    return frozenset(
        component.inputs[argument]
        for component in components
        if component.step is not None
        for argument, taken in STEPS[component.step].arguments.items()
        if "S" in taken.split() and "S" not in axes.get(component.inputs[argument], ["S"])
    )
