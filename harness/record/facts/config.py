"""Facts of the configuration: what the loaded reference uses, read off its modules and parameters, not off config.json.

Components are what was shown to be bit-equal, so that a setting that is theirs is what the reference computes with.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from harness.kinds.table import STEPS
from harness.model import Component, Fact

CASE = "checkpoint"

_OF_EVERY_CHOICE = ("repetition_penalty",)
_OF_SAMPLING = ("temperature", "top_k", "top_p", "min_p")
_NEUTRAL = {"repetition_penalty": 1, "temperature": 1, "top_k": 0, "top_p": 1, "min_p": 0}
"""The values under which generation settings do nothing, as they do where they are null."""
_ACTIVATIONS = {"silu": "silu", "gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh"}
"""Step -> the reference's word for it."""
_LENGTH = "original_max_position_embeddings"
_SCALED_BY = {
    "linear": (),
    "dynamic": (_LENGTH,),
    "yarn": (_LENGTH, "attention_factor", "beta_fast", "beta_slow", "truncate"),
    "llama3": (_LENGTH, "low_freq_factor", "high_freq_factor"),
}
"""Rope type -> the numbers beside its factor."""

_Shapes = dict[str, tuple[int, ...]]


def config_facts(model: Any, components: list[Component]) -> list[Fact]:
    """One fact a setting. One that is not the same in all layers, where it has to be, is left out.

    components: all of them, those that are not kept, too
    """
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    settings = (
        *_of_components(components, shapes),
        ("dtype", _dtype_of_file(model)),
        ("eos_token_ids", _ids(model.generation_config.eos_token_id)),
        *_of_generation(model.generation_config),
    )
    return [Fact(f"config.{name}", "config", CASE, {}, value) for name, value in settings]


def _of_components(components: list[Component], shapes: _Shapes) -> Iterator[tuple[str, Any]]:
    by_kind: dict[str, list[Component]] = {}
    for component in components:
        by_kind.setdefault(component.kind, []).append(component)
    of = _OfKind(by_kind, shapes)
    table, head = by_kind["embed_tokens"][0], by_kind.get("product", by_kind["lm_head"])[0]
    layers = len(by_kind["layer"])
    yield "vocab_size", shapes[table.parameters["weight"]][0]
    yield "hidden_size", shapes[table.parameters["weight"]][1]
    yield "num_hidden_layers", layers
    yield from _alike("intermediate_size", of.outputs("gate_proj"))
    for size in of.settings("v_expanded", "head_dim")[:1]:
        yield from _alike("num_attention_heads", [rows // size for rows in of.outputs("q_proj")])
        yield from _alike("num_key_value_heads", [rows // size for rows in of.outputs("k_proj")])
        yield "head_dim", size
    yield from _alike("rms_norm_eps", of.settings("rms_norm", "eps"))
    yield from _alike("rope_theta", of.settings("cos", "theta"))
    scalings = [component.settings.get("scaling") for component in of.known("cos")]
    yield from _alike("rope_scaling", [_rope_scaling(scaling) for scaling in scalings])
    windows = of.settings("probs", "window")
    if len(windows) == layers:
        yield "windows", windows
    yield from _alike("scaling", of.settings("scores", "scaling"))
    yield from _alike("hidden_act", [_ACTIVATIONS[step] for step in of.steps("act")])
    for name, kinds in (
        ("qkv_bias", ("q_proj", "k_proj", "v_proj")),
        ("o_bias", ("o_proj",)),
        ("mlp_bias", ("gate_proj", "up_proj", "down_proj")),
    ):
        found = (c for kind in kinds for c in by_kind.get(kind, ()))
        yield from _alike(name, ["bias" in component.parameters for component in found])
    yield "qk_norm", any(component.name.endswith("q_norm") for component in components)
    yield "tie_word_embeddings", head.parameters["weight"] == table.parameters["weight"]


@dataclass(frozen=True)
class _OfKind:
    """What the components of a kind have, one by one; nothing of those that are recorded as modules."""

    by_kind: Mapping[str, list[Component]]
    shapes: _Shapes

    def known(self, kind: str) -> list[Component]:
        return [c for c in self.by_kind.get(kind, ()) if not STEPS[c.step or "module"].opaque]

    def settings(self, kind: str, name: str) -> list[Any]:
        return [component.settings[name] for component in self.known(kind)]

    def outputs(self, kind: str) -> list[int]:
        return [self.shapes[component.parameters["weight"]][0] for component in self.known(kind)]

    def steps(self, kind: str) -> list[str]:
        return [component.step or "" for component in self.known(kind)]


def _rope_scaling(scaling: dict[str, Any] | None) -> dict[str, Any] | None:
    """What angles follow from, by rope type. The length that is stretched has one name, whatever a type calls it."""
    if scaling is None:
        return None
    told = {_LENGTH: scaling["max_position_embeddings"], **scaling}
    return {name: told[name] for name in ("rope_type", "factor", *_SCALED_BY[scaling["rope_type"]])}


def _alike(name: str, values: list[Any]) -> Iterator[tuple[str, Any]]:
    """The value of all layers, if there is one and it is the same."""
    if values and all(value == values[0] for value in values):
        yield name, values[0]


def _dtype_of_file(model: Any) -> str | None:
    """What config.json says that the checkpoint is in. The loaded model is in the dtype that was asked for."""
    from transformers import AutoConfig

    dtype = AutoConfig.from_pretrained(model.config.name_or_path, trust_remote_code=False).dtype
    return None if dtype is None else str(dtype).removeprefix("torch.")


def _ids(value: Any) -> list[int]:
    return sorted(value) if isinstance(value, list) else [] if value is None else [value]


def _of_generation(config: Any) -> Iterator[tuple[str, Any]]:
    """What is in effect when the reference writes by itself; null for what does nothing.

    config: a `GenerationConfig`, which has null for what the file does not set
    """
    known = getattr(config, "_get_default_generation_params", None)
    defaults: dict[str, Any] = known() if known else {}  # older versions have them in the attributes

    def setting(name: str) -> Any:
        value = getattr(config, name, None)
        return defaults.get(name) if value is None else value

    sampled = bool(setting("do_sample"))
    yield "generation.do_sample", sampled
    for name in (*_OF_EVERY_CHOICE, *_OF_SAMPLING):
        value = setting(name) if sampled or name in _OF_EVERY_CHOICE else None
        yield f"generation.{name}", None if value == _NEUTRAL[name] else value
