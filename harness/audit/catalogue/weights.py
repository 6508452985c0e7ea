"""Mistakes of the loader: right tensors in the wrong place, layout or precision."""

from typing import Any

import ml_dtypes
import numpy as np

from harness.audit.catalogue.making import (
    Components,
    each,
    exchanged,
    from_layer,
    in_one_layer,
    rows_of_heads,
    to_float16,
)
from harness.audit.fault import Area, Arrays, Fault, Overrides

Array = Any

_PROJECTIONS = ("*_proj",)


def _square_transposed(weight: Array) -> Array | None:
    return weight.T if weight.shape[0] == weight.shape[1] else None


def _sorted_as_text(number: int, numbers: list[int]) -> int:
    return sorted(numbers, key=str)[numbers.index(number)]


def _layer_before(number: int, numbers: list[int]) -> int:
    return max(number - 1, numbers[0])


def _last_loaded_twice(number: int, numbers: list[int]) -> int:
    return _layer_before(number, numbers) if number == numbers[-1] else number


def _interleaved(heads: Array) -> Array:
    """Rows of a head (H D): 0, D/2, 1, D/2 + 1, ..."""
    count, size = heads.shape
    return heads.reshape(count, 2, size // 2).swapaxes(1, 2)


def _deinterleaved(heads: Array) -> Array:
    """Rows of a head (H D): 0, 2, 4, ... 1, 3, 5, ..."""
    count, size = heads.shape
    return heads.reshape(count, size // 2, 2).swapaxes(1, 2)


def _one_row_zero(weight: Array) -> Array:
    changed = weight.copy()
    changed[len(weight) // 3] = 0
    return changed


def _second_half_zero(weight: Array) -> Array:
    changed = weight.copy()
    changed[len(weight) // 2 :] = 0
    return changed


def _one_element(weight: Array) -> Array:
    """Off by four times what its neighbours are."""
    changed = weight.copy()
    changed[len(weight) // 2, 1] += 4 * weight.std()
    return changed


def _columns_reversed(weight: Array) -> Array:
    return weight[:, ::-1]


def _integers(largest: int) -> Any:
    """Whole numbers up to `largest` times a scale for each output."""

    def quantised(weight: Array) -> Array:
        scale = np.abs(weight).max(axis=1, keepdims=True) / largest
        return np.rint(weight / np.where(scale == 0, 1, scale)) * scale

    return quantised


def _fp8(weight: Array) -> Array:
    return weight.astype(ml_dtypes.float8_e4m3fn)


def _through_float16(parameters: Arrays, components: Components) -> Arrays:
    wide = {name: np.asarray(value).astype(np.float64) for name, value in parameters.items()}
    rounded = {name: to_float16(value) for name, value in wide.items()}
    return {name: value for name, value in rounded.items() if not np.array_equal(value, wide[name])}


def _scaled(factor: float) -> Any:
    return lambda parameter: parameter * factor


FAULTS = (
    Fault(
        "square-projections-not-transposed",
        Area.WEIGHTS,
        "rectangular projections are transposed when loaded, square ones are not",
        each(_PROJECTIONS, "weight", _square_transposed),
        frozenset({"weight_not_transposed"}),
    ),
    Fault(
        "one-output-projection-not-transposed",
        Area.WEIGHTS,
        "one layer's square output projection is not transposed when loaded",
        in_one_layer("self_attn.o_proj", "weight", _square_transposed),
        frozenset({"weight_not_transposed"}),
    ),
    Fault(
        "keys-and-values-exchanged",
        Area.WEIGHTS,
        "the projections of keys and values hold each other's parameters",
        exchanged("k_proj", "v_proj"),
        frozenset({"parameters_of_another_component"}),
    ),
    Fault(
        "gate-and-up-exchanged",
        Area.WEIGHTS,
        "gate_proj and up_proj hold each other's weights",
        exchanged("gate_proj", "up_proj"),
        frozenset({"parameters_of_another_component"}),
    ),
    Fault(
        "layers-off-by-one",
        Area.WEIGHTS,
        "every layer but the first holds the parameters of the layer before",
        from_layer(_layer_before),
        frozenset({"parameters_of_another_layer"}),
    ),
    Fault(
        "layers-sorted-as-text",
        Area.WEIGHTS,
        "layers are loaded in the order of their numbers as text, 10 before 2",
        from_layer(_sorted_as_text),
        frozenset({"parameters_of_another_layer"}),
    ),
    Fault(
        "last-layer-holds-the-one-before",
        Area.WEIGHTS,
        "the last layer holds the parameters of the layer before: that one runs twice",
        from_layer(_last_loaded_twice),
        frozenset({"parameters_of_another_layer"}),
    ),
    Fault(
        "attention-biases-missing",
        Area.WEIGHTS,
        "the biases of queries, keys and values are left at zero",
        each(("*.q_proj", "*.k_proj", "*.v_proj"), "bias", np.zeros_like),
        frozenset({"bias_missing"}),
    ),
    Fault(
        "one-key-bias-missing",
        Area.WEIGHTS,
        "the key bias of one layer is left at zero",
        in_one_layer("self_attn.k_proj", "bias", np.zeros_like),
        frozenset({"bias_missing"}),
    ),
    Fault(
        "query-bias-added-twice",
        Area.WEIGHTS,
        "the query bias is loaded into a layer that adds it twice",
        each(("*.q_proj",), "bias", _scaled(2)),
        frozenset({"bias_twice"}),
    ),
    Fault(
        "value-bias-negated",
        Area.WEIGHTS,
        "the value bias is subtracted",
        each(("*.v_proj",), "bias", _scaled(-1)),
        frozenset({"bias_negated"}),
    ),
    Fault(
        "key-bias-one-channel-late",
        Area.WEIGHTS,
        "the key bias starts one channel late: a fused bias was split at the wrong place",
        each(("*.k_proj",), "bias", lambda bias: np.roll(bias, 1)),
    ),
    Fault(
        "output-projection-left-at-zero",
        Area.WEIGHTS,
        "one layer's output projection was never loaded",
        in_one_layer("self_attn.o_proj", "weight", np.zeros_like),
        frozenset({"weight_zero", "parameters_zero"}),
    ),
    Fault(
        "rows-interleaved",
        Area.WEIGHTS,
        "rows of queries and keys are put in the order of interleaved RoPE, which the port does not use",
        rows_of_heads(("*.q_proj", "*.k_proj"), _interleaved),
        frozenset({"rows_interleaved"}),
    ),
    Fault(
        "rows-deinterleaved",
        Area.WEIGHTS,
        "rows of queries and keys are taken for those of interleaved RoPE and put back in halves",
        rows_of_heads(("*.q_proj", "*.k_proj"), _deinterleaved),
        frozenset({"rows_deinterleaved"}),
    ),
    Fault(
        "query-rows-dim-major",
        Area.WEIGHTS,
        "the rows of queries are ordered by channel first and head second",
        rows_of_heads(("*.q_proj",), np.transpose),
        frozenset({"heads_dim_major"}),
    ),
    Fault(
        "query-heads-rotated",
        Area.WEIGHTS,
        "every query head holds the rows of the head before",
        rows_of_heads(("*.q_proj",), lambda heads: np.roll(heads, 1, axis=0)),
        frozenset({"shards_reordered"}),  # where there are as many heads as devices
    ),
    Fault(
        "value-heads-reversed",
        Area.WEIGHTS,
        "the heads of values are loaded from last to first",
        rows_of_heads(("*.v_proj",), lambda heads: heads[::-1]),
        frozenset({"shards_reordered"}),
    ),
    Fault(
        "one-row-of-zeros",
        Area.WEIGHTS,
        "one row of one down_proj is zero",
        in_one_layer("mlp.down_proj", "weight", _one_row_zero),
    ),
    Fault(
        "one-wrong-element",
        Area.WEIGHTS,
        "one element of one up_proj is wrong, by no more than its neighbours are large",
        in_one_layer("mlp.up_proj", "weight", _one_element),
    ),
    Fault(
        "half-loaded",
        Area.WEIGHTS,
        "the second half of the rows of one gate_proj was never loaded",
        in_one_layer("mlp.gate_proj", "weight", _second_half_zero),
    ),
    Fault(
        "columns-reversed",
        Area.WEIGHTS,
        "the inputs of one down_proj are in reverse order",
        in_one_layer("mlp.down_proj", "weight", _columns_reversed),
    ),
    Fault(
        "int8-weights",
        Area.WEIGHTS,
        "the weights of all projections went through int8, with a scale for each output",
        each(_PROJECTIONS, "weight", _integers(127)),
        frozenset({"quantised_int8"}),
    ),
    Fault(
        "int4-weights",
        Area.WEIGHTS,
        "the weights of the MLP went through int4, with a scale for each output",
        each(("*.mlp.*_proj",), "weight", _integers(7)),
        frozenset({"quantised_int4"}),
    ),
    Fault(
        "fp8-weights",
        Area.WEIGHTS,
        "the weights of all projections were stored as float8 without a scale",
        each(_PROJECTIONS, "weight", _fp8),
        frozenset({"quantised_fp8"}),
    ),
    Fault(
        "checkpoint-through-float16",
        Area.WEIGHTS,
        "the checkpoint was converted to float16 on the way, which has no numbers as small as bfloat16 has",
        Overrides(_through_float16),
        frozenset({"weight_rounded_float16", "output_rounded_float16"}),
    ),
)
