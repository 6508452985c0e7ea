"""Components that are right, and connected wrongly."""

from itertools import pairwise

from harness.audit.catalogue.making import (
    Components,
    Edges,
    Layer,
    in_every_layer,
    layers,
    redirected,
)
from harness.audit.fault import Area, Fault, Rewired

_NAMED = frozenset({"wiring"})


def _every(name: str, says: str, edges: dict[str, dict[str, str]]) -> Fault:
    """Wires within a layer, alike in all. `stream` stands for what the layer takes in."""

    def wires(layer: Layer) -> Edges:
        return {
            layer.of(component): {
                argument: layer.stream
                if source == "stream"
                else source
                if "rotary" in source
                else layer.of(source)
                for argument, source in sources.items()
            }
            for component, sources in edges.items()
        }

    return Fault(name, Area.WIRING, says, Rewired(in_every_layer(wires)), _NAMED)


def _middle(components: Components) -> tuple[Layer, Layer] | None:
    """Two layers that follow each other, with none of them first if that can be."""
    found = layers(components)
    place = min(1, len(found) - 2)
    return (found[place], found[place + 1]) if len(found) >= 2 else None


def _exchanged(components: Components) -> Edges:
    pair = _middle(components)
    if pair is None:
        return {}
    first, second = pair
    return {
        **redirected(components, {second.output: first.output}),
        **redirected(components, {first.stream: second.output}, first.prefix),
        **redirected(components, {first.output: first.stream}, second.prefix),
    }


def _skipped(components: Components) -> Edges:
    pair = _middle(components)
    return {} if pair is None else redirected(components, {pair[0].output: pair[0].stream})


def _last_skipped(components: Components) -> Edges:
    found = layers(components)
    return redirected(components, {found[-1].output: found[-1].stream}) if found else {}


def _final_norm_skipped(components: Components) -> Edges:
    norms = [c for c in components if c.name == "norm"]
    return redirected(components, {"norm": norms[0].inputs["x"]}) if norms else {}


def _mlp_of_a_layer_skipped(components: Components) -> Edges:
    pair = _middle(components)
    return {} if pair is None else redirected(components, {pair[0].output: pair[0].of("attn_residual")})


def _embedding_for_residual(components: Components) -> Edges:
    return {layer.of("attn_residual"): {"residual": "embed_tokens"} for layer in layers(components)[1:]}


def _keys_from_the_norm_before(components: Components) -> Edges:
    found = layers(components)
    return {
        layer.of("self_attn.k_proj"): {"x": before.of("input_layernorm")} for before, layer in pairwise(found)
    }


def _keys_of_the_first_layer(components: Components) -> Edges:
    found = layers(components)
    return {
        layer.of(f"self_attn.{kind}_expanded"): {"x": found[0].of(source)}
        for layer in found[1:]
        for kind, source in (("k", "self_attn.k_rope"), ("v", "self_attn.v_proj"))
    }


def _head_norm_skipped(components: Components) -> Edges:
    names = {component.name for component in components}
    return {
        layer.of("self_attn.q_rope"): {"x": layer.of("self_attn.q_proj")}
        for layer in layers(components)
        if layer.of("self_attn.q_norm") in names
    }


FAULTS = (
    _every(
        "mlp-from-before-the-norm",
        "the MLP reads the residual stream from before its norm",
        {"mlp.gate_proj": {"x": "attn_residual"}, "mlp.up_proj": {"x": "attn_residual"}},
    ),
    _every(
        "up-from-before-the-norm",
        "up_proj reads the residual stream from before the norm, gate_proj does not",
        {"mlp.up_proj": {"x": "attn_residual"}},
    ),
    _every(
        "mlp-from-the-first-norm",
        "the MLP reads the norm that attention reads",
        {"mlp.gate_proj": {"x": "input_layernorm"}, "mlp.up_proj": {"x": "input_layernorm"}},
    ),
    _every(
        "parallel-block",
        "attention and MLP both read what the layer takes in",
        {"post_attention_layernorm": {"x": "stream"}},
    ),
    _every(
        "values-from-before-the-norm",
        "values are made of the residual stream from before the norm",
        {"self_attn.v_proj": {"x": "stream"}},
    ),
    _every(
        "residual-from-the-norm",
        "what attention gives is added to the normed stream",
        {"attn_residual": {"residual": "input_layernorm"}},
    ),
    _every(
        "mlp-residual-from-the-norm",
        "what the MLP gives is added to the normed stream",
        {"mlp_residual": {"residual": "post_attention_layernorm"}},
    ),
    _every(
        "mlp-residual-from-the-layer-input",
        "what the MLP gives is added to what the layer took in, and attention is lost",
        {"mlp_residual": {"residual": "stream"}},
    ),
    _every(
        "gate-not-activated",
        "the product takes the gate from before the activation",
        {"mlp.gated": {"act": "mlp.gate_proj"}},
    ),
    _every(
        "up-activated",
        "the activation is on up instead of on the gate",
        {"mlp.act": {"x": "mlp.up_proj"}, "mlp.gated": {"up": "mlp.gate_proj"}},
    ),
    _every(
        "down-reads-the-gate",
        "down_proj reads the activated gate, without up",
        {"mlp.down_proj": {"x": "mlp.act"}},
    ),
    _every(
        "values-are-keys",
        "attention takes the projected keys for values",
        {"self_attn.v_expanded": {"x": "self_attn.k_proj"}},
    ),
    _every(
        "queries-turned-by-exchanged-angles",
        "queries are given sin for cos and cos for sin",
        {"self_attn.q_rope": {"cos": "rotary_emb.sin", "sin": "rotary_emb.cos"}},
    ),
    Fault("layers-exchanged", Area.WIRING, "two layers run in the other order", Rewired(_exchanged), _NAMED),
    Fault("layer-skipped", Area.WIRING, "one layer in the middle does not run", Rewired(_skipped), _NAMED),
    Fault(
        "last-layer-skipped",
        Area.WIRING,
        "the last layer does not run: hidden states were counted from the embedding",
        Rewired(_last_skipped),
        _NAMED,
    ),
    Fault(
        "one-mlp-skipped",
        Area.WIRING,
        "the next layer reads what one layer held before its MLP",
        Rewired(_mlp_of_a_layer_skipped),
        _NAMED,
    ),
    Fault(
        "final-norm-skipped",
        Area.WIRING,
        "logits are made of the residual stream from before the final norm",
        Rewired(_final_norm_skipped),
        _NAMED,
    ),
    Fault(
        "residual-from-the-embedding",
        Area.WIRING,
        "what attention gives is added to the embedding in every layer",
        Rewired(_embedding_for_residual),
        _NAMED,
    ),
    Fault(
        "keys-from-the-norm-of-the-layer-before",
        Area.WIRING,
        "keys are made of what the layer before had normed",
        Rewired(_keys_from_the_norm_before),
        _NAMED,
    ),
    Fault(
        "keys-and-values-of-the-first-layer",
        Area.WIRING,
        "every layer sees the keys and values of the first",
        Rewired(_keys_of_the_first_layer),
        _NAMED,
    ),
    Fault(
        "query-norm-bypassed",
        Area.WIRING,
        "RoPE turns queries from before their norm",
        Rewired(_head_norm_skipped),
        _NAMED,
    ),
)
