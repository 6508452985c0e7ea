"""Less precision than was asked for, by the choice of a device or a library."""

from collections.abc import Callable
from typing import Any

import numpy as np

from harness.audit.catalogue.making import to_bfloat16, to_float16, to_tf32
from harness.audit.fault import Answer, Area, Call, Fault

Array = Any

_PRODUCTS = ("*_proj", "lm_head")
_SCORES = ("*.scores",)
_CONTEXT = ("*.context",)
_STREAM = ("*.attn_residual", "*.mlp_residual")


def _operands(to: Callable[[Array], Array], *names: str) -> Callable[[Call], Array]:
    """The component's own code on inputs that were rounded."""
    return lambda call: call.run(**{name: to(call.inputs[name]) for name in names})


def _product(to: Callable[[Array], Array]) -> Callable[[Call], Array]:
    """x W + b with both operands of the product rounded, and summed without rounding."""

    def change(call: Call) -> Array:
        product = to(call.inputs["x"]) @ to(call.parameters["weight"]).T
        return product + call.parameters["bias"] if "bias" in call.parameters else product

    return change


def _output(to: Callable[[Array], Array]) -> Callable[[Call], Array]:
    return lambda call: to(call.output)


def _summed_in_bfloat16(call: Call) -> Array:
    """Eight parts of the sum, each added to a bfloat16 number."""
    x, weight = call.inputs["x"], call.parameters["weight"]
    total = np.zeros((*x.shape[:2], len(weight)))
    for part in np.array_split(np.arange(x.shape[-1]), 8):
        total = to_bfloat16(total + x[..., part] @ weight[:, part].T)
    return total + call.parameters["bias"] if "bias" in call.parameters else total


def _approximate_exponentials(call: Call) -> Array:
    """Powers of two by a parabola between whole exponents: 0.3 % off at worst."""
    masked = np.where(call.output > 0, np.log(np.maximum(call.output, 1e-300)), -np.inf)
    power = masked / np.log(2)
    whole = np.floor(np.maximum(power, -1000))
    part = np.where(np.isfinite(power), power - whole, 0)
    rough = np.where(np.isfinite(power), np.ldexp(1 + part * (0.6565 + 0.3435 * part), whole.astype(int)), 0)
    return rough / rough.sum(axis=-1, keepdims=True)


FAULTS = (
    Fault(
        "products-in-bfloat16",
        Area.PLATFORM,
        "projections round their operands to bfloat16, as a TPU does by default",
        Answer(_PRODUCTS, _product(to_bfloat16)),
        frozenset({"low_precision_bfloat16"}),
    ),
    Fault(
        "products-in-tf32",
        Area.PLATFORM,
        "projections round their operands to TF32, as a GPU may",
        Answer(_PRODUCTS, _product(to_tf32)),
        frozenset({"low_precision_tf32"}),
    ),
    Fault(
        "scores-in-bfloat16",
        Area.PLATFORM,
        "queries and keys are rounded to bfloat16 before their product",
        Answer(_SCORES, _operands(to_bfloat16, "q", "k")),
        frozenset({"low_precision_bfloat16"}),
    ),
    Fault(
        "scores-in-tf32",
        Area.PLATFORM,
        "queries and keys are rounded to TF32 before their product",
        Answer(_SCORES, _operands(to_tf32, "q", "k")),
        frozenset({"low_precision_tf32"}),
    ),
    Fault(
        "context-in-bfloat16",
        Area.PLATFORM,
        "probabilities and values are rounded to bfloat16 before their product",
        Answer(_CONTEXT, _operands(to_bfloat16, "probs", "v")),
        frozenset({"low_precision_bfloat16"}),
    ),
    Fault(
        "context-in-tf32",
        Area.PLATFORM,
        "probabilities and values are rounded to TF32 before their product",
        Answer(_CONTEXT, _operands(to_tf32, "probs", "v")),
        frozenset({"low_precision_tf32"}),
    ),
    Fault(
        "probabilities-in-float16",
        Area.PLATFORM,
        "softmax hands out float16",
        Answer(("*.probs",), _output(to_float16)),
        frozenset({"output_rounded_float16"}),
    ),
    Fault(
        "stream-in-bfloat16",
        Area.PLATFORM,
        "the residual stream is kept in bfloat16",
        Answer(_STREAM, _output(to_bfloat16)),
        frozenset({"output_rounded_bfloat16"}),
    ),
    Fault(
        "logits-in-bfloat16",
        Area.PLATFORM,
        "logits are handed out in bfloat16",
        Answer(("lm_head",), _output(to_bfloat16)),
        frozenset({"output_rounded_bfloat16"}),
    ),
    Fault(
        "norms-in-float16",
        Area.PLATFORM,
        "norms are handed out in float16",
        Answer(("*layernorm", "norm"), _output(to_float16)),
        frozenset({"output_rounded_float16"}),
    ),
    Fault(
        "cos-and-sin-in-bfloat16",
        Area.PLATFORM,
        "cos and sin are kept in a table of bfloat16",
        Answer(("*.cos", "*.sin"), _output(to_bfloat16)),
        frozenset({"output_rounded_bfloat16"}),
    ),
    Fault(
        "sums-in-bfloat16",
        Area.PLATFORM,
        "the sum of down_proj is kept in bfloat16 between parts",
        Answer(("*.down_proj",), _summed_in_bfloat16),
    ),
    Fault(
        "approximate-exponentials",
        Area.PLATFORM,
        "softmax takes powers from a parabola between whole exponents",
        Answer(("*.probs",), _approximate_exponentials),
    ),
)
