"""Ports that make NaN and infinities, each at a place that is known."""

import numpy as np

from qwen_flax import port as qwen_flax


def from_a_weight(checkpoint, *, dtype):
    """Channel 7 of a product is NaN at every token."""
    port = qwen_flax.make(checkpoint, dtype=dtype)
    name = "model.layers.1.mlp.up_proj.weight"
    weight = port.parameters()[name].copy()
    weight[7] = np.nan
    return port.with_parameters({name: weight})


class Spoilt:
    """The right port with infinities in what it hands out. at: component -> where, and from which token on."""

    def __init__(self, checkpoint, dtype, at):
        self._port = qwen_flax.make(checkpoint, dtype=dtype)
        self._at = at

    def wire(self, components):
        self._port.wire(components)

    def trace(self, inputs, names):
        return self._spoilt(self._port.trace(inputs, names), inputs["query_index"])

    def init_cache(self, batch, capacity, fill):
        return self._port.init_cache(batch, capacity, fill)

    def read_cache(self, cache):
        return self._port.read_cache(cache)

    def step(self, cache, inputs, names):
        outputs, cache = self._port.step(cache, inputs, names)
        return self._spoilt(outputs, inputs["query_index"]), cache

    def _spoilt(self, outputs, query_index):
        outputs = {name: np.array(value) for name, value in outputs.items()}
        for name, (text, token, channel) in self._at.items():
            if name in outputs:
                outputs[name][text, np.asarray(query_index) >= token, channel] = np.inf
        return outputs


def later_layer_first(checkpoint, *, dtype):
    """In decode, layer 2 has one a token before layer 0 has."""
    return Spoilt(checkpoint, dtype, {"layers.0.mlp.act": (0, 8, 3), "layers.2.mlp.act": (0, 7, 5)})


def in_padding(checkpoint, *, dtype):
    """At the columns of the batch where its second text is padding, on the left, and nowhere else."""

    class Port(Spoilt):
        def trace(self, inputs, names):
            outputs = {name: np.array(value) for name, value in self._port.trace(inputs, names).items()}
            outputs["layers.1.mlp.act"][inputs["attention_mask"] == 0] = np.nan
            return outputs

    return Port(checkpoint, dtype, {})
