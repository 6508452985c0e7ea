"""Mistakes in the MLP, and in adding a branch to the residual stream."""

import math
from typing import Any

import numpy as np

from harness.audit.fault import Answer, Area, Call, Fault

Array = Any

_ACT = ("*.act",)
_GATED = ("*.gated",)
_ATTENTION = ("*.attn_residual",)
_MLP = ("*.mlp_residual",)
_BOTH = (*_ATTENTION, *_MLP)


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def _gelu(call: Call) -> Array:
    x = call.inputs["x"]
    return x * np.vectorize(math.erfc, otypes=[np.float64])(-x / math.sqrt(2)) / 2


def _gelu_tanh(call: Call) -> Array:
    x = call.inputs["x"]
    return x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2


def _quick_gelu(call: Call) -> Array:
    return call.inputs["x"] * _sigmoid(1.702 * call.inputs["x"])


def _hard_swish(call: Call) -> Array:
    x = call.inputs["x"]
    return x * np.clip(x + 3, 0, 6) / 6


def _half_activated(call: Call) -> Array:
    """The second half of the channels left as they came: a fused product was split at the wrong place."""
    out, half = call.output.copy(), call.inputs["x"].shape[-1] // 2
    out[..., half:] = call.inputs["x"][..., half:]
    return out


def _clipped(call: Call) -> Array:
    return np.minimum(call.output, 2)


def _one_channel_late(call: Call) -> Array:
    return call.run(up=np.roll(call.inputs["up"], 1, axis=-1))


def _part(name: str, factor: float) -> Any:
    """The sum with one of its terms times a factor."""
    return lambda call: call.output + (factor - 1) * call.inputs[name]


def _sum_over_root_two(call: Call) -> Array:
    return call.output / math.sqrt(2)


def _added_one_token_late(call: Call) -> Array:
    return call.run(branch=np.roll(call.inputs["branch"], 1, axis=1))


def _last_channels_not_added(call: Call) -> Array:
    out = call.output.copy()
    out[..., -2:] = call.inputs["residual"][..., -2:]
    return out


FAULTS = (
    Fault("gelu", Area.MLP, "the activation is GELU", Answer(_ACT, _gelu), frozenset({"gelu"})),
    Fault(
        "gelu-tanh",
        Area.MLP,
        "the activation is GELU, approximated by tanh",
        Answer(_ACT, _gelu_tanh),
        frozenset({"gelu_tanh"}),
    ),
    Fault(
        "quick-gelu",
        Area.MLP,
        "the activation is x sigmoid(1.702 x)",
        Answer(_ACT, _quick_gelu),
        frozenset({"quick_gelu"}),
    ),
    Fault(
        "relu",
        Area.MLP,
        "the activation is ReLU",
        Answer(_ACT, lambda call: np.maximum(call.inputs["x"], 0)),
        frozenset({"relu"}),
    ),
    Fault(
        "activation-missing",
        Area.MLP,
        "the gate is not activated",
        Answer(_ACT, lambda call: call.inputs["x"]),
        frozenset({"act_missing"}),
    ),
    Fault(
        "sigmoid-gate",
        Area.MLP,
        "the activation is the sigmoid alone",
        Answer(_ACT, lambda call: _sigmoid(call.inputs["x"])),
        frozenset({"sigmoid"}),
    ),
    Fault(
        "activated-twice",
        Area.MLP,
        "the activation is applied twice",
        Answer(_ACT, lambda call: call.run(x=call.output)),
        frozenset({"act_twice"}),
    ),
    Fault("hard-swish", Area.MLP, "the activation is x relu6(x + 3) / 6", Answer(_ACT, _hard_swish)),
    Fault("activation-clipped", Area.MLP, "the activation is clipped at 2", Answer(_ACT, _clipped)),
    Fault(
        "half-activated",
        Area.MLP,
        "the second half of one layer's gate is not activated",
        Answer(("layers.1.mlp.act",), _half_activated),
    ),
    Fault(
        "gate-added",
        Area.MLP,
        "gate and up are added instead of multiplied",
        Answer(_GATED, lambda call: call.inputs["act"] + call.inputs["up"]),
        frozenset({"sum_for_product"}),
    ),
    Fault(
        "gate-left-out",
        Area.MLP,
        "the product leaves the gate out",
        Answer(_GATED, lambda call: call.inputs["up"]),
        frozenset({"up_only"}),
    ),
    Fault(
        "up-left-out",
        Area.MLP,
        "the product leaves up out",
        Answer(_GATED, lambda call: call.inputs["act"]),
        frozenset({"act_only"}),
    ),
    Fault("up-one-channel-late", Area.MLP, "up is one channel late", Answer(_GATED, _one_channel_late)),
    Fault(
        "up-times-gate",
        Area.MLP,
        "up is multiplied by the gate instead of the gate by up",
        Answer(_GATED, lambda call: call.run(act=call.inputs["up"], up=call.inputs["act"])),
        equivalent="A product of two numbers does not depend on their order, rounded or not.",
    ),
    Fault(
        "attention-without-residual",
        Area.RESIDUAL,
        "the residual stream is lost at attention",
        Answer(_ATTENTION, lambda call: call.inputs["branch"]),
        frozenset({"residual_missing"}),
    ),
    Fault(
        "mlp-branch-not-added",
        Area.RESIDUAL,
        "what the MLP gives is not added in one layer",
        Answer(("layers.1.mlp_residual",), lambda call: call.inputs["residual"]),
        frozenset({"branch_missing"}),
    ),
    Fault(
        "residual-added-twice",
        Area.RESIDUAL,
        "the residual stream is added twice",
        Answer(_BOTH, _part("residual", 2)),
        frozenset({"residual_twice"}),
    ),
    Fault(
        "branch-added-twice",
        Area.RESIDUAL,
        "what attention gives is added twice",
        Answer(_ATTENTION, _part("branch", 2)),
        frozenset({"branch_twice"}),
    ),
    Fault(
        "branch-subtracted",
        Area.RESIDUAL,
        "what the MLP gives is subtracted",
        Answer(_MLP, _part("branch", -1)),
        frozenset({"branch_subtracted"}),
    ),
    Fault(
        "branch-halved",
        Area.RESIDUAL,
        "what attention and MLP give is halved",
        Answer(_BOTH, _part("branch", 0.5)),
        frozenset({"branch_halved"}),
    ),
    Fault(
        "sum-over-root-two",
        Area.RESIDUAL,
        "the sum is divided by the root of two, to keep its variance",
        Answer(_BOTH, _sum_over_root_two),
    ),
    Fault(
        "branch-one-token-late",
        Area.RESIDUAL,
        "what attention gives is added one token late",
        Answer(_ATTENTION, _added_one_token_late),
    ),
    Fault(
        "last-channels-not-added",
        Area.RESIDUAL,
        "the last two channels of what the MLP gives are not added in the first layer",
        Answer(("layers.0.mlp_residual",), _last_channels_not_added),
    ),
    Fault(
        "branch-plus-residual",
        Area.RESIDUAL,
        "the residual stream is added to the branch instead of the branch to it",
        Answer(_BOTH, lambda call: call.run(residual=call.inputs["branch"], branch=call.inputs["residual"])),
        equivalent="A sum of two numbers does not depend on their order, rounded or not.",
    ),
)
