"""Which name in a model is like which of the reference: what ports call the same things. Loads nothing.

Names are told apart by their parts: `layers.{n}.self_attn.q_proj` is like `blocks.{n}.attention.query`.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from harness.ports.tap import LAYER

LAYERS = ["layers", "layer", "blocks", "block", "h", "decoder_layers", "decoder_layer", "transformer_blocks"]
_LAYER_PART = re.compile(r"(^|\.)(\w+[._]?)?\{n\}")

_GROUPS = {
    "self_attn": "attn attention self_attention attention_block",
    "mlp": "ffn ffw ff feed_forward feedforward mlp_block",
    "rotary_emb": "rope rotary rotary_embedding",
}
"""The inner parts of names: two that are alike have no different ones."""

_ROLES = {
    "weight": "kernel w scale embedding input_embedding table",
    "bias": "b",
}
_TURNED = (
    "rope rotary rotate apply_rope apply_rotary apply_rotary_emb apply_rotary_embedding apply_rotary_pos_emb"
)
_REPEATED = "repeat_kv repeat expand_kv"
_ALIKE = {
    **_GROUPS,
    **_ROLES,
    "embed_tokens": "embed embedder embedding embeddings tok_embed tok_embedding tok_embeddings token_embed"
    " token_embedder token_embedding wte embedder.encode embed.encode",
    "input_layernorm": "input_norm attention_norm attn_norm pre_attention_norm pre_attention_layernorm pre_attn_norm"
    " ln_1 ln1 norm_1 norm1 layer_norm_1",
    "post_attention_layernorm": "post_attention_norm mlp_norm ffn_norm ffw_norm pre_ffw_norm pre_mlp_norm"
    " pre_feedforward_norm ln_2 ln2 norm_2 norm2 layer_norm_2",
    "pre_feedforward_layernorm": "pre_feedforward_norm pre_ffw_norm pre_mlp_norm",
    "post_feedforward_layernorm": "post_feedforward_norm post_ffw_norm post_mlp_norm",
    "norm": "final_norm final_layernorm ln_f norm_f output_norm decoder_norm",
    "q_proj": "q wq query query_proj q_einsum to_q",
    "k_proj": "k wk key key_proj k_einsum to_k",
    "v_proj": "v wv value value_proj v_einsum to_v",
    "o_proj": "o wo out out_proj output output_proj c_proj attn_vec_einsum to_out",
    "q_proj.bias": "q_bias bq query_bias",
    "k_proj.bias": "k_bias bk key_bias",
    "v_proj.bias": "v_bias bv value_bias",
    "o_proj.bias": "o_bias bo out_bias",
    "q_norm": "query_norm q_layernorm",
    "k_norm": "key_norm k_layernorm",
    "q_rope": _TURNED,
    "k_rope": _TURNED,
    "k_expanded": _REPEATED,
    "v_expanded": _REPEATED,
    "scores": "attention_scores attn_scores attention_logits attn_logits",
    "probs": "attention_probs attn_probs attention_weights attn_weights weights softmax",
    "context": "attention_context attn_output attn_out",
    "gate_proj": "gate w1 wi_0 gating linear_gate",
    "up_proj": "up w3 wi_1 linear_up",
    "act": "silu swish activation act_fn gelu",
    "gated": "swiglu geglu glu",
    "down_proj": "down w2 wo fc2 c_proj output linear_down",
    "lm_head": "head unembed output logits embedder.decode embed.attend embed.decode",
}
_FUSED = {
    ("q_proj", "k_proj", "v_proj"): "qkv qkv_proj qkv_einsum wqkv c_attn",
    ("k_proj", "v_proj"): "kv kv_proj kv_einsum wkv",
    ("gate_proj", "up_proj"): "gate_up gate_up_proj gating_einsum wi",
}
_SHORTEST = 2
"""Letters in the name of an argument that says something: `k` is a key before RoPE, and after it."""


@dataclass(frozen=True)
class Likeness:
    """Two names that are alike. told: in which parts; distance: 0 the same, 1 the same at the end, 2 in other words."""

    told: str
    distance: int


def likeness(reference: str, path: str, shortest: int = 1) -> Likeness | None:
    """How a path in a model is like a name of the reference, if it is. shortest: of the path's last part"""
    there = _parts(path)
    if len(there[-1]) < shortest:
        return None
    inner, tail = _split(reference)
    return _found(inner, tail, there, [_alternatives(part) for part in tail])


def of_argument(reference: str, path: str) -> Likeness | None:
    """The same of what a call takes in, named by the call and its argument."""
    return likeness(reference, path, _SHORTEST)


def in_fused(reference: str, path: str) -> tuple[Likeness, tuple[str, ...]] | None:
    """The same where a path may hold several of the reference together; these, by their full names."""
    inner, tail = _split(reference)
    for names, fused in _FUSED.items():
        if tail[0] in names:
            found = _found(
                inner, tail, _parts(path), [fused.split(), *(_alternatives(role) for role in tail[1:])]
            )
            if found is not None:
                return found, tuple(reference.replace(tail[0], name) for name in names)
    return None


def _split(reference: str) -> tuple[list[str], list[str]]:
    """Inner parts, and those that have to be there: a module, or a module and its parameter."""
    parts = _parts(reference)
    last = 2 if parts[-1] in _ROLES else 1
    return parts[:-last], parts[-last:]


def in_layers(path: str) -> bool:
    """Whether it is in a layer, or in stacked layers, by its name."""
    return LAYER in _parts(path)


def _parts(path: str) -> list[str]:
    """A layer's part is `{n}`, whatever it is called, and where layers are stacked as well."""
    parts = _LAYER_PART.sub(rf"\1{LAYER}", path).lower().split(".")
    return [LAYER if part in LAYERS else part for part in parts]


def _alternatives(part: str) -> list[str]:
    return [part, *_ALIKE.get(part, "").split()]


def _found(
    inner: list[str], tail: list[str], there: list[str], alternatives: Sequence[Sequence[str]]
) -> Likeness | None:
    for words in _tails(tail, alternatives):
        length = len(words)
        if there[-length:] == words and _groups(there[:-length]) <= _groups(inner):
            if words == tail:
                return Likeness("its name", 0 if there[:-length] == inner else 1)
            return Likeness(f"{'.'.join(tail)} ~ {'.'.join(words)}", 2)
    return None


def _tails(tail: Sequence[str], alternatives: Sequence[Sequence[str]]) -> Iterator[list[str]]:
    """Every way in which a name may end. A weight may be the module itself, a bias beside its module."""
    for words in product(*alternatives):
        yield ".".join(words).split(".")
    if len(tail) > 1:
        together = _ALIKE.get(".".join(tail), "").split() + (
            list(alternatives[0]) if tail[1] == "weight" else []
        )
        yield from (word.split(".") for word in together)


def _groups(parts: Sequence[str]) -> set[str]:
    return {name for name, words in _GROUPS.items() if {name, *words.split()} & set(parts)}
