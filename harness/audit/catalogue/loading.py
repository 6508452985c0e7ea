"""A checkpoint that was spoilt before the port reads it: by a conversion, a merge, or a download."""

from collections.abc import Callable, Iterator, MutableMapping
from fnmatch import fnmatchcase
from typing import Any

import ml_dtypes
import numpy as np

from harness.audit.fault import Area, EditedCheckpoint, Fault

Array = Any
Tensors = MutableMapping[str, Array]

_LINEAR = ("*.q_proj", "*.k_proj", "*.v_proj", "*.o_proj", "*.gate_proj", "*.up_proj", "*.down_proj")


def _named(tensors: Tensors, *globs: str) -> Iterator[str]:
    return (name for name in list(tensors) if any(fnmatchcase(name, glob) for glob in globs))


def _each(*globs: str, edit: Callable[[Array], Array | None]) -> Callable[[Tensors], None]:
    """Every tensor that is so named, edited as float64; an edit that gives None leaves it alone."""

    def edited(tensors: Tensors) -> None:
        for name in _named(tensors, *globs):
            stored = tensors[name]
            changed = edit(stored.astype(np.float64))
            if changed is not None:
                tensors[name] = changed.astype(stored.dtype)

    return edited


def _exchange(one: str, other: str) -> Callable[[Tensors], None]:
    """Every tensor with `one` in its name and the one with `other` instead hold each other's numbers."""

    def edit(tensors: Tensors) -> None:
        for name in _named(tensors, f"*{one}*"):
            there = name.replace(one, other)
            if there in tensors:
                tensors[name], tensors[there] = tensors[there], tensors[name]

    return edit


def _copied(source: str, target: str) -> Callable[[Tensors], None]:
    def edit(tensors: Tensors) -> None:
        for name in _named(tensors, f"*{target}*"):
            there = name.replace(target, source)
            if there in tensors:
                tensors[name] = tensors[there]

    return edit


def _left_out(glob: str) -> Callable[[Tensors], None]:
    def edit(tensors: Tensors) -> None:
        for name in _named(tensors, glob):
            del tensors[name]

    return edit


def _second_half_zero(weight: Array) -> Array:
    return np.concatenate([weight[: len(weight) // 2], 0 * weight[len(weight) // 2 :]])


def _tail_zero(rows: int) -> Callable[[Array], Array]:
    return lambda weight: np.concatenate([weight[:-rows], 0 * weight[-rows:]])


def _one_bit(weight: Array) -> Array:
    """The largest element four times as large: one bit of its exponent."""
    changed = weight.copy()
    place = np.unravel_index(np.argmax(np.abs(weight)), weight.shape)
    changed[place] *= 4
    return changed


def _not_a_number(weight: Array) -> Array:
    changed = weight.copy()
    changed[1, 1] = np.nan
    return changed


def _square_transposed(weight: Array) -> Array | None:
    return weight.T if weight.shape[0] == weight.shape[1] else None


def _adapter(weight: Array) -> Array:
    """With a product of rank one added that is half as large as the weight."""
    draw = np.random.default_rng(0)
    added = np.outer(draw.standard_normal(len(weight)), draw.standard_normal(weight.shape[1]))
    return weight + added * (weight.std() / 2)


def _trained_on(weight: Array) -> Array:
    """A hundredth of itself further: another step of the same training."""
    return weight + np.random.default_rng(1).standard_normal(weight.shape) * (weight.std() / 100)


def _int8(weight: Array) -> Array:
    """With one scale for each output."""
    scale = np.maximum(np.abs(weight).max(axis=1, keepdims=True), 1e-30) / 127
    return np.rint(weight / scale) * scale


def _int4_in_groups(weight: Array) -> Array:
    """With a scale and a smallest value for each 16 inputs of an output, as a file format of quantised models has."""
    groups = weight.reshape(len(weight), -1, 16)
    least = groups.min(axis=-1, keepdims=True)
    scale = np.maximum(groups.max(axis=-1, keepdims=True) - least, 1e-30) / 15
    return (np.rint((groups - least) / scale) * scale + least).reshape(weight.shape)


def _fp8_scaled(weight: Array) -> Array:
    """With one scale for the tensor, which puts its largest element at the largest number of float8."""
    scale = np.abs(weight).max() / 448
    return (weight / scale).astype(ml_dtypes.float8_e4m3fn).astype(np.float64) * scale


def _pruned(weight: Array) -> Array:
    """Of any four inputs the two smaller ones are zero."""
    groups = np.abs(weight).reshape(len(weight), -1, 4)
    kept = groups >= np.sort(groups, axis=-1)[..., 2:3]
    return weight * kept.reshape(weight.shape)


def _averaged(one: str, other: str) -> Callable[[Tensors], None]:
    def edit(tensors: Tensors) -> None:
        for name in _named(tensors, f"*{one}*weight"):
            there = name.replace(one, other)
            if there in tensors:
                sum_of_both = tensors[name].astype(np.float64) + tensors[there].astype(np.float64)
                tensors[name] = (sum_of_both / 2).astype(tensors[name].dtype)

    return edit


def _in_float32(tensors: Tensors) -> None:
    for name in list(tensors):
        if tensors[name].dtype == ml_dtypes.bfloat16:
            tensors[name] = tensors[name].astype(np.float32)


FAULTS = (
    Fault(
        "file-square-weights-transposed",
        Area.WEIGHTS,
        "a conversion transposed the square weights of attention",
        EditedCheckpoint(
            ("*.self_attn.*_proj",), _each("*.self_attn.*_proj.weight", edit=_square_transposed)
        ),
        frozenset({"weight_not_transposed"}),
    ),
    Fault(
        "file-one-value-bias-zero",
        Area.WEIGHTS,
        "a conversion left the value bias of the first layer at zero",
        EditedCheckpoint(
            ("layers.0.self_attn.v_proj",), _each("*layers.0.self_attn.v_proj.bias", edit=np.zeros_like)
        ),
        frozenset({"bias_missing"}),
    ),
    Fault(
        "file-second-half-zero",
        Area.WEIGHTS,
        "a download was cut short: the second half of one output projection is zero",
        EditedCheckpoint(
            ("layers.1.self_attn.o_proj",), _each("*layers.1.self_attn.o_proj.weight", edit=_second_half_zero)
        ),
    ),
    Fault(
        "file-last-rows-zero",
        Area.WEIGHTS,
        "a download was cut short: the last three rows of one gate_proj are zero",
        EditedCheckpoint(
            ("layers.0.mlp.gate_proj",), _each("*layers.0.mlp.gate_proj.weight", edit=_tail_zero(3))
        ),
    ),
    Fault(
        "file-one-bit",
        Area.WEIGHTS,
        "one bit of the exponent of one element of one up_proj is flipped",
        EditedCheckpoint(("layers.1.mlp.up_proj",), _each("*layers.1.mlp.up_proj.weight", edit=_one_bit)),
    ),
    Fault(
        "file-one-nan",
        Area.WEIGHTS,
        "one element of one down_proj is NaN",
        EditedCheckpoint(
            ("layers.0.mlp.down_proj",), _each("*layers.0.mlp.down_proj.weight", edit=_not_a_number)
        ),
    ),
    Fault(
        "file-layers-exchanged",
        Area.WEIGHTS,
        "a conversion exchanged two layers",
        EditedCheckpoint(("layers.[01].*_proj", "layers.[01].*norm"), _exchange("layers.0.", "layers.1.")),
        frozenset({"parameters_of_another_layer"}),
    ),
    Fault(
        "file-one-projection-of-another-layer",
        Area.WEIGHTS,
        "a merge took one down_proj from the layer before",
        EditedCheckpoint(
            ("layers.1.mlp.down_proj",), _copied("layers.0.mlp.down_proj", "layers.1.mlp.down_proj")
        ),
        frozenset({"parameters_of_another_layer"}),
    ),
    Fault(
        "file-keys-hold-values",
        Area.WEIGHTS,
        "a conversion wrote the values' parameters for keys, too",
        EditedCheckpoint(("*.k_proj",), _copied("v_proj", "k_proj")),
        frozenset({"parameters_of_another_component"}),
    ),
    Fault(
        "file-gate-and-up-exchanged",
        Area.WEIGHTS,
        "a conversion split the fused weight of the MLP the wrong way round",
        EditedCheckpoint(("*.gate_proj", "*.up_proj"), _exchange("gate_proj", "up_proj")),
        frozenset({"parameters_of_another_component"}),
    ),
    Fault(
        "file-query-rows-one-late",
        Area.WEIGHTS,
        "a fused weight was split one row late: queries start with the last row",
        EditedCheckpoint(
            ("*.q_proj",), _each("*.q_proj.weight", edit=lambda weight: np.roll(weight, 1, axis=0))
        ),
    ),
    Fault(
        "file-inputs-shuffled",
        Area.WEIGHTS,
        "the inputs of one up_proj are in another order than those of its gate_proj",
        EditedCheckpoint(
            ("layers.0.mlp.up_proj",),
            _each("*layers.0.mlp.up_proj.weight", edit=lambda weight: np.roll(weight, 7, axis=1)),
        ),
    ),
    Fault(
        "file-adapter-merged",
        Area.WEIGHTS,
        "an adapter of rank one was merged into queries and values",
        EditedCheckpoint(
            ("*.q_proj", "*.v_proj"), _each("*.q_proj.weight", "*.v_proj.weight", edit=_adapter)
        ),
    ),
    Fault(
        "file-trained-on",
        Area.WEIGHTS,
        "the weights of the MLP are those of another step of training",
        EditedCheckpoint(("*.mlp.*_proj",), _each("*.mlp.*_proj.weight", edit=_trained_on)),
    ),
    Fault(
        "file-layers-averaged",
        Area.WEIGHTS,
        "a merge averaged the MLP of one layer with that of the layer before",
        EditedCheckpoint(("layers.1.mlp.*_proj",), _averaged("layers.1.mlp.", "layers.0.mlp.")),
    ),
    Fault(
        "file-int8",
        Area.WEIGHTS,
        "the weights of all layers were quantised to int8 and back",
        EditedCheckpoint(_LINEAR, _each("*layers.*_proj.weight", edit=_int8)),
        frozenset({"quantised_int8"}),
    ),
    Fault(
        "file-int4-in-groups",
        Area.WEIGHTS,
        "the weights of all layers were quantised to int4 in groups of 16 and back",
        EditedCheckpoint(_LINEAR, _each("*layers.*_proj.weight", edit=_int4_in_groups)),
    ),
    Fault(
        "file-fp8",
        Area.WEIGHTS,
        "the weights of all layers were quantised to float8 and back, with a scale for each tensor",
        EditedCheckpoint(_LINEAR, _each("*layers.*_proj.weight", edit=_fp8_scaled)),
    ),
    Fault(
        "file-pruned",
        Area.WEIGHTS,
        "two of any four inputs of every down_proj are zero",
        EditedCheckpoint(("*.down_proj",), _each("*.down_proj.weight", edit=_pruned)),
    ),
    Fault(
        "file-norms-less-one",
        Area.NORMS,
        "a conversion wrote norm weights less one, for a port that adds one",
        EditedCheckpoint(("*norm",), _each("*norm.weight", edit=lambda weight: weight - 1)),
    ),
    Fault(
        "file-norm-of-one-layer-doubled",
        Area.NORMS,
        "the weight of one layer's second norm is twice as large",
        EditedCheckpoint(
            ("layers.1.post_attention_layernorm",),
            _each("*layers.1.post_attention_layernorm.weight", edit=lambda weight: 2 * weight),
        ),
    ),
    Fault(
        "file-norms-decayed",
        Area.NORMS,
        "norm weights are a hundredth smaller: weight decay was not kept off them",
        EditedCheckpoint(("*norm",), _each("*norm.weight", edit=lambda weight: 0.99 * weight)),
    ),
    Fault(
        "file-embedding-rows-zero",
        Area.EMBEDDING,
        "the rows that special tokens were given were never filled",
        EditedCheckpoint(("embed_tokens", "lm_head"), _each("*embed_tokens.weight", edit=_tail_zero(8))),
    ),
    Fault(
        "file-embedding-rows-one-late",
        Area.EMBEDDING,
        "the vocabulary has one row more at its start",
        EditedCheckpoint(
            ("embed_tokens", "lm_head"),
            _each("*embed_tokens.weight", edit=lambda weight: np.roll(weight, 1, axis=0)),
        ),
        frozenset({"ids_shifted_down"}),
    ),
    Fault(
        "file-head-not-trained",
        Area.LOGITS,
        "the head is at zero",
        EditedCheckpoint(("lm_head",), _each("lm_head.weight", edit=np.zeros_like)),
        frozenset({"weight_zero", "parameters_zero"}),
    ),
    Fault(
        "file-bias-left-out",
        Area.WEIGHTS,
        "a conversion left out the biases of keys",
        EditedCheckpoint(("*.k_proj",), _left_out("*.k_proj.bias")),
        frozenset({"bias_missing"}),
    ),
    Fault(
        "file-norm-left-out",
        Area.NORMS,
        "a conversion left out the final norm",
        EditedCheckpoint(("norm",), _left_out("*model.norm.weight")),
        frozenset({"weight_missing", "parameters_zero"}),
    ),
    Fault(
        "file-in-float32",
        Area.WEIGHTS,
        "a checkpoint that is in bfloat16 was converted to float32",
        EditedCheckpoint(("*",), _in_float32),
        equivalent="Every number of bfloat16 is one of float32, so that nothing is rounded on the way or back.",
    ),
)
