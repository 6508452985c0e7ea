"""Mistakes in RMSNorm."""

from typing import Any

import numpy as np

from harness.audit.catalogue.making import each, exchanged, in_one_layer, setting
from harness.audit.fault import Answer, Area, Call, Fault

Array = Any

_NORMS = ("*norm",)
_OF_STREAM = ("*layernorm", "norm")
_OF_HEADS = ("*.q_norm", "*.k_norm")


def _split(call: Call) -> Array:
    """x as it is normed: (B T C), or by heads (B T H D)."""
    x, size = call.inputs["x"], call.parameters["weight"].shape[0]
    return x.reshape(*x.shape[:2], -1, size) if call.component.settings["head_dim"] else x


def _mean_square(x: Array) -> Array:
    return np.mean(x * x, axis=-1, keepdims=True)


def _eps(value: float) -> Answer:
    def change(call: Call) -> Array:
        x = _split(call)
        return x / np.sqrt(_mean_square(x) + value) * call.parameters["weight"]

    return Answer(_NORMS, change, setting("eps", lambda eps: eps != value))


def _eps_outside(call: Call) -> Array:
    x = _split(call)
    return x / (np.sqrt(_mean_square(x)) + call.component.settings["eps"]) * call.parameters["weight"]


def _sum_not_mean(call: Call) -> Array:
    x = _split(call)
    total = np.sum(x * x, axis=-1, keepdims=True)
    return x / np.sqrt(total + call.component.settings["eps"]) * call.parameters["weight"]


def _root_missing(call: Call) -> Array:
    x = _split(call)
    return x / (_mean_square(x) + call.component.settings["eps"]) * call.parameters["weight"]


def _unbiased(call: Call) -> Array:
    """Divided by one less than there are, as the variance of a sample is."""
    x = _split(call)
    size = x.shape[-1]
    return (
        x
        / np.sqrt(_mean_square(x) * size / (size - 1) + call.component.settings["eps"])
        * call.parameters["weight"]
    )


def _magnitude(call: Call) -> Array:
    """Over the mean magnitude instead of the root mean square."""
    x = _split(call)
    mean = np.mean(np.abs(x), axis=-1, keepdims=True)
    return x / (mean + call.component.settings["eps"]) * call.parameters["weight"]


def _over_all_heads(call: Call) -> Array:
    x = _split(call)
    mean = np.mean(x * x, axis=(-2, -1), keepdims=True)
    return x / np.sqrt(mean + call.component.settings["eps"]) * call.parameters["weight"]


def _centred(call: Call) -> Array:
    x = _split(call)
    return call.run(x=(x - x.mean(axis=-1, keepdims=True)).reshape(call.inputs["x"].shape))


def _first_token_for_all(call: Call) -> Array:
    """Every token divided by the root mean square of the text's first."""
    x = _split(call)
    size = np.sqrt(_mean_square(x) + call.component.settings["eps"])
    return call.output * size / size[:, :1]


def _few_channels_off(weight: Array) -> Array:
    changed = weight.copy()
    changed[1:4] *= 1.25
    return changed


FAULTS = (
    Fault("eps-1e-5", Area.NORMS, "norms add 1e-05 to the mean square", _eps(1e-5), frozenset({"eps_1e-05"})),
    Fault("eps-1e-8", Area.NORMS, "norms add 1e-08 to the mean square", _eps(1e-8), frozenset({"eps_1e-08"})),
    Fault("eps-missing", Area.NORMS, "norms add nothing to the mean square", _eps(0.0), frozenset({"eps_0"})),
    Fault(
        "eps-outside-root",
        Area.NORMS,
        "eps is added to the root instead of under it",
        Answer(_NORMS, _eps_outside),
        frozenset({"eps_outside_root"}),
    ),
    Fault(
        "norm-weight-plus-one",
        Area.NORMS,
        "norms multiply by one plus the weight",
        each(_NORMS, "weight", lambda weight: 1 + weight),
        frozenset({"weight_plus_one"}),
    ),
    Fault(
        "norm-weights-left-at-one",
        Area.NORMS,
        "norm weights were never loaded",
        each(_NORMS, "weight", np.ones_like),
        frozenset({"weight_missing"}),
    ),
    Fault(
        "final-norm-weight-left-at-one",
        Area.NORMS,
        "the final norm's weight was never loaded",
        each(("norm",), "weight", np.ones_like),
        frozenset({"weight_missing"}),
    ),
    Fault(
        "one-norm-left-at-zero",
        Area.NORMS,
        "one layer's first norm was made with zeros and never loaded",
        in_one_layer("input_layernorm", "weight", np.zeros_like),
        frozenset({"parameters_zero", "weight_zero"}),
    ),
    Fault(
        "norm-weight-twice",
        Area.NORMS,
        "norms multiply by the weight twice",
        each(_OF_STREAM, "weight", np.square),
        frozenset({"weight_twice"}),
    ),
    Fault(
        "mean-subtracted",
        Area.NORMS,
        "norms subtract the mean, as LayerNorm does",
        Answer(_OF_STREAM, _centred),
        frozenset({"mean_subtracted"}),
    ),
    Fault(
        "head-norms-skipped",
        Area.NORMS,
        "queries and keys are split into heads and not normed",
        Answer(_OF_HEADS, _split),
        frozenset({"norm_skipped"}),
    ),
    Fault(
        "sum-not-mean",
        Area.NORMS,
        "norms divide by the root of the sum of squares",
        Answer(_OF_STREAM, _sum_not_mean),
        frozenset({"sum_not_mean"}),
    ),
    Fault(
        "root-missing",
        Area.NORMS,
        "norms divide by the mean square itself",
        Answer(_OF_STREAM, _root_missing),
        frozenset({"root_missing"}),
    ),
    Fault(
        "heads-normed-together",
        Area.NORMS,
        "queries and keys are normed over all heads of a token",
        Answer(_OF_HEADS, _over_all_heads),
        frozenset({"norm_over_all_heads"}),
    ),
    Fault(
        "norms-of-a-layer-exchanged",
        Area.NORMS,
        "the norms before attention and before the MLP hold each other's weights",
        exchanged("input_layernorm", "post_attention_layernorm"),
        frozenset({"parameters_of_another_component"}),
    ),
    Fault(
        "head-norms-exchanged",
        Area.NORMS,
        "the norms of queries and keys hold each other's weights",
        exchanged("q_norm", "k_norm"),
        frozenset({"parameters_of_another_component"}),
    ),
    Fault(
        "variance-of-a-sample",
        Area.NORMS,
        "norms divide the sum of squares by one less than there are channels",
        Answer(_OF_STREAM, _unbiased),
    ),
    Fault(
        "mean-magnitude",
        Area.NORMS,
        "norms divide by the mean magnitude",
        Answer(_OF_STREAM, _magnitude),
    ),
    Fault(
        "first-token-norms-all",
        Area.NORMS,
        "norms divide every token by the root mean square of the first",
        Answer(("*.input_layernorm",), _first_token_for_all),
    ),
    Fault(
        "few-norm-channels-off",
        Area.NORMS,
        "three channels of one norm's weight are a quarter too large",
        in_one_layer("post_attention_layernorm", "weight", _few_channels_off),
    ),
)
