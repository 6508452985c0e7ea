"""Mistakes in the order in which logits are processed, and in what is handed out; what other faults are made of."""

from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np

from harness.audit.fault import Area, Fault, Method

Array = Any
Process = Callable[[Array, Array, Mapping[str, Any] | None], Array]
Own = Callable[[Array, Array, Any], Array]
"""(logits (B V), tokens before them (B T), the setting's value) -> logits (B V)."""

ORDER = ("repetition_penalty", "temperature", "top_k", "top_p", "min_p")
_GIVEN = (*(f"sampling.{name}" for name in ORDER), "sampling.all")
_DROPPING = ("sampling.top_?", "sampling.min_p", "sampling.all", "sampling.generation_config")


def _at(setting: str) -> tuple[str, ...]:
    return (f"sampling.{setting}", "sampling.all")


def _one_by_one(order: tuple[str, ...], own: Mapping[str, Own]) -> Callable[[Process], Process]:
    """The port's own processing, setting by setting in this order, with some of them done otherwise."""

    def change(method: Process) -> Process:
        def process(logits: Array, token_ids: Array, settings: Mapping[str, Any] | None) -> Array:
            if settings is None:
                return method(logits, token_ids, None)
            x, ids = np.asarray(logits, np.float32), np.asarray(token_ids)
            for name in (name for name in order if name in settings):
                value = settings[name]
                x = own[name](x, ids, value) if name in own else method(x, ids, {name: value})
                x = np.asarray(x, np.float32)
            return x

        return process

    return change


def doing(setting: str, own: Own) -> Method:
    return Method(_at(setting), "process_logits", _one_by_one(ORDER, {setting: own}))


def _in_order(*order: str) -> Method:
    return Method(("sampling.all",), "process_logits", _one_by_one(order, {}))


def _answering(
    change: Callable[[Array], Array], at: tuple[str, ...] = (*_GIVEN, "sampling.generation_config")
) -> Method:
    """What is processed rightly is handed out otherwise."""

    def changed(method: Process) -> Process:
        return lambda logits, ids, settings: change(np.asarray(method(logits, ids, settings)))

    return Method(at, "process_logits", changed)


def _checkpoint_settings(settings: Mapping[str, Any]) -> Method:
    """These settings are used where the checkpoint's own are asked for."""

    def changed(method: Process) -> Process:
        return lambda logits, ids, given: method(logits, ids, settings if given is None else given)

    return Method(("sampling.generation_config",), "process_logits", changed)


def _logits_in(dtype: Any) -> Method:
    def changed(method: Process) -> Process:
        return lambda logits, ids, settings: method(
            np.asarray(logits).astype(dtype).astype(np.float32), ids, settings
        )

    return Method((*_GIVEN, "sampling.generation_config"), "process_logits", changed)


def softmax(x: Array) -> Array:
    wide = np.exp(np.asarray(x, np.float64) - np.max(x, axis=-1, keepdims=True))
    return wide / wide.sum(axis=-1, keepdims=True)


def only(x: Array, keep: Array) -> Array:
    return np.where(keep, x, np.float32(-np.inf))


def _log_softmax(x: Array) -> Array:
    with np.errstate(divide="ignore"):
        return np.log(softmax(x))


def fault(name: str, says: str, planting: Method, *named_by: str, equivalent: str = "") -> Fault:
    return Fault(name, Area.SAMPLING, says, planting, frozenset(named_by), equivalent)


_ORDERS = (
    fault(
        "temperature-behind-top-p",
        "the temperature comes after top_p",
        _in_order("repetition_penalty", "top_k", "top_p", "temperature", "min_p"),
        "temperature_after_top_p",
    ),
    fault(
        "temperature-last",
        "the temperature comes last",
        _in_order("repetition_penalty", "top_k", "top_p", "min_p", "temperature"),
        "temperature_after_min_p",
        "temperature_after_top_p",
    ),
    fault(
        "top-p-before-top-k",
        "top_p comes before top_k",
        _in_order("repetition_penalty", "temperature", "top_p", "top_k", "min_p"),
        "top_k_after_top_p",
    ),
    fault(
        "min-p-before-temperature",
        "min_p comes before the temperature",
        _in_order("repetition_penalty", "min_p", "temperature", "top_k", "top_p"),
        "temperature_after_min_p",
    ),
    fault(
        "min-p-before-top-p",
        "min_p comes before top_p",
        _in_order("repetition_penalty", "temperature", "top_k", "min_p", "top_p"),
        "top_p_after_min_p",
    ),
    fault(
        "repetition-penalty-last",
        "the repetition penalty comes last",
        _in_order("temperature", "top_k", "top_p", "min_p", "repetition_penalty"),
        "repetition_penalty_after_min_p",
        "repetition_penalty_after_top_p",
    ),
    fault(
        "repetition-penalty-behind-top-k",
        "the repetition penalty comes after top_k",
        _in_order("temperature", "top_k", "repetition_penalty", "top_p", "min_p"),
        "repetition_penalty_after_top_k",
    ),
    fault("sampling-backwards", "settings are applied in the opposite order", _in_order(*reversed(ORDER))),
    fault(
        "temperature-behind-top-k",
        "the temperature comes after top_k",
        _in_order("repetition_penalty", "top_k", "temperature", "top_p", "min_p"),
        equivalent="Dividing by a positive number keeps the order of logits, so top_k keeps the same before and after.",
    ),
    fault(
        "repetition-penalty-behind-temperature",
        "the repetition penalty comes after the temperature",
        _in_order("temperature", "repetition_penalty", "top_k", "top_p", "min_p"),
        equivalent="Both multiply a logit by a positive number, which keeps its sign, and products commute.",
    ),
)

_ANSWERS = (
    fault(
        "dropped-logits-large-negative",
        "what is dropped has -1e9 instead of -inf",
        _answering(lambda x: np.maximum(x, np.float32(-1e9)), _DROPPING),
        "filter_value_finite",
    ),
    fault(
        "dropped-logits-zero",
        "what is dropped has the logit 0",
        _answering(lambda x: np.where(np.isfinite(x), x, 0), _DROPPING),
        "filter_value_finite",
    ),
    fault(
        "log-probabilities-for-logits",
        "logits are normalised",
        _answering(lambda x: _log_softmax(x)),
        "log_softmax",
    ),
    fault("probabilities-for-logits", "probabilities are given", _answering(softmax), "softmax_applied"),
    fault(
        "logits-left-sorted", "logits stay sorted", _answering(lambda x: -np.sort(-x, axis=-1)), "left_sorted"
    ),
    fault(
        "logits-of-first-text-for-all",
        "every text has the logits of the first",
        _answering(lambda x: np.broadcast_to(x[:1], x.shape)),
        "first_row_for_all",
    ),
    fault(
        "logits-of-the-next-text",
        "texts have each other's logits",
        _answering(lambda x: np.roll(x, 1, axis=0)),
    ),
    fault(
        "logits-one-token-further", "logits are one token off", _answering(lambda x: np.roll(x, 1, axis=1))
    ),
    fault(
        "sampling-in-bfloat16",
        "logits are rounded to bfloat16 before they are processed",
        _logits_in(ml_dtypes.bfloat16),
        "low_precision_bfloat16",
    ),
    fault(
        "sampling-in-float16",
        "logits are rounded to float16 before they are processed",
        _logits_in(np.float16),
        "low_precision_float16",
    ),
    fault(
        "generation-config-ignored",
        "the checkpoint's generation settings are not read: logits stay as they are",
        _checkpoint_settings({}),
        "generation_config_ignored",
    ),
    fault(
        "sampled-although-greedy",
        "the 50 likeliest tokens are sampled from, whatever the checkpoint says",
        _checkpoint_settings({"top_k": 50}),
        "sampled_although_greedy",
        "default_settings",
    ),
    fault(
        "settings-of-another-checkpoint",
        "a temperature and a top_p that the checkpoint does not have are used",
        _checkpoint_settings({"temperature": 0.45, "top_p": 0.9}),
    ),
)

FAULTS = (*_ORDERS, *_ANSWERS)
