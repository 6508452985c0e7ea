"""Every kind of step, by name."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from harness.kinds.attention import CONTEXT, KEYS, SCORES, VALUES
from harness.kinds.elementwise import GATED, RESIDUAL, SILU
from harness.kinds.embedding import EMBEDDING
from harness.kinds.linear import LINEAR
from harness.kinds.rms_norm import HEAD_NORM, RMS_NORM
from harness.kinds.rope import ROPE
from harness.kinds.rotary import COS, SIN
from harness.kinds.softmax import PROBS
from harness.kinds.step import Step
from harness.model import Component

_ALL = (
    EMBEDDING,
    COS,
    SIN,
    RMS_NORM,
    LINEAR,
    HEAD_NORM,
    ROPE,
    KEYS,
    VALUES,
    SCORES,
    PROBS,
    CONTEXT,
    RESIDUAL,
    SILU,
    GATED,
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
